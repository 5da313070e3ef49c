"""Places in a loop nest: where each axis stands at some depth, loops over tiles, expressions put where they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from effcc.errors import ScheduleError
from effcc.ir.dims import Dim
from effcc.ir.division import fold_division
from effcc.ir.dtypes import i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Reduce,
    add,
    children,
    compare,
    floor_div,
    integer,
    modulo,
    multiply,
    rebuild,
    refold,
    substitute_axes,
    transform,
)
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.loops import For, If, Stmt, TileAxis
from effcc.ir.printer.expressions import show_expression
from effcc.ir.schedule import Schedule

ZERO = Const(0, i64)


@dataclass(frozen=True)
class Range:
    """Where an axis runs at some depth: from `base`, `count` points (an expression where unknown), and its place there.

    `absolute` is the axis's value, `relative` its distance from the tile's begin, once loops are open around it; that
    begin lies `origin` points before `base`, where a tile is cut once more.
    """

    base: Expr
    count: int | Expr
    absolute: Expr | None = None
    relative: Expr | None = None
    tile: TileAxis | None = None
    origin: Expr = ZERO


Ranges = dict[str, Range]
Factors = dict[str, tuple[str, int]]
"""For each tiled axis, what becomes of its tile (`lanes` or `unroll`) and how many points it has."""
Registers = dict[str, tuple[str, tuple[str, ...]]]
"""For each target that is in registers at the moment, the buffer's name and the axes it is indexed by."""


@dataclass
class Local:
    """A local buffer: which of its statement's axes it keeps, and their extents."""

    axes: tuple[tuple[int, str], ...]
    shape: tuple[int, ...]


@dataclass
class Places:
    """What all parts of the lowering share: the kernel, its schedule, local buffers, loop steps and fresh names."""

    kernel: Kernel
    schedule: Schedule
    locals: dict[str, Local] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def _outer(self, axis: str) -> str:
        return f"{axis}_0"

    def _fresh(self, base: str) -> str:
        n = self.names.get(base, 0)
        self.names[base] = n + 1
        return f"{base}_{n + 1}"

    def _accumulates(self, s: Statement) -> bool:
        """Whether the statement's partial results survive from one turn of the sequential loop to the next."""
        sequential = self.schedule.sequential
        return sequential is not None and s.reduction is not None and sequential.axis in s.reduction.axes

    def _previous(self) -> list[str]:
        """Reductions whose value before the tile is read (`M'`)."""
        found = []
        for s in self.kernel.statements:
            found += [load.buffer[:-1] for load in s.reads if load.buffer.endswith("'")]
        return list(dict.fromkeys(found))

    def _over(
        self, axes: Sequence[str], factors: Factors, ranges: Ranges, emit: Callable[[Ranges], list[Stmt]]
    ) -> list[Stmt]:
        """Loops over `axes`, tiled by `factors`, around what `emit` makes of the ranges inside."""
        if not axes:
            return emit(ranges)
        axis, rest = axes[0], axes[1:]
        r = ranges[axis]
        if r.absolute is not None:
            return self._over(rest, factors, ranges, emit)
        kind, factor = factors.get(axis, ("loop", 1))

        def at(offset: Expr, extent: int, limit: Expr | None = None, scalar: bool = False) -> list[Stmt]:
            if scalar or (kind == "loop" and extent == 1):
                inner = replace(r, absolute=add(r.base, offset), relative=add(r.origin, offset))
            else:
                tile = TileAxis(axis, extent, kind, limit)
                place = add(offset, Axis(axis))
                inner = replace(r, absolute=add(r.base, place), relative=add(r.origin, place), tile=tile)
            return self._over(rest, factors, {**ranges, axis: inner}, emit)

        if isinstance(r.count, int):
            whole = r.count - r.count % factor
            out: list[Stmt] = []
            if whole == factor:
                out += at(ZERO, factor)
            elif whole:
                var = self._fresh(axis)
                self.steps[var] = factor
                out.append(For(var, ZERO, Const(whole, i64), factor, "serial", tuple(at(Axis(var), factor))))
            if r.count % factor:
                out += at(Const(whole, i64), r.count % factor)
            return out
        var = self._fresh(axis)
        if factor == 1:
            return [For(var, ZERO, r.count, 1, "serial", tuple(at(Axis(var), 1)))]
        self.steps[var] = factor
        whole_count = multiply(floor_div(r.count, Const(factor, i64)), Const(factor, i64))
        out = [For(var, ZERO, whole_count, factor, "serial", tuple(at(Axis(var), factor)))]
        if kind == "lanes":
            left = modulo(r.count, Const(factor, i64))
            some = compare("gt", left, ZERO)
            out.append(If(some, tuple(at(whole_count, factor, left))))
        else:
            tail = self._fresh(axis)
            out.append(For(tail, whole_count, r.count, 1, "serial", tuple(at(Axis(tail), 1, scalar=True))))
        return out

    def _cut(
        self,
        axis: str,
        var: str,
        tile: int,
        ranges: Ranges,
        emit: Callable[[Ranges], Sequence[Stmt]],
        again: bool = False,
    ) -> list[Stmt]:
        """A serial loop `var` over tiles of an axis, around what `emit` makes of one tile; the rest comes last.

        `again`: what is cut is itself a tile, whose local buffers hold all of it.
        """
        r = ranges[axis]
        self.steps[var] = tile

        def turn(count: int | Expr, start: Expr) -> tuple[Stmt, ...]:
            base = add(r.base, start)
            origin = add(r.origin, start) if again else ZERO
            at = Range(base, count, origin=origin) if tile > 1 else Range(base, 1, base, origin, origin=origin)
            return tuple(emit({**ranges, axis: at}))

        if tile == 1:
            stop = Const(r.count, i64) if isinstance(r.count, int) else r.count
            return [For(var, ZERO, stop, 1, "serial", turn(1, Axis(var)))]
        if isinstance(r.count, int):
            whole = r.count - r.count % tile
            out: list[Stmt] = []
            if whole == tile:
                out += turn(tile, ZERO)
            elif whole:
                out.append(For(var, ZERO, Const(whole, i64), tile, "serial", turn(tile, Axis(var))))
            if r.count % tile:
                out += turn(r.count % tile, Const(whole, i64))
            return out
        fits = compare("le", add(Axis(var), Const(tile, i64)), r.count)
        rest = turn(Call("sub", (r.count, Axis(var)), i64), Axis(var))
        return [For(var, ZERO, r.count, tile, "serial", (If(fits, turn(tile, Axis(var)), rest),))]

    def _absolute(self, e: Expr, ranges: Ranges) -> Expr:
        placed = substitute_axes(e, {a: r.absolute for a, r in ranges.items() if r.absolute is not None})
        return transform(placed, lambda node: self._divide(node, ranges))

    def _divide(self, e: Expr, ranges: Ranges) -> Expr:
        """Divisions folded where the loops around decide them."""

        def extent(axis: str) -> int | None:
            tile = ranges[axis].tile if axis in ranges else None
            return None if tile is None else tile.extent

        return fold_division(e, extent, lambda axis: self.steps.get(axis, 1))

    def _value(self, e: Expr, ranges: Ranges, registers: Registers) -> Expr:
        """A right side with axes at their place in the loops and loads from locals and registers redirected.

        Loads are redirected before axes are substituted: their indices tell which axis they mean.
        """

        def place(node: Load) -> Expr:
            bare = node.buffer.rstrip("'")
            if node.buffer in registers:
                name, order = registers[node.buffer]
                return Load(name, tuple(Axis(t.name) for t in tile_axes(order, ranges)), node.dtype)
            if bare in self.locals:
                return self._load_local(bare, node.index, ranges, "_before" if node.buffer.endswith("'") else "")
            return replace(node, index=tuple(walk_in(i) for i in node.index))

        def walk_in(node: Expr) -> Expr:
            if isinstance(node, Load):
                return place(node)
            if isinstance(node, Axis):
                r = ranges.get(node.name)
                return r.absolute if r is not None and r.absolute is not None else node
            if isinstance(node, Reduce):
                raise ScheduleError(
                    f"kernel {self.kernel.name!r}: the reduction over {', '.join(node.axes)} stands inside an "
                    "expression; give it a statement of its own"
                )
            parts = children(node)
            return self._divide(refold(rebuild(node, tuple(walk_in(p) for p in parts))), ranges) if parts else node

        return walk_in(e)

    def _load_local(self, target: str, index: Sequence[Expr], ranges: Ranges, suffix: str = "") -> Expr:
        local = self.locals[target]
        at = tuple(self._place_in(axis, index[p], ranges) for p, axis in local.axes)
        definition = self.kernel.definition(target)
        assert definition is not None
        return Load(local_name(target) + suffix, at, definition.dtype)

    def _place_in(self, axis: str, index: Expr, ranges: Ranges) -> Expr:
        """An index of a local buffer: counted from the tile's begin where the buffer holds a tile of the axis."""
        tiled = {t.axis for t in self.schedule.parallel}
        if self.schedule.sequential is not None and self.schedule.sequential.tile > 1:
            tiled.add(self.schedule.sequential.axis)
        if axis not in tiled:
            return self._absolute(index, ranges)
        place = ranges[axis].relative
        if index != Axis(axis) or place is None:
            raise ScheduleError(
                f"kernel {self.kernel.name!r}: {axis} is tiled, so an intermediate can be read at {axis} only, not at "
                f"{show_expression(index)}; leave the axis whole"
            )
        return place

    def _local_index(self, s: Statement, axes: Sequence[str], ranges: Ranges) -> tuple[Expr, ...]:
        local = self.locals[s.target]
        out = []
        for position, _ in local.axes:
            relative = ranges[axes[position]].relative
            assert relative is not None
            out.append(relative)
        return tuple(out)


def tile_axes(axes: Sequence[str], ranges: Ranges) -> tuple[TileAxis, ...]:
    """The tiles that stand for axes at this depth; axes that are at one point have none."""
    return tuple(t for a in axes if (t := ranges[a].tile) is not None)


def local_name(target: str) -> str:
    """The C-like name of a target's local buffer."""
    return target.replace(".", "_") + "_local" if target else "local"


def count_of(extent: Dim) -> int | Expr:
    """An extent as the count of a `Range`."""
    return extent if isinstance(extent, int) else integer(extent)
