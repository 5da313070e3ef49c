"""PyTorch's operator database through `torch.compile(backend="effcc", fullgraph=True)`, beside eager.

python -m benchmarks.op_database                                   # every operator: a few samples in float32
python -m benchmarks.op_database --dtype int64 --dtype bool -n 2   # other dtypes, two samples each
python -m benchmarks.op_database --kind inplace --kind gradient    # other ways to call
python -m benchmarks.op_database add nn.functional.pad:reflect     # some operators, every call shown
python -m benchmarks.op_database --everything --json all.jsonl --shard 0/8   # all samples, dtypes and ways to call
python -m benchmarks.op_database --read all.jsonl --table table.md # no run: the counts, and a table of operators

`--json` keeps what is done: the same command again does the rest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.progress import track

from benchmarks.op_database import report
from benchmarks.op_database.calls import DTYPES, KINDS, operators
from benchmarks.op_database.outcome import RIGHT, Outcome
from benchmarks.op_database.workers import Task, run

TOGETHER = 8
"""Calls that are compiled as one graph, which takes little longer than one of them."""


def main() -> None:
    """Run what was asked for and print the counts, and each call that is not right."""
    options = _options()
    found: dict[Task, list[Outcome]] = {}
    for path in options.read:
        found |= report.read(path)
    if not options.read:
        found = _run(options)
    print(report.counts(found))
    print(report.reasons(found))
    if options.table:
        options.table.write_text(f"{report.LEGEND}\n{report.table(found)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operators", nargs="*", help="names in the database; all when left out")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: float32")
    parser.add_argument("--kind", action="append", choices=KINDS, help="how they are called; default: plain")
    parser.add_argument("-n", "--samples", type=int, default=4, help="samples of each operator and dtype; 0: all")
    parser.add_argument("--everything", action="store_true", help="all samples, dtypes and ways to call")
    parser.add_argument("--together", type=int, default=TOGETHER, help="calls that are compiled as one graph")
    parser.add_argument(
        "--shard", type=_shard, default=(0, 1), help="which part of the tasks, of how many: 0/8, ..., 7/8"
    )
    parser.add_argument("--timeout", type=float, default=120, help="seconds a call may take")
    parser.add_argument("--json", type=Path, help="write every task's outcomes there, a line each")
    parser.add_argument("--read", type=Path, action="append", default=[], help="run nothing: what was written")
    parser.add_argument("--table", type=Path, help="write a table there: operators by dtypes and ways to call")
    options = parser.parse_args()
    if options.everything:
        options.dtype, options.kind, options.samples = list(DTYPES), list(KINDS), 0
    return options


def _shard(text: str) -> tuple[int, int]:
    """Which part, of how many: `0/8`."""
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"expected a part of several, 0/8 to 7/8 of eight, got {text!r}")
    return int(part), int(parts)


def _run(options: argparse.Namespace) -> dict[Task, list[Outcome]]:
    """Do the shard's tasks that are not done yet; the outcomes of all."""
    tasks = [
        Task(name, kind, dtype, options.samples)
        for kind in options.kind or ["plain"]
        for dtype in options.dtype or ["float32"]
        for name in options.operators or operators()
    ]
    part, parts = options.shard
    tasks = tasks[part::parts]
    done = report.read(options.json) if options.json and options.json.exists() else {}
    found = {task: done[task] for task in tasks if task in done}
    left = [task for task in tasks if task not in found]
    with open(options.json or "/dev/null", "a") as file:
        for task, outcomes in run(track(left, "compiling"), options.timeout, options.together):
            found[task] = outcomes
            file.write(report.line(task, outcomes))
            file.flush()
            for one in outcomes:
                if options.operators or one.status not in (*RIGHT, "skipped"):
                    print(f"{one.status}: {one.call} {one.detail} {' '.join(one.externs)}", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
