"""PyTorch's operator database through `torch.compile(backend="effcc", fullgraph=True)`, beside eager.

python -m benchmarks.op_database                                   # every operator: a few samples in float32
python -m benchmarks.op_database --dtype int64 --dtype bool -n 2   # other dtypes, two samples each
python -m benchmarks.op_database --kind inplace --kind gradient    # other ways to call
python -m benchmarks.op_database add nn.functional.pad:reflect     # some operators, every call shown
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import sys
from pathlib import Path

from rich.progress import track

from benchmarks.op_database.calls import DTYPES, KINDS, operators
from benchmarks.op_database.outcome import FAILED, RIGHT, STATUSES, Outcome
from benchmarks.op_database.workers import Task, run


def main() -> None:
    """Run what was asked for and print the counts, and each call that is not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", help="names in the database; all when left out")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: float32")
    parser.add_argument("--kind", action="append", choices=KINDS, help="how they are called; default: plain")
    parser.add_argument("-n", "--samples", type=int, default=4, help="samples of each operator and dtype")
    parser.add_argument("--timeout", type=float, default=120, help="seconds a call may take")
    parser.add_argument("--json", type=Path, help="write every outcome there, a line each")
    options = parser.parse_args()
    tasks = [
        Task(name, kind, dtype, options.samples)
        for kind in options.kind or ["plain"]
        for dtype in options.dtype or ["float32"]
        for name in options.operators or operators()
    ]
    found: dict[Task, list[Outcome]] = {}
    with open(options.json or "/dev/null", "w") as file:
        for task, outcomes in run(track(tasks, "compiling"), options.timeout):
            found[task] = outcomes
            for one in outcomes:
                file.write(json.dumps({**dataclasses.asdict(task), **dataclasses.asdict(one)}) + "\n")
                if options.operators or one.status not in (*RIGHT, "skipped"):
                    print(f"{one.status}: {one.call} {one.detail} {' '.join(one.externs)}", file=sys.stderr)
            file.flush()
    print_counts(found)


def worst(outcomes: list[Outcome]) -> str:
    """An operator is what its worst call is."""
    order = [*FAILED, "refused", "capture", "extern", "native", "skipped"]
    return min((o.status for o in outcomes), key=order.index, default="skipped")


def print_counts(found: dict[Task, list[Outcome]]) -> None:
    """Operators by what their worst call came to, a row for each kind and dtype."""
    rows = collections.defaultdict(collections.Counter)  # type: ignore[var-annotated]
    for task, outcomes in found.items():
        rows[task.kind, task.dtype][worst(outcomes)] += 1
        rows[task.kind, task.dtype]["calls"] += len(outcomes)
    columns = [*STATUSES, "calls"]
    print(f"{'operators':20}" + "".join(f"{c:>10}" for c in columns))
    for (kind, dtype), counts in rows.items():
        print(f"{kind + ' ' + dtype:20}" + "".join(f"{counts[c]:>10}" for c in columns))


if __name__ == "__main__":
    main()
