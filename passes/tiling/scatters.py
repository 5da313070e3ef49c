"""Schedules of scatters: each is a nest of its own, beside what its target holds before.

    Y[r,c] = X[r,c]
    Y[I[i],c] add= S[i,c] for i, c

Two points of i may meet in one row of Y, so they keep their order, inside loops over axes along which points write
apart. Those are what threads share. An axis that lies in memory as it is written has the lanes.
"""

from __future__ import annotations

from math import prod

from effcc.ir.dependences import guarded, picks_places, shared_axes
from effcc.ir.dims import elements
from effcc.ir.expr import Axis, Expr, Load, free_axes, walk
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.schedule import PARALLEL, SERIAL, Do, Loop, Node, Schedule
from effcc.passes.tiling.access import layouts, stride
from effcc.target import Target

INDEX_SECONDS = 1.2e-9
"""To read an index, check it, and see that its row is another task's."""
ELEMENT_SECONDS = 0.4e-9
"""To read, add and write an element of a row that is in some cache."""
WORTH_SHARING = 20e-6
"""What is done sooner is done before other threads have begun."""
LINE_BYTES = 64
"""Threads that write to one line of memory take it from each other."""
TASKS_A_CORE = 4
VECTORS = 4


def sections(kernel: Kernel) -> tuple[Kernel, ...]:
    """The kernel cut where it scatters, each scatter alone, or with what is read in its spans alone.

    As it is where the parts share more than its outputs.
    """
    outputs = {p.name for p in kernel.outputs}
    home: dict[str, int] = {}
    parts: list[list[Statement]] = []
    for s in kernel.statements:
        follows = any(home.get(x.buffer, -1) == len(parts) - 1 and x.buffer not in outputs for x in s.reads)
        if not parts or not (follows or _shares(s, parts[-1])):
            parts.append([])
        parts[-1].append(s)
        home.setdefault(s.target, len(parts) - 1)
        crossing = {x.buffer for x in s.reads if home.get(x.buffer, len(parts) - 1) != len(parts) - 1}
        if crossing - outputs or kernel.scans:
            return (kernel,)
    return tuple(kernel.with_statements(tuple(part)) for part in parts)


def _shares(s: Statement, part: list[Statement]) -> bool:
    """Whether a statement has loops in common with a part of a kernel, none of which scatters."""
    common = set(part[0].axes).intersection(*(other.axes for other in part))
    return s.scatter is None and part[-1].scatter is None and (not common or bool(common & set(s.axes)))


def scatters(kernel: Kernel) -> bool:
    """Whether a kernel scatters."""
    return any(s.scatter is not None for s in kernel.statements)


def scatter_schedule(kernel: Kernel, target: Target) -> Schedule:
    """The schedule of a kernel that is one scatter."""
    (s,) = kernel.statements
    counts = {a: elements((kernel.extents[a],)) for a in s.axes}
    lanes = row_axis(kernel, s)
    width = max(1, target.vector_bytes // s.dtype.bytes)  # a double is wider than what is called scalar
    body: tuple[Node, ...] = (Do(s.target),)
    cut = _shared(kernel, s, target, counts)
    for axis in (*(a for a in reversed(s.axes) if a == lanes), *(a for a in reversed(s.axes) if a != lanes)):
        if axis == lanes:
            step = cut.get(axis) or (counts[axis] if isinstance(kernel.extents[axis], int) else VECTORS * width)
            body = (Loop(SERIAL, axis, step, body, "lanes"),)
        elif cut.get(axis) != 1:
            body = (Loop(SERIAL, axis, 1, body),)
    for axis, step in cut.items():
        body = (Loop(PARALLEL, axis, step, body),)
    shared = ", ".join(f"{-(-counts[a] // step)} tasks along {a}" for a, step in cut.items()) or "one task"
    seconds = seconds_of(s, counts) / (target.cores if cut else 1)
    note = f"{s.target}: {'point by point' if lanes is None else f'vectors along {lanes}'}, {shared}"
    return Schedule(body, (), seconds, (note,))


def seconds_of(s: Statement, counts: dict[str, int]) -> float:
    """What a scatter takes one thread."""
    row = prod(counts[a] for a in s.axes if a in rows(s))
    written = prod(counts.values()) / prod(counts[a] for a in picks_places(s))
    return prod(counts.values()) / row * INDEX_SECONDS + written * ELEMENT_SECONDS


def meeting(s: Statement) -> list[int]:
    """The positions of a scatter's index that are data, where its points may meet, or guarded."""
    return [p for p, i in enumerate(_index(s)) if guarded(i) or any(isinstance(e, Load) for e in walk(i))]


def rows(s: Statement) -> set[str]:
    """The axes that are an index by themselves, and decide nothing of the others: a row of what is written."""
    data = frozenset[str]().union(*(free_axes(i) for i in _index(s) if not isinstance(i, Axis)))
    return {i.name for i in _index(s) if isinstance(i, Axis)} - data


def row_axis(kernel: Kernel, s: Statement) -> str | None:
    """The axis along which a row lies in memory, if its points are read as they lie or are alike."""
    layout = layouts(kernel)
    steps = dict(zip(_index(s), layout[s.target], strict=True))
    for axis in s.axes:
        reads = (stride(x, axis, layout[x.buffer]) for x in s.reads)
        if axis in rows(s) and steps.get(Axis(axis)) == 1 and all(step in (0, 1) for step in reads):
            return axis
    return None


def _shared(kernel: Kernel, s: Statement, target: Target, counts: dict[str, int]) -> dict[str, int]:
    """The axis that threads share, with the points of a task; none where one thread is done as soon."""
    if target.cores == 1 or seconds_of(s, counts) < WORTH_SHARING:
        return {}
    apart = shared_axes(kernel)
    picking = [a for a in apart if a in picks_places(s)]
    if picking:
        return {picking[0]: 1}
    layout = dict(zip(_index(s), layouts(kernel)[s.target], strict=True))
    tasks = TASKS_A_CORE * target.cores
    for axis in (a for a in apart if a in outside(s)):
        step = layout.get(Axis(axis))
        least = -(-LINE_BYTES // (s.dtype.bytes * step)) if isinstance(step, int) and step > 0 else LINE_BYTES
        part = -(-max(-(-counts[axis] // tasks), least) // least) * least
        if counts[axis] >= 2 * part:
            return {axis: part}
    return {}


def outside(s: Statement) -> set[str]:
    """The axes whose tasks read no index twice, or write whole blocks of memory: those that decide an index that is
    data, or are an index before it."""
    first = next(iter(meeting(s)), len(_index(s)))
    before = {i.name for i in _index(s)[:first] if isinstance(i, Axis)}
    return before | ({i.name for i in _index(s) if isinstance(i, Axis)} - rows(s))


def _index(s: Statement) -> tuple[Expr, ...]:
    assert s.scatter is not None
    return s.scatter.index
