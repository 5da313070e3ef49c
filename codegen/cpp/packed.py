"""Sums of products whose depth is packed: dot products in the lanes of vectors, or tile by tile on a matrix unit.

    tile m=8 unroll, n=32 lanes, k=2 packed: acc[m,n] add= cast<f32>(A[m,k0 + k]) * cast<f32>(B[n0,k0 // 2,n,k])

One factor has neighbours along the depth in every lane, as it was packed; of the other a few neighbours are the same in
all lanes, or rows of a tile. Lanes and rows beyond what there is are 0. Of light weights several neighbours are summed
in narrow lanes, which then join the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from effcc.codegen.cpp.linear import Linear, minus
from effcc.codegen.cpp.loads import offset, place, register
from effcc.codegen.cpp.points import Points
from effcc.codegen.cpp.scope import Writer
from effcc.codegen.cpp.storage import Memory, Registers, TileRegisters
from effcc.codegen.cpp.values import number
from effcc.errors import ScheduleError
from effcc.ir.contraction import PackedDot, factors_of, packed_factors
from effcc.ir.dims import Dim
from effcc.ir.dots import TILE_SIDE
from effcc.ir.dtypes import i16
from effcc.ir.expr import Const, Load, free_axes
from effcc.ir.loops import Tile, TileAxis
from effcc.ir.vectors import (
    Assign,
    Broadcast,
    Dot,
    Literal,
    TileLoad,
    Tiles,
    TileStore,
    Value,
    Var,
    tile_type,
    value_type,
)  # fmt: skip
from effcc.ir.vectors import Load as MemoryLoad
from effcc.ir.vectors import Registers as RegisterVariables

_LEFT, _RIGHT = "left", "right"


def is_packed(tile: Tile) -> bool:
    """Whether a tile adds up packed points."""
    return any(a.kind == "packed" for a in tile.axes)


@dataclass(frozen=True)
class _Factors:
    """The factors of a packed product: what each loads, which one has lanes, and how many neighbours a lane has."""

    left: Load
    right: Load
    lanes: str
    dot: PackedDot

    @property
    def by_lanes(self) -> Load:
        return self.left if self.lanes == _LEFT else self.right

    @property
    def by_rows(self) -> Load:
        return self.right if self.lanes == _LEFT else self.left


class Packed:
    """The lines of one tile with a packed axis."""

    def __init__(self, points: Points) -> None:
        self.points, self.writer = points, points.writer
        self.depth = next(a for a in points.tile.axes if a.kind == "packed")
        self.factors = self._factors()
        points.at.point.update({a.name: 0 for a in points.tile.axes})

    def _factors(self) -> _Factors:
        tile, lanes = self.points.tile, self.points.lanes_axis
        factors = factors_of(tile.value)
        found = packed_factors(factors, tile.value.dtype) if factors is not None else None
        if found is None or lanes is None:
            raise self._misfit(
                "its factors are no elements for which there is a dot product, one of them along the lanes"
            )
        left, right, dot = found
        return _Factors(left, right, _LEFT if lanes in free_axes(left) else _RIGHT, dot)

    def _misfit(self, why: str) -> ScheduleError:
        return ScheduleError(f"points of {self.depth.name} are packed for {self.points.tile.buffer}, but {why}")

    # Where things lie

    def _at(self, load: Load, **point: int) -> Linear:
        """Where an element is, at another place of the current point."""
        at = self.points.at
        before = dict(at.point)
        at.point.update(point)
        storage = at.storage[load.buffer]
        if not isinstance(storage, Memory):
            raise self._misfit(f"{load.buffer} is in registers")
        found = offset(storage, [at.linear(i) for i in load.index])
        at.point.clear()
        at.point.update(before)
        return found

    def _step(self, load: Load, axis: TileAxis, points: int) -> Dim:
        """By how much a load moves when an axis goes on by so many points; 0 where it has no more."""
        if axis.extent <= points:
            return 0
        moved = minus(self._at(load, **{axis.name: points}), self._at(load, **{axis.name: 0}))
        if moved.terms or moved.vectors:
            raise self._misfit(f"{load.buffer} moves unevenly along {axis.name}")
        return moved.constant

    def _memory(self, load: Load) -> Memory:
        storage = self.points.at.storage[load.buffer]
        assert isinstance(storage, Memory)
        return storage

    def _check(self) -> None:
        """Neighbours along the depth are neighbours in memory, in every lane's own place."""
        factors = self.factors
        for load in (factors.left, factors.right):
            if self.depth.extent > 1 and self._step(load, self.depth, 1) != 1:
                raise self._misfit(f"neighbours of {load.buffer} along it are apart in memory")
        if self._at(factors.by_lanes).lane != factors.dot.neighbours:
            raise self._misfit(f"{factors.by_lanes.buffer} is not packed along {self.points.lanes_axis} for that")

    # Vectors

    def accumulate(self, target: Registers) -> None:
        """`c = dot(a, b, c)` at every point: the depth in one step."""
        self._check()
        if self.depth.extent > self.factors.dot.deepest:
            raise self._misfit(f"a step sums {self.factors.dot.deepest} neighbours, not {self.depth.extent}")
        if self.depth.extent > self.factors.dot.neighbours:
            self._accumulate_narrow(target)
            return
        points = self.points

        def add() -> None:
            index = [points.at.linear(i) for i in points.tile.index]
            variable, _ = register(self.writer, target, index)
            a, b = self._vector(self.factors.left), self._vector(self.factors.right)
            self.writer.add(Assign(variable.name, Dot(a, b, variable)))

        points.over_lanes(lambda chunks: points.each(points.unrolled(), add, chunks))

    def _accumulate_narrow(self, target: Registers) -> None:
        """`p = dot(a, b, p)` in lanes of i16 for one group of neighbours after the other, then `c = dot(p, 1, c)`."""
        points, dot = self.points, self.factors.dot
        type = value_type(i16, 2 * self.writer.lanes)
        ones = Broadcast(Literal(1, value_type(i16, 1)), type)

        def narrow(chunks: Sequence[int]) -> None:
            unrolled = points.unrolled()
            sums: dict[tuple[tuple[int, ...], int], Var] = {}

            def add(first: int) -> None:
                place = points.place(unrolled), points.chunk
                a, b = (self._vector(x, first) for x in (self.factors.left, self.factors.right))
                if place not in sums:
                    sums[place] = Var(self.writer.names.fresh("narrow"), type)
                    self.writer.add(RegisterVariables(type, (sums[place].name,)))
                self.writer.add(Assign(sums[place].name, Dot(a, b, sums[place])))

            def join() -> None:
                variable, _ = register(self.writer, target, [points.at.linear(i) for i in points.tile.index])
                self.writer.add(Assign(variable.name, Dot(sums[points.place(unrolled), points.chunk], ones, variable)))

            for first in range(0, self.depth.extent, dot.neighbours):
                points.each(unrolled, partial(add, first), chunks)
            points.each(unrolled, join, chunks)

        points.over_lanes(narrow)

    def _vector(self, load: Load, first: int = 0) -> Value:
        """Packed lanes: each lane's own neighbours from the `first` point of the depth, or the same ones in all."""
        dot, lanes = self.factors.dot, self.writer.lanes
        type, at = value_type(load.dtype, dot.neighbours * lanes), self._at(load, **{self.depth.name: first})
        memory, hint = self._memory(load), load.buffer.lower()
        if load is self.factors.by_lanes:
            return self.writer.let(MemoryLoad(place(memory, at), type, count=self._there(load, memory)), hint)
        there = min(self.depth.extent - first, dot.neighbours)
        some = None if there == dot.neighbours else number(there)
        few = MemoryLoad(place(memory, at), value_type(load.dtype, dot.neighbours), count=some)
        return self.writer.let(Broadcast(few, type) if lanes > 1 else few, hint)

    def _there(self, load: Load, memory: Memory) -> Value | None:
        """How many elements of a vector there are, where panels are no whole vectors; None where all are."""
        lanes, count = self.writer.lanes, self.points.at.guard.count
        across = [n for i, n in zip(load.index, memory.shape, strict=True) if self.points.lanes_axis in free_axes(i)]
        if not isinstance(count, int) or count >= lanes or all(isinstance(n, int) and n % lanes == 0 for n in across):
            return None
        return number(count * self.factors.dot.neighbours)

    # Tiles

    def multiply(self, target: TileRegisters) -> None:
        """A tile of one factor after the other meets all tiles of the factor that has fewer of them."""
        self._check()
        blocks, factors = target.names, self.factors
        rows, columns = (sorted({b[side] for b in blocks}) for side in (0, 1))
        outer, inner = (rows, columns) if len(rows) >= len(columns) else (columns, rows)
        first = len(blocks)
        kept_type, next_type = (
            tile_type((factors.by_rows if turns is rows else factors.by_lanes).dtype) for turns in (inner, outer)
        )
        kept = [Var(self.writer.names.fresh("kept"), kept_type) for _ in inner]
        following = Var(self.writer.names.fresh("next"), next_type)
        self.writer.add(Tiles(kept_type, tuple(v.name for v in kept), first))
        self.writer.add(Tiles(next_type, (following.name,), first + len(kept)))
        for variable, turn in zip(kept, inner, strict=True):
            self.writer.add(Assign(variable.name, self._tile(turn, by_rows=inner is rows)))
        for turn in outer:
            self.writer.add(Assign(following.name, self._tile(turn, by_rows=outer is rows)))
            for variable, other in zip(kept, inner, strict=True):
                a, b, block = (
                    (following, variable, (turn, other)) if outer is rows else (variable, following, (other, turn))
                )
                c = Var(blocks[block], tile_type(target.dtype))
                self.writer.add(Assign(c.name, Dot(a, b, c)))

    def _tile(self, turn: int, by_rows: bool) -> TileLoad:
        """One tile of a factor, all of the depth: 16 rows of the one with rows, or 16 lanes of the one with lanes."""
        dot, depth = self.factors.dot, self.depth.extent
        load = self.factors.by_rows if by_rows else self.factors.by_lanes
        type = tile_type(load.dtype)
        if by_rows:
            axis = row_axis(self.points.tile)
            point = {} if axis is None else {axis.name: turn * TILE_SIDE}
            rows = 1 if axis is None else min(TILE_SIDE, axis.extent - turn * TILE_SIDE)
            apart = 0 if axis is None else self._step(load, axis, 1)
            return TileLoad(place(self._memory(load), self._at(load, **point)), type, apart, rows, depth)
        at = self._at(load, **{str(self.points.lanes_axis): turn * TILE_SIDE // self.writer.lanes}).base
        apart = self._step(load, self.depth, dot.neighbours)
        return TileLoad(place(self._memory(load), at), type, apart, -(-depth // dot.neighbours), type.lanes)


def clear_tiles(writer: Writer, target: TileRegisters, tile: Tile) -> None:
    """Tile registers set to a constant."""
    if not isinstance(tile.value, Const) or tile.value.value != 0:
        raise ScheduleError(f"{tile.buffer} is in tile registers, which begin at 0, not at {tile.value}")
    for name in target.names.values():
        writer.add(Assign(name, Literal(0.0 if target.dtype.is_float else 0, tile_type(target.dtype))))


def leave_tiles(points: Points, source: TileRegisters) -> None:
    """Whole tiles to memory, into which what is left of the tile's axes fits."""
    tile, at = points.tile, points.at
    memory, rows = at.storage[tile.buffer], row_axis(tile)
    if not isinstance(memory, Memory):
        raise ScheduleError(f"tile registers are left for memory, not for registers: {tile.buffer}")
    for (row, column), name in source.names.items():
        at.point.update({a.name: 0 for a in tile.axes})
        if rows is not None:
            at.point[rows.name] = row * TILE_SIDE
        at.point[str(points.lanes_axis)] = column * TILE_SIDE // points.writer.lanes
        where = offset(memory, [at.linear(i) for i in tile.index]).base
        apart = next(
            n for i, n in zip(tile.index, memory.strides, strict=True) if rows is None or rows.name in free_axes(i)
        )
        points.writer.add(TileStore(place(memory, where), Var(name, tile_type(source.dtype)), apart))


def row_axis(tile: Tile) -> TileAxis | None:
    """The axis along which rows of tiles are."""
    return next((a for a in tile.axes if a.kind == "unroll"), None)
