"""Accuracy by format and method, at equal bytes.

python -m benchmarks.accuracy smollm2 --only "nearest;gptq;llama.cpp;budget"
python -m benchmarks.accuracy minilm digits
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import table
from benchmarks.accuracy import digits
from benchmarks.accuracy.formats import Store, budgeted, column_importance, decoded, llama_cpp, quantized, torchao
from benchmarks.accuracy.subjects import MiniLM, SmolLM2, Subject

SUBJECTS = {"smollm2": SmolLM2, "minilm": MiniLM, "digits": digits.Digits}
SCHEMES = (
    'int5(group=32,scale="f16")',
    'iq4(group=32,scale="f16")',
    'int4(group=32,scale="f16")',
    'iq4(group=32,scale="i6",super=256)',
    'int4(group=32,scale="i6",super=256)',
    'int3(group=32,scale="f16")',
)
"""Schemes for all layers, and among which a budget chooses."""

METHODS = ("nearest", "weighted nearest", "awq", "gptq", "quantease", "awq+gptq", "hadamard+gptq")
BUDGETS = (4.25, 4.5)


def ways(name: str, subject: Subject, calls: int, minutes: float, resume: Path | None) -> Iterator[tuple[str, Store]]:
    """All ways to store a subject, by name."""
    if isinstance(subject, digits.Digits):
        yield from digits.ways(subject)
        return
    for method in METHODS:
        for scheme in SCHEMES:
            yield f"{method}: {scheme}", quantized(subject, scheme, method, resume)
    if name == "smollm2":
        importance = column_importance(subject)
        for kind in ("Q4_0", "IQ4_NL", "IQ4_XS", "Q4_K", "Q5_0"):
            yield f"llama.cpp: {kind}", llama_cpp(subject, kind)
            yield f"llama.cpp: {kind}, imatrix", llama_cpp(subject, kind, importance)
        for group, zero in ((32, False), (64, False), (64, True)):
            yield f"torchao: int4, groups of {group}{', zero points' if zero else ''}", torchao(subject, group, zero)
    for method in ("nearest", "gptq"):
        for wanted in BUDGETS:
            yield f"budget: {wanted} bits, {method}", budgeted(subject, SCHEMES, wanted, method, calls, minutes, resume)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="+", choices=tuple(SUBJECTS))
    parser.add_argument("--only", default="", help="ways whose names begin with one of these, separated by semicolons")
    parser.add_argument("--sequences", type=int, default=8, help="of text, for calibration")
    parser.add_argument("--judged", type=int, default=8, help="sequences of text for evaluation")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--calls", type=int, default=1, help="of the calibration data that a budget measures with")
    parser.add_argument("--minutes", type=float, default=10.0, help="that a budget may measure for")
    parser.add_argument("--resume", type=Path, help="a folder that keeps what was found, for the next time")
    options = parser.parse_args()
    wanted = tuple(filter(None, options.only.split(";")))
    torch.set_grad_enabled(False)
    for name in options.subjects:
        kind = SUBJECTS[name]
        subject = SmolLM2(options.sequences, options.judged, options.length) if kind is SmolLM2 else kind()
        rows = [["as it is", "32", *map(_shown, subject.judge(subject.model)), ""]]
        for way, store in ways(name, subject, options.calls, options.minutes, options.resume):
            if wanted and not way.startswith(wanted):
                continue
            model = copy.deepcopy(subject.model)
            started = time.process_time()
            size = store(model)
            spent = time.process_time() - started
            rows.append([way, f"{size:.2f}", *map(_shown, subject.judge(decoded(model, subject))), f"{spent:.0f}"])
            print(*rows[-1], sep="  ", flush=True)
        table.show(name, ("way", "bits a weight", *subject.measures, "processors' seconds"), rows)


def _shown(number: float) -> str:
    return f"{number:.4g}"


if __name__ == "__main__":
    main()
