"""The process that runs calls: a task comes in, its outcomes go out."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch._dynamo.guards

from benchmarks.op_database.calls import calls, operators
from benchmarks.op_database.outcome import Outcome, outcome, outcomes
from benchmarks.op_database.workers import Task
from benchmarks.workers import serve
from effcc.errors import FaultWarning


def main() -> None:
    """Serve tasks until the input ends."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", FaultWarning)  # a part that PyTorch runs for a fault of effcc's is no success
    logging.getLogger("torch").setLevel(logging.CRITICAL)  # a call that must be refused is no news
    # Dynamo times guards for its log, and flushes all caches first.
    setattr(torch._dynamo.guards, "profile_guard_manager", lambda *_: 0.0)  # noqa: B010
    known = operators()
    serve(lambda task: map(dataclasses.asdict, all_outcomes(Task(**task), known)))


def all_outcomes(task: Task, known: dict[str, Any]) -> Iterator[Outcome]:
    """What each call of a task came to."""
    try:
        made = calls(known[task.name], task.kind, task.dtype, task.limit)[task.done :]
    except Exception as error:  # the database's own samples need what is not here
        yield Outcome(f"{task.name} {task.kind} {task.dtype}", "skipped", f"no samples: {error}")
        return
    for begin in range(0, len(made), task.together):
        some = made[begin : begin + task.together]
        yield from [outcome(some[0])] if len(some) == 1 else outcomes(some)


if __name__ == "__main__":
    main()
