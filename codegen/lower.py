"""Kernel and schedule to loops: the schedule is followed, not improved.

Parallel loops over tiles of the shared axes come first; inside them local buffers, the sequential loop if there is one,
and the nests. An axis whose extent is no multiple of its tile gets a second copy of the code for the rest; a rest of
unknown size becomes a loop of single points, or a masked tile on the lanes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from effcc.ir.dims import Dim
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
)  # fmt: skip
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.loops import Alloc, For, If, LoopNest, Stmt, Tile, TileAxis
from effcc.ir.scalars import reduction
from effcc.ir.schedule import Nest, Schedule, TiledAxis

ZERO = Const(0, i64)


@dataclass(frozen=True)
class Range:
    """Where an axis runs at some depth: from `base`, `count` points (an expression where unknown), and its place there.

    `absolute` is the axis's value, `relative` its distance from the tile's begin, once loops are open around it.
    """

    base: Expr
    count: int | Expr
    absolute: Expr | None = None
    relative: Expr | None = None
    tile: TileAxis | None = None


Ranges = dict[str, Range]
Factors = dict[str, tuple[str, int]]
"""For each tiled axis, what becomes of its tile (`lanes` or `unroll`) and how many points it has."""
Registers = dict[str, tuple[str, tuple[str, ...]]]
"""For each target that is in registers at the moment, the buffer's name and the axes it is indexed by."""


def lower(kernel: Kernel, schedule: Schedule) -> LoopNest:
    """The loop nest of `kernel` under `schedule`. Buffers keep the kernel's names."""
    return _Lowering(kernel, schedule).run()


@dataclass
class _Local:
    """A local buffer: which of its statement's axes it keeps, and their extents."""

    axes: tuple[tuple[int, str], ...]
    shape: tuple[int, ...]


@dataclass
class _Lowering:
    kernel: Kernel
    schedule: Schedule
    locals: dict[str, _Local] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def run(self) -> LoopNest:
        ranges: Ranges = {a: Range(ZERO, _count(e)) for a, e in self.kernel.axes}
        for tiled in self.schedule.parallel:
            self.steps[self._outer(tiled.axis)] = tiled.tile
            ranges[tiled.axis] = replace(ranges[tiled.axis], base=Axis(self._outer(tiled.axis)))
        self._choose_locals()
        body = self._variants(list(self.schedule.parallel), ranges)
        for tiled in reversed(self.schedule.parallel):
            extent = integer(self.kernel.extents[tiled.axis])
            body = (For(self._outer(tiled.axis), ZERO, extent, tiled.tile, "parallel", body),)
        return LoopNest(self.kernel.name, self.kernel.params, self.kernel.outputs, body, self.schedule.notes)

    def _outer(self, axis: str) -> str:
        return f"{axis}_0"

    def _fresh(self, base: str) -> str:
        n = self.names.get(base, 0)
        self.names[base] = n + 1
        return f"{base}_{n + 1}"

    # Parallel tiles -------------------------------------------------------------------------------------------------

    def _variants(self, tiled: Sequence[TiledAxis], ranges: Ranges) -> tuple[Stmt, ...]:
        """The code inside the parallel loops, once for whole tiles and once for the rest of each axis that has one."""
        if not tiled:
            return self._inside(ranges)
        first, rest = tiled[0], tiled[1:]
        extent, t = self.kernel.extents[first.axis], first.tile
        start = Axis(self._outer(first.axis))
        if t == 1:
            point = Range(start, 1, start, ZERO)
            return self._variants(rest, {**ranges, first.axis: point})
        whole = {**ranges, first.axis: Range(start, t)}
        if isinstance(extent, int):
            if extent % t == 0:
                return self._variants(rest, whole)
            part = {**ranges, first.axis: Range(start, extent % t)}
            if extent < t:
                return self._variants(rest, part)
        else:
            left = Call("sub", (integer(extent), start), i64)
            part = {**ranges, first.axis: Range(start, left)}
        fits = compare("le", add(start, Const(t, i64)), integer(extent))
        return (If(fits, self._variants(rest, whole), self._variants(rest, part)),)

    # Local buffers --------------------------------------------------------------------------------------------------

    def _choose_locals(self) -> None:
        """Intermediates that several nests touch, or that a sequential loop accumulates, get local buffers."""
        tiles = {t.axis: t.tile for t in self.schedule.parallel}
        sequential = self.schedule.sequential
        outputs = {p.name for p in self.kernel.outputs}
        for s in self.kernel.statements:
            if s.target in outputs and not self._accumulates(s):
                continue
            homes = {n for n, nest in enumerate(self.schedule.nests) if self._in_nest(nest, s.target)}
            if len(homes) <= 1 and not self._accumulates(s):
                continue
            kept = []
            for position, axis in enumerate(s.axes):
                if sequential is not None and axis == sequential.axis:
                    if sequential.tile > 1:
                        kept.append((position, axis, sequential.tile))
                elif axis in tiles:
                    if tiles[axis] > 1:
                        kept.append((position, axis, tiles[axis]))
                else:
                    extent = self.kernel.extents[axis]
                    if not isinstance(extent, int):
                        raise NotImplementedError(f"local buffer {s.target} over the unsized axis {axis}")
                    kept.append((position, axis, extent))
            self.locals[s.target] = _Local(tuple((p, a) for p, a, _ in kept), tuple(e for _, _, e in kept))

    def _in_nest(self, nest: Nest, target: str) -> bool:
        for i in (*nest.body, *nest.reductions, *nest.epilogue):
            s = self.kernel.statements[i]
            if s.target == target or any(load.buffer.rstrip("'") == target for load in s.reads):
                return True
        return False

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

    # Inside a tile --------------------------------------------------------------------------------------------------

    def _inside(self, ranges: Ranges) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        dtypes = {s.target: s.dtype for s in self.kernel.statements}
        for name, local in self.locals.items():
            out.append(Alloc(_local(name), dtypes[name], local.shape, "local"))
        for name in self._previous():
            out.append(Alloc(_local(name) + "_before", dtypes[name], self.locals[name].shape, "local"))
        by_phase = {p: [n for n in self.schedule.nests if n.phase == p] for p in ("before", "inside", "after")}
        for nest in by_phase["before"]:
            out += self._nest(nest, ranges)
        sequential = self.schedule.sequential
        if sequential is None:
            for nest in by_phase["inside"]:
                out += self._nest(nest, ranges)
            return tuple(out)
        for s in self.kernel.statements:
            if self._accumulates(s):
                out += self._initialize(s, ranges)
        out += self._sequence(sequential.axis, sequential.tile, by_phase["inside"], ranges)
        for s in self.kernel.statements:
            if self._accumulates(s) and s.target in {p.name for p in self.kernel.outputs}:
                out += self._store_result(s, ranges)
        for nest in by_phase["after"]:
            out += self._nest(nest, ranges)
        return tuple(out)

    def _sequence(self, axis: str, tile: int, nests: list[Nest], ranges: Ranges) -> list[Stmt]:
        """The sequential loop: whole tiles, then the rest."""
        extent = self.kernel.extents[axis]
        var = self._outer(axis)
        self.steps[var] = tile

        def turn(count: int | Expr, base: Expr) -> tuple[Stmt, ...]:
            at = Range(base, count) if tile > 1 else Range(base, 1, base, ZERO)
            inner = {**ranges, axis: at}
            return tuple(x for nest in nests for x in self._nest(nest, inner))

        if tile == 1:
            return [For(var, ZERO, integer(extent), 1, "serial", turn(1, Axis(var)))]
        if isinstance(extent, int):
            whole = extent - extent % tile
            out: list[Stmt] = []
            if whole == tile:
                out += turn(tile, ZERO)
            elif whole:
                out.append(For(var, ZERO, Const(whole, i64), tile, "serial", turn(tile, Axis(var))))
            if extent % tile:
                out += turn(extent % tile, Const(whole, i64))
            return out
        size = integer(extent)
        fits = compare("le", add(Axis(var), Const(tile, i64)), size)
        rest = turn(Call("sub", (size, Axis(var)), i64), Axis(var))
        return [For(var, ZERO, size, tile, "serial", (If(fits, turn(tile, Axis(var)), rest),))]

    def _initialize(self, s: Statement, ranges: Ranges) -> list[Stmt]:
        assert s.reduction is not None
        identity = Const(reduction(s.reduction.operator).identity(s.dtype), s.dtype)
        return self._fill(s, ranges, lambda inner: identity)

    def _store_result(self, s: Statement, ranges: Ranges) -> list[Stmt]:
        """An accumulated reduction that is an output: stored when the sequential loop is over."""

        def emit(inner: Ranges) -> list[Stmt]:
            value = self._load_local(s.target, tuple(Axis(a) for a in s.axes), inner, s)
            index = tuple(self._absolute(Axis(a), inner) for a in s.axes)
            return [Tile(_axes(s.axes, inner), s.target, index, "set", value)]

        return self._over(s.axes, {s.axes[-1]: ("lanes", 16)} if s.axes else {}, ranges, emit)

    def _fill(self, s: Statement, ranges: Ranges, value: Callable[[Ranges], Expr]) -> list[Stmt]:
        """A local buffer set at every point of the current tile."""

        def emit(inner: Ranges) -> list[Stmt]:
            return [
                Tile(_axes(s.axes, inner), _local(s.target), self._local_index(s, s.axes, inner), "set", value(inner))
            ]

        return self._over(s.axes, {s.axes[-1]: ("lanes", 16)} if s.axes else {}, ranges, emit)

    # Nests ----------------------------------------------------------------------------------------------------------

    def _nest(self, nest: Nest, ranges: Ranges) -> list[Stmt]:
        factors = {t.axis: ("unroll", t.tile) for t in nest.unroll}
        if nest.lanes is not None:
            factors[nest.lanes.axis] = ("lanes", nest.lanes.tile)
        order = nest.order or (*nest.kept, *nest.reduced)
        kept = tuple(a for a in order if a in nest.kept)
        reduced = tuple(a for a in order if a in nest.reduced)
        return self._over(kept, factors, ranges, lambda inner: self._at_kept(nest, kept, reduced, factors, inner))

    def _at_kept(
        self, nest: Nest, kept: tuple[str, ...], reduced: tuple[str, ...], factors: Factors, ranges: Ranges
    ) -> list[Stmt]:
        """The reductions of a nest at the current points of its kept axes, and what follows them there."""
        statements = self.kernel.statements
        registers: Registers = {}
        out: list[Stmt] = []
        if not nest.reductions:
            for i in nest.body:
                out += self._pointwise(statements[i], nest, ranges, registers)
            return out
        lanes = nest.lanes.axis if nest.lanes is not None and nest.lanes.axis in nest.reduced else None
        accumulators: dict[int, str] = {}
        kept_tiles = _axes(kept, ranges)
        for i in nest.reductions:
            s = statements[i]
            assert s.reduction is not None
            name = self._fresh(f"{_local(s.target)}_acc")
            shape = tuple(t.extent for t in kept_tiles)
            lane_tile: list[TileAxis] = []
            if lanes is not None:
                assert nest.lanes is not None
                lane_tile = [TileAxis(lanes, nest.lanes.tile, "lanes")]
                shape = (*shape, nest.lanes.tile)
            accumulators[i] = name
            out.append(Alloc(name, s.dtype, shape, "register"))
            index = tuple(Axis(t.name) for t in (*kept_tiles, *lane_tile))
            identity: Expr = Const(reduction(s.reduction.operator).identity(s.dtype), s.dtype)
            start = identity
            if self._accumulates(s) and lanes is None:
                start = self._resumed(s, ranges)
            out.append(Tile((*kept_tiles, *lane_tile), name, index, "set", start))

        def at_point(inner: Ranges) -> list[Stmt]:
            code: list[Stmt] = []
            point_registers: Registers = {}
            for i in nest.body:
                code += self._pointwise(statements[i], nest, inner, point_registers)
            tiles = _axes((*kept, *reduced), inner)
            for i in nest.reductions:
                s = statements[i]
                assert s.reduction is not None
                index = tuple(Axis(t.name) for t in kept_tiles) + ((Axis(lanes),) if lanes is not None else ())
                value = self._value(s.reduction.body, s, inner, point_registers)
                code.append(Tile(tiles, accumulators[i], index, reduction(s.reduction.operator).combine, value))
            return code

        out += self._over(reduced, factors, ranges, at_point)
        for i in nest.reductions:
            out += self._finish(statements[i], accumulators[i], kept, nest, ranges, registers)
        for i in nest.epilogue:
            out += self._pointwise(statements[i], nest, ranges, registers)
        return out

    def _finish(
        self,
        s: Statement,
        accumulator: str,
        kept: tuple[str, ...],
        nest: Nest,
        ranges: Ranges,
        registers: Registers,
    ) -> list[Stmt]:
        """After the reduced loops: fold the lanes together, resume partial results, store or keep in registers."""
        assert s.reduction is not None
        kept_tiles = _axes(kept, ranges)
        lanes = nest.lanes if nest.lanes is not None and nest.lanes.axis in nest.reduced else None
        out: list[Stmt] = []
        combine = reduction(s.reduction.operator).combine
        index = tuple(Axis(t.name) for t in kept_tiles)
        name = accumulator
        if lanes is not None:
            name = self._fresh(f"{_local(s.target)}_total")
            out.append(Alloc(name, s.dtype, tuple(t.extent for t in kept_tiles), "register"))
            identity = Const(reduction(s.reduction.operator).identity(s.dtype), s.dtype)
            start = self._resumed(s, ranges) if self._accumulates(s) else identity
            lane_tile = TileAxis(lanes.axis, lanes.tile, "lanes")
            value = Load(accumulator, (*index, Axis(lanes.axis)), s.dtype)
            outer = tuple(replace(t, kind="unroll") for t in kept_tiles)
            out.append(Tile(outer, name, index, "set", start))
            out.append(Tile((*outer, lane_tile), name, index, combine, value))
        registers[s.target] = (name, kept)
        result = Load(name, index, s.dtype)
        if s.target in self._previous() and self._accumulates(s):
            before = Load(_local(s.target), self._local_index(s, s.axes, ranges), s.dtype)
            out.append(
                Tile(kept_tiles, _local(s.target) + "_before", self._local_index(s, s.axes, ranges), "set", before)
            )
        if s.target in self.locals:
            out.append(Tile(kept_tiles, _local(s.target), self._local_index(s, s.axes, ranges), "set", result))
        elif s.target in {p.name for p in self.kernel.outputs}:
            out.append(
                Tile(kept_tiles, s.target, tuple(self._absolute(Axis(a), ranges) for a in s.axes), "set", result)
            )
        return out

    def _resumed(self, s: Statement, ranges: Ranges) -> Expr:
        """What the sequential loop has accumulated so far, rescaled where the reduction is online."""
        assert s.reduction is not None
        so_far: Expr = self._load_local(s.target, tuple(Axis(a) for a in s.axes), ranges, s)
        if s.reduction.rescale is None:
            return so_far
        factor = self._value(s.reduction.rescale, s, ranges, {})
        return Call("mul", (so_far, factor), s.dtype)

    def _pointwise(self, s: Statement, nest: Nest, ranges: Ranges, registers: Registers) -> list[Stmt]:
        """A statement at the current point: into a register where later members read it, and to its buffer."""
        members = [self.kernel.statements[i] for i in (*nest.body, *nest.reductions, *nest.epilogue)]
        read_here = any(load.buffer == s.target for m in members for load in m.reads)
        order = tuple(a for a in (*nest.kept, *nest.reduced) if a in ranges)
        axes = tuple(a for a in order if a in s.axes)
        tiles = _axes(axes, ranges)
        out: list[Stmt] = []
        value = self._value(s.value, s, ranges, registers)
        stored = s.target in self.locals or s.target in {p.name for p in self.kernel.outputs}
        if read_here and s.scatter is None:
            name = self._fresh(f"{_local(s.target)}_reg")
            index = tuple(Axis(t.name) for t in tiles)
            out.append(Alloc(name, s.dtype, tuple(t.extent for t in tiles), "register"))
            out.append(Tile(tiles, name, index, "set", value))
            registers[s.target] = (name, axes)
            value = Load(name, index, s.dtype)
        if not stored:
            return out
        if s.scatter is not None:
            at = tuple(self._value(i, s, ranges, registers) for i in s.scatter.index)
            combine = {"set": "set", "add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}[s.scatter.combine]
            out.append(Tile(tiles, s.target, at, combine, value))
        elif s.target in self.locals:
            out.append(Tile(tiles, _local(s.target), self._local_index(s, s.axes, ranges), "set", value))
        else:
            out.append(Tile(tiles, s.target, tuple(self._absolute(Axis(a), ranges) for a in s.axes), "set", value))
        return out

    # Loops over axes ------------------------------------------------------------------------------------------------

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
                inner = Range(r.base, r.count, add(r.base, offset), offset)
            else:
                tile = TileAxis(axis, extent, kind, limit)
                place = add(offset, Axis(axis))
                inner = Range(r.base, r.count, add(r.base, place), place, tile)
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

    # Expressions ----------------------------------------------------------------------------------------------------

    def _absolute(self, e: Expr, ranges: Ranges) -> Expr:
        placed = substitute_axes(e, {a: r.absolute for a, r in ranges.items() if r.absolute is not None})
        return transform(placed, lambda node: self._divide(node, ranges))

    def _divide(self, e: Expr, ranges: Ranges) -> Expr:
        """(c*x + y) // c = x and (c*x + y) % c = y, where loop steps and tile extents prove 0 <= y < c."""
        match e:
            case Call("floordiv" | "mod", (a, Const(value=c))) if isinstance(c, int) and c > 1:
                whole: Expr = ZERO
                rest: Expr = ZERO
                for term in _terms(a):
                    if self._multiple(term, c):
                        whole = add(whole, term)
                    else:
                        rest = add(rest, term)
                if sum(self._largest(t, ranges) for t in _terms(rest)) < c:
                    return floor_div(whole, Const(c, i64)) if e.function == "floordiv" else rest
        return e

    def _multiple(self, e: Expr, c: int) -> bool:
        match e:
            case Const(value=v):
                return int(v) % c == 0
            case Axis(name=name):
                return self.steps.get(name, 1) % c == 0
            case Call("mul", (a, b)):
                return self._multiple(a, c) or self._multiple(b, c)
        return False

    def _largest(self, e: Expr, ranges: Ranges) -> float:
        """An upper bound of a nonnegative term; infinity where none is known."""
        match e:
            case Const(value=v) if v >= 0:
                return float(v)
            case Axis(name=name) if name in ranges and (tile := ranges[name].tile) is not None:
                return float(tile.extent - 1)
            case Call("mul", (a, Const(value=v))) if v >= 0:
                return self._largest(a, ranges) * v
        return math.inf

    def _value(self, e: Expr, s: Statement, ranges: Ranges, registers: Registers) -> Expr:
        """A right side with axes at their place in the loops and loads from locals and registers redirected.

        Loads are redirected before axes are substituted: their indices tell which axis they mean."""

        def place(node: Expr) -> Expr:
            if isinstance(node, Load):
                bare = node.buffer.rstrip("'")
                if node.buffer in registers:
                    name, order = registers[node.buffer]
                    return Load(name, tuple(Axis(t.name) for t in _axes(order, ranges)), node.dtype)
                if bare in self.locals:
                    return self._load_local(bare, node.index, ranges, s, "_before" if node.buffer.endswith("'") else "")
                return replace(node, index=tuple(walk_in(i) for i in node.index))
            return node

        def walk_in(node: Expr) -> Expr:
            if isinstance(node, Load):
                return place(node)
            if isinstance(node, Axis):
                r = ranges.get(node.name)
                return r.absolute if r is not None and r.absolute is not None else node
            if isinstance(node, Reduce):
                raise NotImplementedError("a reduction inside an expression")
            parts = children(node)
            return self._divide(refold(rebuild(node, tuple(walk_in(p) for p in parts))), ranges) if parts else node

        return walk_in(e)

    def _load_local(self, target: str, index: Sequence[Expr], ranges: Ranges, s: Statement, suffix: str = "") -> Expr:
        local = self.locals[target]
        at = tuple(self._place_in(local, axis, index[p], ranges) for p, axis in local.axes)
        definition = self.kernel.definition(target)
        assert definition is not None
        return Load(_local(target) + suffix, at, definition.dtype)

    def _place_in(self, local: _Local, axis: str, index: Expr, ranges: Ranges) -> Expr:
        """An index of a local buffer: counted from the tile's begin where the buffer holds a tile of the axis."""
        tiled = {t.axis for t in self.schedule.parallel}
        if self.schedule.sequential is not None and self.schedule.sequential.tile > 1:
            tiled.add(self.schedule.sequential.axis)
        if axis not in tiled:
            return self._absolute(index, ranges)
        place = ranges[axis].relative
        assert index == Axis(axis) and place is not None, f"{axis} is tiled, and read at {index}"
        return place

    def _local_index(self, s: Statement, axes: Sequence[str], ranges: Ranges) -> tuple[Expr, ...]:
        local = self.locals[s.target]
        out = []
        for position, _ in local.axes:
            relative = ranges[axes[position]].relative
            assert relative is not None
            out.append(relative)
        return tuple(out)


def _terms(e: Expr) -> list[Expr]:
    """The summands of a sum."""
    match e:
        case Call("add", (a, b)):
            return _terms(a) + _terms(b)
    return [e]


def _axes(axes: Sequence[str], ranges: Ranges) -> tuple[TileAxis, ...]:
    return tuple(t for a in axes if (t := ranges[a].tile) is not None)


def _local(target: str) -> str:
    """The C-like name of a target's local buffer."""
    return target.replace(".", "_") + "_local" if target else "local"


def _count(extent: Dim) -> int | Expr:
    return extent if isinstance(extent, int) else integer(extent)


__all__ = ["lower"]
