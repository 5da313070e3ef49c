"""What keeping every rounding costs: each model of the zoo compiled with and without `fast_math`, in turn.

python -m benchmarks.fast_math                    # those that rules for ordinary numbers fire on
python -m benchmarks.fast_math resnet50 minilm --seconds 10
"""

from __future__ import annotations

import argparse
import gc
from collections import Counter

import torch

import effcc
from benchmarks import table
from benchmarks.models import TINY, ZOO, Model
from benchmarks.race import race
from effcc.backend import programs_of
from effcc.passes.rules.reader import load_safe

DEFAULT = ("minilm", "bert", "gpt2", "vit", "resnet50", "mobilenet_v2", "convnext")


def measure(entry: Model, seconds: float) -> list[str]:
    """A row: how often each of the rules fired that `fast_math` adds, both times, and what the default's is to it."""
    model, args = entry.build(), entry.inputs(0)
    runs = {}
    with torch.no_grad():
        for name, fast_math in (("default", False), ("fast_math", True)):
            torch.compiler.reset()
            runs[name] = effcc.compile(model, fast_math=fast_math)
            runs[name](*args)
        safe = {rule.name for rule in load_safe().rules}
        fired: Counter[str] = Counter()
        for program in programs_of(runs["fast_math"]):
            fired.update({name: n for name, n in program.state.fired.items() if name not in safe})
        timings = race(runs, args, "default", seconds)
    default, fast = timings["default"], timings["fast_math"]
    return [
        entry.name, table.counts(fired), f"{default.median * 1e3:.2f}", f"{fast.median * 1e3:.2f}", f"{fast.speed:.3f}",
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="of " + ", ".join(ZOO))
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each model's race runs")
    parser.add_argument("--tiny", action="store_true", help="the sizes that tests use")
    options = parser.parse_args()
    zoo = TINY if options.tiny else ZOO
    if unknown := sorted({*options.models} - {*zoo}):
        parser.error(f"no model {', '.join(unknown)}; expected some of {', '.join(zoo)}")
    rows = []
    for name in options.models or [n for n in DEFAULT if n in zoo]:
        print(f"{name} ...", flush=True)
        rows.append(measure(zoo[name], options.seconds))
        gc.collect()
    columns = ["model", "rules that fast_math adds", "default ms", "fast_math ms", "default / fast_math"]
    table.show(f"What keeping every rounding costs, fp32, {torch.get_num_threads()} threads", columns, rows)


if __name__ == "__main__":
    main()
