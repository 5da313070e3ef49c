"""Tasks of the database, and the processes that do them."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks import workers
from benchmarks.op_database.outcome import Outcome

_START = 300.0
"""Seconds that a new process for what is left of a task may take to begin."""
_CRASHES = 3
"""So many calls crash one after the other before a task is given up."""


@dataclasses.dataclass(frozen=True)
class Task:
    """All calls of one operator of a kind, in one dtype."""

    name: str
    kind: str
    dtype: str
    limit: int


@dataclasses.dataclass(frozen=True)
class Group:
    """Tasks of one kind and dtype that a process does: `together` of their calls make one program, whichever they are
    of. Of a task on its own, the first `done` calls are left out."""

    tasks: tuple[Task, ...]
    together: int = 1
    done: int = 0

    @staticmethod
    def of(fields: dict[str, Any]) -> Group:
        """The group that `dataclasses.asdict` gave the fields of."""
        return Group(tuple(Task(**task) for task in fields["tasks"]), fields["together"], fields["done"])


def run(tasks: Iterable[Task], timeout: float, together: int = 1) -> Iterator[tuple[Task, list[Outcome]]]:
    """Every task's outcomes, as they are done; so many calls are compiled together.

    A call that takes longer than `timeout` seconds, or ends the process, is a crash, and costs only itself: calls that
    were compiled with it go on one by one, in a new process, and so do those after it. After several crashes in turn
    the rest of the task is left.
    """
    begun: dict[Task, list[Outcome]] = collections.defaultdict(list)
    crashes: collections.Counter[Task] = collections.Counter()
    waiting: Iterable[Group] = _grouped(tasks, together)
    while True:
        rest: list[Group] = []
        asked = map(dataclasses.asdict, waiting)
        for fields, answers, failed in workers.run("benchmarks.op_database.work", asked, timeout):
            group = Group.of(fields)
            for answer in answers:
                task = group.tasks[answer.pop("position")]
                begun[task].append(Outcome(**{**answer, "externs": tuple(answer["externs"])}))
            alone = failed and group.together == 1
            if alone:
                (task,) = group.tasks
                crash = f"{task.name} {task.kind} {task.dtype} #{len(begun[task])}"
                begun[task].append(Outcome(crash, "crash", failed))
                crashes[task] = 1 if answers else crashes[task] + 1
            for task in group.tasks:
                if failed and crashes[task] < _CRASHES:
                    rest.append(Group((task,), done=len(begun[task])))
                else:
                    yield task, begun.pop(task, [])
        if not rest:
            return
        waiting, timeout = rest, max(timeout, _START)


def _grouped(tasks: Iterable[Task], together: int) -> Iterator[Group]:
    """Tasks in turn, as many as are likely to fill one program; one by one where calls are."""
    for _, alike in itertools.groupby(tasks, lambda task: (task.kind, task.dtype, task.limit)):
        listed = iter(alike)
        while first := next(listed, None):
            more = max(together // first.limit, 1) - 1 if first.limit else 0
            yield Group((first, *itertools.islice(listed, more)), together)
