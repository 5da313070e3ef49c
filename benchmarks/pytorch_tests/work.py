"""The process that runs tests: a file without a test asks for the names of its tests."""

from __future__ import annotations

import dataclasses
import functools
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

from benchmarks.pytorch_tests import substitute, tests
from benchmarks.workers import Answer, Task, serve
from effcc.errors import FaultWarning


def main() -> None:
    """Serve tasks until the input ends."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", FaultWarning)  # a part that PyTorch runs for a fault of effcc's is no success
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    with substitute.in_place():
        serve(_answers)


_load = functools.cache(tests.load)


def _answers(task: Task) -> Iterator[Answer]:
    module = _load(Path(task["file"]))
    if task["test"] is None:
        yield from ({"test": name} for name in tests.names(module))
    elif task["control"]:
        yield dataclasses.asdict(tests.outcome(module, task["test"], tests.CONTROL))
    else:
        yield dataclasses.asdict(tests.compared(module, task["test"]))


if __name__ == "__main__":
    main()
