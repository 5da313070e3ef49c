"""The nests of a kernel: which statements share a set of loops, and which axes may run in parallel around them all."""

from __future__ import annotations

from dataclasses import dataclass, field

from effcc.ir.expr import Axis, Reduce, Span, walk
from effcc.ir.kernel import Kernel, Statement

MOST_SUMS = 8
"""Reductions of one nest: of numbers twice as wide as f32 each takes two registers at least, of which there are 16."""


@dataclass
class NestPlan:
    """A nest before its axes are tiled: the statements by position, and the axes they run over.

    groups: the product whose sums, a group of its depth at a time, the reductions add up (`scaled_nest`).
    """

    kept: tuple[str, ...]
    reduced: tuple[str, ...] = ()
    body: list[int] = field(default_factory=list)
    reductions: list[int] = field(default_factory=list)
    epilogue: list[int] = field(default_factory=list)
    phase: str = "inside"
    groups: list[int] = field(default_factory=list)

    @property
    def box(self) -> frozenset[str]:
        return frozenset(self.kept) | frozenset(self.reduced)

    def spans(self, kernel: Kernel) -> tuple[Span, ...]:
        """The spans of its ragged axes, which all its reductions give them alike."""
        return next((s for i in self.reductions if (s := kernel.statements[i].spans)), ())


PHASES = ("before", "inside", "turn", "after")


def phases(kernel: Kernel, sequential: str | None, around: tuple[str, ...] = ()) -> list[str]:
    """For each statement, whether it runs `before`, `inside` or `after` the loop over the sequential axis.

    around: the axes of loops around that one, in which what follows their own points runs at the end of each `turn`.
    """
    if sequential is not None and around:
        return _phases_of_turns(kernel, frozenset({sequential, *around}), around)
    if sequential is None:
        return ["inside"] * len(kernel.statements)
    inside: set[str] = set()
    after: set[str] = set()
    found = []
    for s in kernel.statements:
        reads = {load.buffer for load in s.reads}
        over = sequential in s.axes or any(isinstance(e, Reduce) and sequential in e.axes for e in walk(s.value))
        if over and not reads & after:
            inside.add(s.target)
            found.append("inside")
        elif reads & (inside | after):
            after.add(s.target)
            found.append("after")
        else:
            found.append("before")
    return found


def _phases_of_turns(kernel: Kernel, walked: frozenset[str], around: tuple[str, ...]) -> list[str]:
    finished: set[str] = set()
    found = []
    for s in kernel.statements:
        if {x.buffer for x in s.reads} & finished:
            finished.add(s.target)
            found.append("turn" if set(around) <= set(s.axes) else "after")
            continue
        if s.reduction is not None and walked & set(s.reduction.axes):
            finished.add(s.target)
        found.append("inside")
    return found


def plan_nests(kernel: Kernel, sequential: str | None = None, around: tuple[str, ...] = ()) -> list[NestPlan]:
    """The kernel's statements gathered into nests, in order: a statement joins the last nest when loops agree."""
    plans: list[NestPlan] = []
    when = phases(kernel, sequential, around)
    walked = frozenset(a for a in (sequential, *around) if a is not None)
    order = sorted(range(len(when)), key=lambda i: PHASES.index(when[i]))
    for position in order:
        statement = kernel.statements[position]
        last = plans[-1] if plans and plans[-1].phase == when[position] else None
        if last is None or not _join(kernel, last, position, statement, walked):
            plans.append(_open(position, statement, when[position]))
    return plans


def _open(position: int, statement: Statement, phase: str) -> NestPlan:
    reduce = statement.reduction
    if reduce is not None and statement.scatter is None:
        return NestPlan(statement.axes, reduce.axes, reductions=[position], phase=phase)
    return NestPlan(statement.axes, body=[position], phase=phase)


def _join(kernel: Kernel, nest: NestPlan, position: int, statement: Statement, walked: frozenset[str]) -> bool:
    """Add the statement to the nest if it runs over the same loops and reads only what is finished there."""
    statements = kernel.statements
    members = [statements[i] for i in (*nest.body, *nest.reductions, *nest.epilogue)]
    if statement.scatter is not None or any(m.scatter is not None or m.target == statement.target for m in members):
        return False
    # In registers, a member's result can be read only at the point where it was computed.
    for load in statement.reads:
        for m in members:
            if load.buffer == m.target and load.index != tuple(Axis(a) for a in m.axes):
                return False
    late = {statements[i].target for i in (*nest.reductions, *nest.epilogue)}
    reads = {load.buffer for load in statement.reads}
    accumulates = bool(walked & set(nest.reduced))
    reduce = statement.reduction
    if reduce is None:
        own = frozenset(statement.axes)
        if own == nest.box and not reads & late and not any(m.spans for m in members):
            nest.body.append(position)
            return True
        if nest.reduced and own == frozenset(nest.kept) and not accumulates:
            nest.epilogue.append(position)
            return True
        return False
    if (
        len(nest.reductions) == MOST_SUMS
        or reads & late
        or accumulates
        or any(m.spans != statement.spans for m in members)
    ):
        return False
    if frozenset(statement.axes) | frozenset(reduce.axes) != nest.box:
        return False
    if not nest.reduced and not frozenset(reduce.axes) & frozenset(statement.axes):
        nest.kept, nest.reduced = statement.axes, reduce.axes
    if frozenset(nest.kept) != frozenset(statement.axes):
        return False
    nest.reductions.append(position)
    return True
