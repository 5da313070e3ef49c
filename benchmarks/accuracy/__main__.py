"""Accuracy by format and method, at equal bytes.

python -m benchmarks.accuracy smollm2 --sequences 16 --keep accuracy
python -m benchmarks.accuracy minilm digits --only "nearest;gptq"

With `--keep` a run that was ended, by a person or by `--minutes`, goes on from what its folder holds.
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
from benchmarks.accuracy.formats import Store
from benchmarks.accuracy.kept import Kept
from benchmarks.accuracy.subjects import MiniLM, SmolLM2, Subject
from benchmarks.accuracy.ways import ways

SUBJECTS = {"smollm2": SmolLM2, "minilm": MiniLM, "digits": digits.Digits}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="+", choices=tuple(SUBJECTS))
    parser.add_argument("--only", default="", help="ways whose names begin with one of these, separated by semicolons")
    parser.add_argument("--sequences", type=int, default=8, help="of text, for calibration")
    parser.add_argument("--judged", type=int, default=8, help="sequences of text for evaluation")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--calls", type=int, default=4, help="of the calibration data that a budget measures with")
    parser.add_argument("--measure", type=float, default=0.0, help="minutes that a budget may measure layers for")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no other way is begun")
    parser.add_argument("--keep", type=Path, help="a folder that keeps what was found, for the next time")
    options = parser.parse_args()
    kept, end = Kept(options.keep), time.monotonic() + 60 * options.minutes
    torch.set_grad_enabled(False)
    for name in options.subjects:
        kind = SUBJECTS[name]
        subject = SmolLM2(options.sequences, options.judged, options.length) if kind is SmolLM2 else kind()
        subject.kept = kept
        wanted = tuple(filter(None, options.only.split(";"))) or ("",)
        chosen = [w for w in ways(subject, options.calls, options.measure, kept) if w[0].startswith(wanted)]
        rows = [["as it is", "32", *map(_shown, subject.judge(subject.model)), ""]]
        for row in _measured(subject, chosen, kept, end):
            rows.append(row)
            print(*row, sep="  ", flush=True)
        table.show(name, ("way", "bits a weight", *subject.measures, "processors' seconds"), rows)
        if time.monotonic() > end:
            print(f"after {options.minutes:g} minutes no other way was begun: run this again, and it goes on")


def _measured(subject: Subject, chosen: list[tuple[str, Store]], kept: Kept, end: float) -> Iterator[list[str]]:
    """A row for each way: those that are known at once, the others until the time is over."""
    known = kept.rows()
    for way, store in chosen:
        of = f"{subject.settings}: {way}"
        if of not in known:
            if time.monotonic() > end:
                continue
            started = time.process_time()
            try:
                size, made = store(copy.deepcopy(subject.model))
            except ModuleNotFoundError as error:
                print(f"{way} is left out: pip install {error.name}")
                continue
            spent = time.process_time() - started
            known[of] = [way, f"{size:.2f}", *map(_shown, subject.judge(made)), f"{spent:.0f}"]
            kept.add(of, known[of])
        yield known[of]


def _shown(number: float) -> str:
    return f"{number:.4g}"


if __name__ == "__main__":
    main()
