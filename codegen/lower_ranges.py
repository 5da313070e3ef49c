"""Where axes stand inside the loops that are open, and the loops over tiles that cut them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from effcc.codegen.borders import Interior
from effcc.ir.dims import Dim
from effcc.ir.dtypes import i64
from effcc.ir.expr import Axis, Call, Const, Expr, add, both, compare, floor_div, integer, modulo, multiply
from effcc.ir.loops import For, If, Stmt, TileAxis
from effcc.ir.masks import Mask

ZERO: Expr = Const(0, i64)


@dataclass(frozen=True)
class Range:
    """What is left of an axis: `count` points from the sum of `trail` on, one term for each loop that has cut it.

    `most` is a bound on the count; None where it is known at run time only. A count known at run time only may be
    `below` a number: what tiles of so many points leave over has no whole tile of that size. Once the axis is at a
    point, or its points are computed together (a `tile`), it is `placed` and the trail leads to it. Its points may all
    lie `inside` its interior, or some at its `border`.
    """

    count: int | Expr
    most: int | None
    trail: tuple[Expr, ...] = ()
    tile: TileAxis | None = None
    placed: bool = False
    inside: bool = False
    below: int | None = None
    border: bool = False

    @staticmethod
    def whole(extent: Dim) -> Range:
        known = extent if isinstance(extent, int) else None
        return Range(integer(extent) if known is None else known, known)

    def position(self, since: int = 0) -> Expr:
        """Where it is, counted from where it was when `since` loops had cut it."""
        return functools.reduce(add, self.trail[since:], ZERO)


Ranges = Mapping[str, Range]
"""By axis; those that are placed come in the order in which loops placed them."""
Emit = Callable[[Ranges], Sequence[Stmt]]


def tiles_of(axes: Iterable[str], ranges: Ranges) -> tuple[TileAxis, ...]:
    """The tiles that stand for axes, in their order; axes that are at one point have none."""
    return tuple(t for a in axes if (t := ranges[a].tile) is not None)


@dataclass
class Cutter:
    """Writes loops over tiles. `steps` are those of all loop variables; variables' names are fresh. An axis with an
    interior is cut at its ends, too: tiles that lie inside have code of their own. `lanes_at_borders`: the axes in
    lanes that have one.
    """

    interiors: Mapping[str, Interior] = field(default_factory=dict)
    extents: Mapping[str, Dim] = field(default_factory=dict)
    mask: Mask | None = None
    lanes_at_borders: frozenset[str] = frozenset()
    steps: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def begin(self) -> Ranges:
        """Where the axes stand outside of all loops."""
        return {a: Range.whole(extent) for a, extent in self.extents.items()}

    @property
    def in_blocks(self) -> bool:
        """Whether tiles are blocks of a GPU's program, and registers hold whole ones."""
        return False

    def order(self, axes: Iterable[str], ranges: Ranges) -> tuple[str, ...]:
        """The axes of a result in the order in which registers have them: that in which loops placed them."""
        wanted = frozenset(axes)
        return tuple(a for a in ranges if a in wanted)

    def register(self, target: str, role: str) -> str:
        """A name for registers of a result."""
        return self.fresh(f"{local_name(target)}_{role}")

    def fresh(self, base: str) -> str:
        n = self.names.get(base, 0)
        self.names[base] = n + 1
        return f"{base}_{n + 1}"

    def first_or_fresh(self, name: str) -> str:
        """The name itself the first time; copies of the code for rests need others."""
        if name not in self.names:
            self.names[name] = 0
            return name
        return self.fresh(name)

    def cut(
        self,
        axis: str,
        step: int,
        together: str,
        ranges: Ranges,
        emit: Emit,
        seen: tuple[Expr, Expr] | None = None,
    ) -> list[Stmt]:
        """A serial loop over tiles of an axis around what `emit` makes of one; the rest has code of its own.

        seen: from where to where tiles are needed, of which the first is a whole number of steps; all by default.

        Where the count is known at run time only, a rest of lanes is masked, one of unrolled points is a loop over
        them, and a range that is cut again is a second copy inside the loop.
        """
        r = ranges[axis]

        def at(
            offset: Expr, count: int | Expr, limit: Expr | None = None, single: bool = False, inside: bool = r.inside
        ) -> tuple[Stmt, ...]:
            place = offset
            tile = None
            if together and not single:
                assert isinstance(count, int)
                tile = TileAxis(axis, count, together, limit)
                place = add(offset, Axis(axis))
            placed = bool(together) or step == 1
            below = None if isinstance(count, int) else step
            inner = Range(count, 1 if single else step, (*r.trail, place), tile, placed, inside, below)
            return tuple(emit(entered(ranges, axis, inner)))

        def loop(start: Expr, stop: int | Expr, stride: int, body: Callable[[Expr], tuple[Stmt, ...]]) -> For:
            var = self.fresh(axis)
            if stride > 1:
                self.steps[var] = stride
            end = Const(stop, i64) if isinstance(stop, int) else stop
            return For(var, start, end, stride, "serial", body(Axis(var)))

        if isinstance(r.count, int):
            rest = r.count % step
            whole = r.count - rest
            out: list[Stmt] = []
            if seen is not None and r.count > step:
                first, end = seen
                last = Call("minimum", (end, Const(whole, i64)), i64)
                out.append(loop(first, last, step, lambda var: at(var, step)))
                rests = [If(compare("gt", end, Const(whole, i64)), at(Const(whole, i64), rest))] if rest else []
                return [*out, *rests]
            for start, stop, stride, inside in self._runs(axis, r, whole, step):
                turn = functools.partial(at, count=step, inside=inside)
                alone = stop - start <= stride
                out += turn(Const(start, i64)) if alone else [loop(Const(start, i64), stop, stride, turn)]
            return [*out, *at(Const(whole, i64), rest)] if rest else out
        count = r.count
        first, end = (ZERO, count) if seen is None else seen
        if step == 1:
            return [loop(first, end, 1, lambda var: at(var, 1))]
        if not together:
            return [loop(first, end, step, lambda var: self.whole_or_rest(var, step, count, at))]
        if together == "lanes" and r.below is not None and r.below <= step:
            return [If(compare("gt", count, ZERO), at(ZERO, step, count))]
        interior = self.interiors.get(axis)
        if together == "lanes" and interior is not None and not r.inside:
            return [
                loop(ZERO, count, step, lambda var: self._inside_or_masked(interior, r, var, step, count, at, ranges))
            ]
        whole_count = multiply(floor_div(count, Const(step, i64)), Const(step, i64))
        out = [loop(ZERO, whole_count, step, lambda var: at(var, step))]
        if together == "lanes":
            left = modulo(count, Const(step, i64))
            return [*out, If(compare("gt", left, ZERO), at(whole_count, step, left))]
        return [*out, loop(whole_count, count, 1, lambda var: at(var, 1, single=True))]

    def _inside_or_masked(
        self,
        interior: Interior,
        r: Range,
        var: Expr,
        step: int,
        count: Expr,
        at: Callable[..., tuple[Stmt, ...]],
        ranges: Ranges,
    ) -> tuple[Stmt, ...]:
        """A tile of lanes of a run-time count: a whole one inside the interior, or any other, in one code for all."""
        left = Call("sub", (count, var), i64)
        masked = at(var, step, left)
        if any(other.border for other in ranges.values()):
            return masked
        start = add(r.position(), var)
        holds = interior.holds(start, add(start, Const(step, i64)))
        return (If(both(compare("ge", left, Const(step, i64)), holds), at(var, step, inside=True), masked),)

    def _runs(self, axis: str, r: Range, whole: int, step: int) -> list[tuple[int, int, int, bool]]:
        """Whole tiles of an axis in runs, from where to where and how far apart: before its interior, inside it, and
        after it. One tile before and one after are one run, so that they share their code.
        """
        interior = self.interiors.get(axis)
        end = interior.end(r.count) if interior is not None and isinstance(r.count, int) else None
        first = last = 0
        if interior is not None and end is not None and r.position() == ZERO and not r.inside:
            first = min(-(-interior.low // step) * step, whole)
            last = max(min(end // step * step, whole), first)
        if first == last:
            return [(0, whole, step, r.inside)] if whole else []
        inside = (first, last, step, True)
        if first == whole - last == step:
            return [(0, whole, last, False), inside]
        runs = ((0, first, step, False), inside, (last, whole, step, False))
        return [run for run in runs if run[0] < run[1]]

    def whole_or_rest(
        self, start: Expr, step: int, count: int | Expr, at: Callable[[Expr, int | Expr], tuple[Stmt, ...]]
    ) -> tuple[Stmt, ...]:
        """The code of a tile that begins at a variable, for a whole one and for the rest."""
        if isinstance(count, int):
            if count % step == 0:
                return at(start, step)
            if count < step:
                return at(start, count)
        left = Call("sub", (count, start), i64) if not isinstance(count, int) else count % step
        fits = compare("le", add(start, Const(step, i64)), Const(count, i64) if isinstance(count, int) else count)
        return (If(fits, at(start, step), at(start, left)),)

    def spread(self, loops: Sequence[tuple[str, int]], ranges: Ranges, emit: Emit) -> list[Stmt]:
        """Parallel loops over tiles, right inside one another, around the code of whole tiles and of each rest."""
        variables = {axis: f"{axis}_0" if f"{axis}_0" not in self.steps else self.fresh(axis) for axis, _ in loops}
        for axis, step in loops:
            self.steps[variables[axis]] = step

        def inside(left: Sequence[tuple[str, int]], ranges: Ranges) -> tuple[Stmt, ...]:
            if not left:
                return tuple(emit(ranges))
            axis, step = left[0]
            r = ranges[axis]

            def at(start: Expr, count: int | Expr) -> tuple[Stmt, ...]:
                below = None if isinstance(count, int) else step + (axis in self.lanes_at_borders)
                trail = (*r.trail, start)
                here = replace(r, count=count, most=step, trail=trail, placed=step == 1, below=below)
                interior = self.interiors.get(axis)
                if interior is None or count != step or start == ZERO or r.position() != ZERO:
                    return inside(left[1:], entered(ranges, axis, here))
                code = inside(left[1:], entered(ranges, axis, replace(here, border=True)))
                within = inside(left[1:], entered(ranges, axis, replace(here, inside=True)))
                return (If(interior.holds(start, add(start, Const(step, i64))), within, code),)

            start: Expr = Axis(variables[axis])
            if isinstance(r.count, int) and r.count <= step:
                return at(ZERO, r.count)  # one tile: where it begins is known
            if step == 1:
                return at(start, 1)
            if isinstance(r.count, int) or axis not in self.lanes_at_borders:
                return self.whole_or_rest(start, step, r.count, at)
            # Whole tiles and the rest are cut into lanes inside: code of its own for each would be there twice.
            return at(start, Call("minimum", (Call("sub", (r.count, start), i64), Const(step, i64)), i64))

        body = inside(loops, ranges)
        for axis, step in reversed(loops):
            count = ranges[axis].count
            stop = Const(count, i64) if isinstance(count, int) else count
            body = (For(variables[axis], ZERO, stop, step, "parallel", body),)
        return list(body)


def local_name(target: str) -> str:
    """The C-like name of a target's local buffer."""
    return target.replace(".", "_") + "_local" if target else "local"


def entered(ranges: Ranges, axis: str, inner: Range) -> Ranges:
    """The ranges inside a loop; an axis that is placed comes last."""
    if not inner.placed:
        return {**ranges, axis: inner}
    return {**{a: r for a, r in ranges.items() if a != axis}, axis: inner}
