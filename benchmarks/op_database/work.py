"""The process that runs calls: a task comes in, its outcomes go out."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from benchmarks.op_database.calls import calls, operators
from benchmarks.op_database.outcome import Outcome, outcome
from benchmarks.op_database.workers import Task
from benchmarks.workers import serve
from effcc.errors import FaultWarning

_LEFT_TO_PYTORCH = ("linalg.", "fft.", "sparse.")  # one sample says as much as many


def main() -> None:
    """Serve tasks until the input ends."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", FaultWarning)  # a part that PyTorch runs for a fault of effcc's is no success
    logging.getLogger("torch").setLevel(logging.CRITICAL)  # a call that must be refused is no news
    known = operators()
    serve(lambda task: map(dataclasses.asdict, outcomes(Task(**task), known)))


def outcomes(task: Task, known: dict[str, Any]) -> Iterator[Outcome]:
    """What each call of a task came to."""
    try:
        made = calls(known[task.name], task.kind, task.dtype, task.limit)
    except Exception as error:  # the database's own samples need what is not here
        yield Outcome(f"{task.name} {task.kind} {task.dtype}", "skipped", f"no samples: {error}")
        return
    for call in made[:1] if task.name.startswith(_LEFT_TO_PYTORCH) else made:
        yield outcome(call)


if __name__ == "__main__":
    main()
