"""The process that runs calls: a task comes in, its outcomes go out."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch._dynamo.guards

from benchmarks.op_database.calls import Call, calls, operators
from benchmarks.op_database.outcome import Outcome, outcome, outcomes
from benchmarks.op_database.workers import Group
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
    serve(lambda group: answers(Group.of(group), known))


def answers(group: Group, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What each call of a group came to, with the position of its task."""
    made: list[tuple[int, Call]] = []
    for position, task in enumerate(group.tasks):
        try:
            found = calls(known[task.name], task.kind, task.dtype, task.limit)[group.done :]
            made += [(position, call) for call in found]
        except Exception as error:  # the database's own samples need what is not here
            nothing = Outcome(f"{task.name} {task.kind} {task.dtype}", "skipped", f"no samples: {error}")
            yield {"position": position, **dataclasses.asdict(nothing)}
    for begin in range(0, len(made), group.together):
        some = made[begin : begin + group.together]
        only = [call for _, call in some]
        done = iter([outcome(only[0])]) if len(only) == 1 else outcomes(only)
        for (position, _), one in zip(some, done, strict=True):
            yield {"position": position, **dataclasses.asdict(one)}


if __name__ == "__main__":
    main()
