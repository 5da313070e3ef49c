"""Tasks of the database, and the processes that do them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator

from benchmarks import workers
from benchmarks.op_database.outcome import Outcome

_CRASHES = 3
"""So many calls crash one after the other before a task is given up."""


_START = 300.0
"""Seconds that a new process for what is left of a task may take to begin."""


@dataclasses.dataclass(frozen=True)
class Task:
    """All calls of one operator of a kind, in one dtype, but the first `done`; `together` of them make one program."""

    name: str
    kind: str
    dtype: str
    limit: int
    together: int = 1
    done: int = 0

    @property
    def whole(self) -> Task:
        """The task that this is the rest of."""
        return dataclasses.replace(self, together=1, done=0)


def run(tasks: Iterable[Task], timeout: float) -> Iterator[tuple[Task, list[Outcome]]]:
    """Every task's outcomes, as they are done.

    A call that takes longer than `timeout` seconds, or ends the process, is a crash, and costs only itself: calls that
    were compiled with it go on one by one, in a new process, and so do those after it. After several crashes in turn
    the rest of the task is left.
    """
    begun: dict[Task, list[Outcome]] = collections.defaultdict(list)
    crashes: collections.Counter[Task] = collections.Counter()
    waiting = tasks
    while True:
        rest: list[Task] = []
        for fields, answers, failed in workers.run("benchmarks.op_database.work", _asked(waiting), timeout):
            task = Task(**fields)
            outcomes = begun[task.whole]
            outcomes += [Outcome(**{**answer, "externs": tuple(answer["externs"])}) for answer in answers]
            if failed and task.together == 1:
                outcomes.append(Outcome(f"{task.name} {task.kind} {task.dtype} #{len(outcomes)}", "crash", failed))
            crashes[task.whole] = crashes[task.whole] + 1 if failed and task.together == 1 and not answers else 0
            if failed and crashes[task.whole] < _CRASHES:
                rest.append(dataclasses.replace(task, together=1, done=len(outcomes)))
            else:
                yield task.whole, begun.pop(task.whole)
        if not rest:
            return
        waiting, timeout = rest, max(timeout, _START)


def _asked(tasks: Iterable[Task]) -> Iterator[dict[str, object]]:
    return map(dataclasses.asdict, tasks)
