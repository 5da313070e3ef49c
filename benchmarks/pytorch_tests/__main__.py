"""PyTorch's tests of its compiler, on the CPU, with effcc in Inductor's place.

python -m benchmarks.pytorch_tests FOLDER                                 # FILES of a checkout of PyTorch
python -m benchmarks.pytorch_tests FOLDER inductor/test_torchinductor.py  # some files of its folder `test`
python -m benchmarks.pytorch_tests FOLDER dynamo/test_misc.py -k inplace  # the tests whose names hold "inplace"

The tests compare with eager, by their own tolerances. One that fails is run again with a backend that only runs what
was captured: where it fails at the same line, it asks for Inductor's internals (its code, its counters) or for the
PyTorch that it was written for, and is no test of a backend (`alike`).
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import track

from benchmarks import workers
from benchmarks.pytorch_tests.tests import FAILED, STATUSES, Outcome, judged

FILES = (
    "inductor/test_torchinductor.py",
    "inductor/test_torchinductor_dynamic_shapes.py",
    "dynamo/test_repros.py",
    "dynamo/test_misc.py",
    "functorch/test_aotdispatch.py",
)
_WORK = "benchmarks.pytorch_tests.work"
_LOADING = 120.0  # seconds that importing PyTorch and a test file may take besides


def main() -> None:
    """Run what was asked for; print the counts, and each test that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a checkout of PyTorch, of a version near the one installed")
    parser.add_argument("files", nargs="*", default=FILES, help="in its folder `test`")
    parser.add_argument("-k", dest="part", default="", help="only tests whose names hold this")
    parser.add_argument("-j", "--processes", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=180, help="seconds a test may take")
    parser.add_argument("--json", type=Path, help="write every outcome there, a line each")
    options = parser.parse_args()
    timeout = options.timeout + _LOADING
    rows: dict[str, list[Outcome]] = {}
    with open(options.json or "/dev/null", "w") as file:
        for name in options.files:
            path = options.folder / "test" / name
            chosen = [test for test in tests_of(path) if options.part in test]
            rows[name] = []
            for one in track(outcomes(path, chosen, timeout, options.processes), name, total=len(chosen)):
                rows[name].append(one)
                file.write(json.dumps({"file": name, **dataclasses.asdict(one)}) + "\n")
                file.flush()
                if one.status in FAILED:
                    print(f"{one.status}: {one.test} {one.place} {one.detail[:300]}", file=sys.stderr)
    print_counts(rows)


def tests_of(path: Path) -> list[str]:
    """The names of a file's tests."""
    (found,) = workers.run(_WORK, [{"file": str(path), "test": None}], 2 * _LOADING)
    _, answers, failed = found
    if failed:
        raise SystemExit(f"{path} cannot be imported: {failed}")
    return [answer["test"] for answer in answers]


def outcomes(path: Path, chosen: Sequence[str], timeout: float, processes: int) -> Iterator[Outcome]:
    """What each test came to; those that end their process or hang come last, for the control has to run apart."""
    crashed = {}
    for one in _outcomes(path, chosen, False, timeout, processes):
        if one.status == "crash":
            crashed[one.test] = one
        else:
            yield one
    for control in _outcomes(path, list(crashed), True, timeout, processes):
        yield judged(crashed[control.test], control)


def _outcomes(path: Path, chosen: Sequence[str], control: bool, timeout: float, processes: int) -> Iterator[Outcome]:
    tasks = [{"file": str(path), "test": test, "control": control} for test in chosen]
    for task, answers, failed in workers.run(_WORK, tasks, timeout, processes):
        if failed:
            yield Outcome(task["test"], "crash", failed)
        else:
            (answer,) = answers
            yield Outcome(**{**answer, "externs": tuple(answer["externs"])})


def print_counts(rows: dict[str, list[Outcome]]) -> None:
    """Tests by what they came to, a row for each file."""
    print(f"{'file':50}" + "".join(f"{status:>10}" for status in STATUSES))
    for name, found in rows.items():
        counts = collections.Counter(one.status for one in found)
        print(f"{name:50}" + "".join(f"{counts[status]:>10}" for status in STATUSES))


if __name__ == "__main__":
    main()
