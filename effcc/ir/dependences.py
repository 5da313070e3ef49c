"""Which axes of a kernel have points that run on their own: asked by fusion, tiling and the verifier of schedules."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TypeGuard

from effcc.ir.dtypes import i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Size,
    Span,
    add,
    children,
    ends_at,
    loads,
    rebuild,
    substitute_axes,
    transform,
    walk,
)
from effcc.ir.kernel import Kernel, Statement, span_of_index
from effcc.ir.scalars import is_check


def step_axes(kernel: Kernel) -> tuple[str, ...]:
    """The axes whose points can run on their own within each step of a scan, when all have finished the step before."""
    scans = set(kernel.scans)
    return shared_axes(kernel, scans) if all(scans & set(s.axes) for s in kernel.statements) else ()


def shared_axes(kernel: Kernel, ordered: Set[str] = frozenset()) -> tuple[str, ...]:
    """The axes that every statement has and reads its predecessors' results at: each point can run on its own.
    What each task can make anew (`is_made_anew`) need not have them.

    Of a scatter those are the axes along which its points write apart (`writes_apart`), alike in all statements that
    write there. ordered: axes whose earlier points are finished before later ones begin, so that anything of them may
    be read.
    """
    extents = kernel.extents
    computed = [s for s in kernel.statements if not is_made_anew(kernel, s)] or kernel.statements
    shared = [a for a in computed[0].axes if a not in kernel.scans and extents[a] != 1]
    definitions: dict[str, tuple[str, ...]] = {}
    scattered = {s.target for s in kernel.statements if s.scatter is not None}
    if any(load.buffer in scattered for s in kernel.statements for load in s.reads):
        return ()
    apart: dict[str, dict[str, set[Place]]] = {}
    for s in kernel.statements:
        if s in computed:
            shared = [a for a in shared if a in s.axes]
        if s.target in scattered:
            found = writes_apart(s)
            known = apart.setdefault(s.target, found)
            apart[s.target] = {a: known[a] & found[a] for a in known if a in found and known[a] & found[a]}
            shared = [a for a in shared if a in apart[s.target]]
        if s.scatter is None:
            definitions.setdefault(s.target, s.axes)
    for s in kernel.statements:
        for load in s.reads:
            axes = definitions.get(load.buffer)
            if axes is None or any(a in ordered and i != Axis(a) for a, i in zip(axes, load.index, strict=True)):
                continue
            own = {a for a, index in zip(axes, load.index, strict=True) if index == Axis(a)}
            for axis, index in zip(axes, load.index, strict=True):
                inside = {e.name for e in walk(index) if isinstance(e, Axis)}
                if axis in shared and index != Axis(axis):
                    shared.remove(axis)
                shared = [a for a in shared if a not in inside or a in own]
    return tuple(shared)


Place = tuple[int, Expr]
"""A position of an index, and what of the index there is the axis."""


def writes_apart(s: Statement) -> dict[str, set[Place]]:
    """The axes whose points write to other places than one another, each with what tells them apart.

    An axis that is an index by itself does: `Y[I[i],c] add= X[i,c]` meets itself along i, never along c. So does one
    that picks the places it writes, `where(I[i] % 4 == t, I[i], -1)`: two points of t pick different ones. And spans
    that end where the next begins, `j in P[g]..P[g + 1]`, are apart along g, if P goes up: else the call raises.
    """
    found: dict[str, set[Place]] = {}
    for position, index in enumerate(s.scatter.index if s.scatter is not None else map(Axis, s.axes)):
        span = span_of_index(index)
        if span is not None:
            found.update({a: {(position, index)} for a in ends_at(span) if one_after_another(span, a)})
            continue
        match index:
            case Axis(name):
                found.setdefault(name, set()).add((position, PLACE))
            case Call("where", (condition, place, Const(value=-1))):
                for part in _conjuncts(condition):
                    match part:
                        case Call("eq", (picked, Axis(name))) if (told := _of_place(picked, place)) is not None:
                            found.setdefault(name, set()).add((position, told))
    return found


def one_after_another(span: Span, axis: str) -> bool:
    """Whether a span ends where the one at the next point of an axis begins."""
    following = substitute_axes(span.start, {axis: add(Axis(axis), Const(1, i64))})
    return ends_at(span) == {axis} and transform(following, _unguarded) == transform(span.stop, _unguarded)


def _unguarded(e: Expr) -> Expr:
    """What a guard gives where its condition is a run-time check that holds."""
    match e:
        case Call("where", (condition, value, _)) if all(is_check(c) for c in _conjuncts(condition)):
            return value
    return e


PLACE = Axis("")
"""Stands for the place that is written, in an expression of it."""


def _conjuncts(condition: Expr) -> list[Expr]:
    match condition:
        case Call("and", (a, b)):
            return [*_conjuncts(a), *_conjuncts(b)]
    return [condition]


def _of_place(e: Expr, place: Expr) -> Expr | None:
    """An expression in terms of a place that it is computed from alone; None where something else plays a part."""
    if e == place:
        return PLACE
    if isinstance(e, Axis | Load):
        return None
    parts = tuple(_of_place(p, place) for p in children(e))
    if any(p is None for p in parts):
        return None
    return rebuild(e, tuple(p for p in parts if p is not None))


def picks_places(s: Statement) -> frozenset[str]:
    """The axes of a scatter that only say which of its places are written: at each of them all others run again."""
    held = {i.name for i in (s.scatter.index if s.scatter is not None else ()) if isinstance(i, Axis)}
    read = {e.name for e in walk(s.value) if isinstance(e, Axis)}
    return frozenset(writes_apart(s)) - held - read if s.scatter is not None else frozenset()


def computed_where_written(s: Statement) -> bool:
    """Whether a scatter's value need not be computed where it is written nowhere: nothing in it is checked, or what is
    written nowhere is an error itself, or at another point of an axis that picks places.
    """
    if s.scatter is None or not any(is_check(e) for e in walk(s.value)):
        return True
    picking = picks_places(s)
    guards = [i.operands[0] for i in s.scatter.index if isinstance(i, Call) and i.function == "where"]
    plain = all(isinstance(i, Axis | Const | Size) or guarded(i) for i in s.scatter.index)
    return plain and all(is_check(c) or _picks(c, picking) for guard in guards for c in _conjuncts(guard))


def guarded(index: Expr) -> TypeGuard[Call]:
    """Whether a scatter's index is `where(condition, place, -1)`: nowhere, where the condition does not hold."""
    return isinstance(index, Call) and index.function == "where" and index.operands[2] == Const(-1, i64)


def _picks(condition: Expr, axes: Set[str]) -> bool:
    match condition:
        case Call("eq", (_, Axis(name))):
            return name in axes
    return False


def is_copy(kernel: Kernel, s: Statement) -> bool:
    """Whether a statement only copies elements of a parameter, for the kernel itself to read."""
    value: Expr = s.value
    while isinstance(value, Call) and value.function == "cast":
        (value,) = value.operands
    inside = {p.name for p in kernel.params} - {p.name for p in kernel.outputs}
    if not isinstance(value, Load) or value.buffer not in inside or any(loads(i) for i in value.index):
        return False
    return (
        s.scatter is None and s.target not in {p.name for p in kernel.outputs} and not set(s.axes) & set(kernel.scans)
    )


def is_decoded(kernel: Kernel, s: Statement) -> bool:
    """Whether a statement only computes of weights, point by point, what the kernel itself reads: decodes them, say."""
    read = loads(s.value)
    outputs = {p.name for p in kernel.outputs}
    pointwise = s.reduction is None and s.scatter is None and not set(s.axes) & set(kernel.scans)
    return pointwise and s.target not in outputs and bool(read) and all(x.buffer in kernel.weights for x in read)


def is_made_anew(kernel: Kernel, s: Statement) -> bool:
    """Whether tasks can each make a statement's results for themselves: they are copied, or decoded."""
    return is_copy(kernel, s) or is_decoded(kernel, s)


def carries(kernel: Kernel, s: Statement) -> str | None:
    """The scan axis of which nothing but the present step of `s` and each point's own step before it are read, so that
    one step's room is enough for what is read. None where more is, or where nothing is carried.
    """
    scans = [a for a in s.axes if a in kernel.scans]
    if len(kernel.scans) != 1 or not scans or s.reduction is not None or s.scatter is not None:
        return None
    if sum(other.target == s.target for other in kernel.statements) > 1:
        return None
    (scan,) = scans
    position, read = kernel.statements.index(s), set()
    for n, reader in enumerate(kernel.statements):
        for load in reader.reads:
            if load.buffer == s.target:
                back = _steps_back(load, s, scan)
                if back not in (0, 1) or scan not in reader.all_axes or (back == 1 and n > position):
                    return None
                read.add(back)
    return scan if 1 in read else None


def keeps_step(kernel: Kernel, s: Statement) -> str | None:
    """The scan axis of which a buffer of `s` holds one step: what carries its results, which are no output."""
    return None if s.target in {p.name for p in kernel.outputs} else carries(kernel, s)


def _steps_back(load: Load, s: Statement, scan: str) -> int | None:
    """How many steps of a scan before the present one a statement's own point is read; None for other points."""
    index = dict(zip(s.axes, load.index, strict=True))
    away = distance(index.pop(scan), scan)
    return None if away is None or any(i != Axis(a) for a, i in index.items()) else -away


def distance(index: Expr, axis: str) -> int | None:
    """c of an index `axis + c`; None if it is not of that form."""
    match index:
        case Axis(name) if name == axis:
            return 0
        case Call("add", (Axis(name), Const(value))) if name == axis:
            return int(value)
        case Call("sub", (Axis(name), Const(value))) if name == axis:
            return -int(value)
    return None


def gathers_rows(s: Statement) -> bool:
    """Whether it sums rows at places that are data."""
    row = tuple(map(Axis, s.axes[-1:]))
    return s.reduction is not None and any(
        x.index[-1:] == row and any(isinstance(e, Load) for i in x.index for e in walk(i)) for x in s.reads
    )


def online_axis(kernel: Kernel) -> str | None:
    """The axis that the kernel's online reductions follow; None if it has none."""
    for s in kernel.statements:
        if s.reduction is not None and s.reduction.rescale is not None:
            return s.reduction.axes[0]
    return None


@dataclass(frozen=True)
class Crossing:
    """The axes of a matrix that is summed both ways: those of its rows, outermost first, and that of its columns."""

    rows: tuple[str, ...]
    columns: str

    @property
    def axes(self) -> frozenset[str]:
        return frozenset({*self.rows, self.columns})


def both_ways(kernel: Kernel) -> Crossing | None:
    """The axes of rows and of columns of a matrix that a kernel computes, never stores, and sums along both:

        S[m,n] = sum(k: Q[m,k] * K[n,k]);  X[m,f] = sum(n: S[m,n] * A[n,f]);  Y[n,g] = sum(m: S[m,n] * B[m,g])

    None for all other kernels, and where sizes of sums are known at run time only. What follows a sum follows one of
    them, at its own points, and no point reads a sum: so tiles of the matrix can come in any order, each made once, if
    the sums rest in the cache.
    """
    if kernel.scans or kernel.spans or online_axis(kernel) is not None:
        return None
    definitions = {s.target: s for s in kernel.statements}
    for s in kernel.statements:
        for x in s.reads if s.reduction is not None else ():
            made = definitions.get(x.buffer)
            over = s.reduction.axes if s.reduction is not None else ()
            if made is None or len(made.axes) < 2 or made.axes[-2] not in over or made.axes[-1] in over:
                continue
            found = Crossing(tuple(a for a in made.axes if a in over), made.axes[-1])
            if set(over) == set(found.rows) and _sums_both_ways(kernel, definitions, found):
                return found
    return None


def _sums_both_ways(kernel: Kernel, definitions: Mapping[str, Statement], crossing: Crossing) -> bool:
    rows, columns = frozenset(crossing.rows), frozenset({crossing.columns})
    outputs = {p.name for p in kernel.outputs}
    points: dict[str, frozenset[str]] = {}
    finished: dict[str, frozenset[str]] = {}
    along: set[frozenset[str]] = set()
    for s in kernel.statements:
        over = frozenset(s.reduction.axes if s.reduction is not None else ())
        own = crossing.axes & set(s.axes)
        read = {x.buffer for x in s.reads}
        elsewhere = any(x.index != tuple(map(Axis, definitions[x.buffer].axes)) for x in s.reads if x.buffer in points)
        if s.scatter is not None or elsewhere or (read & points.keys() and read & finished.keys()):
            return False
        if own == crossing.axes:
            if s.target in outputs or read & finished.keys():
                return False
            points[s.target] = frozenset(s.axes)
        elif read & points.keys():
            if over not in (rows, columns) or own != crossing.axes - over or _operator(s) != "sum":
                return False
            along.add(over)
            finished[s.target] = frozenset(s.axes)
        elif read & finished.keys():
            if over or own not in (rows, columns):
                return False
            finished[s.target] = frozenset(s.axes)
        elif not is_made_anew(kernel, s):
            return False
    sums = {a for axes in finished.values() for a in axes} | crossing.axes
    known = all(isinstance(kernel.extents[a], int) for a in sums.difference(shared_axes(kernel)))
    return known and along == {rows, columns} and len(set(points.values())) == 1


def _operator(s: Statement) -> str:
    return s.reduction.operator if s.reduction is not None else ""


def walked_axis(kernel: Kernel) -> str | None:
    """The axis whose tiles a kernel walks within each tile of rows: the online one, or the columns of a matrix that it
    sums both ways."""
    axis = online_axis(kernel)
    if axis is None and (crossed := both_ways(kernel)) is not None:
        return crossed.columns
    return axis
