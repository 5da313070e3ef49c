"""Tasks of the database, and the processes that do them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from benchmarks import workers
from benchmarks.op_database.outcome import Outcome


@dataclasses.dataclass(frozen=True)
class Task:
    """All calls of one operator of a kind, in one dtype."""

    name: str
    kind: str
    dtype: str
    limit: int


def run(tasks: Iterable[Task], timeout: float) -> Iterator[tuple[Task, list[Outcome]]]:
    """Every task's outcomes; a call that takes longer than `timeout` seconds, or ends the process, is a crash."""
    given = map(dataclasses.asdict, tasks)
    for fields, answers, failed in workers.run("benchmarks.op_database.work", given, timeout):
        task = Task(**fields)
        outcomes = [Outcome(**{**answer, "externs": tuple(answer["externs"])}) for answer in answers]
        if failed:
            outcomes.append(Outcome(f"{task.name} {task.kind} {task.dtype} #{len(outcomes)}", "crash", failed))
        yield task, outcomes
