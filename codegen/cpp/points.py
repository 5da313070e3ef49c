"""Where a tile's statement is evaluated: every unrolled point and every vector, inside loops and guards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from effcc.codegen.cpp import values
from effcc.codegen.cpp.expressions import Evaluator
from effcc.codegen.cpp.indices import Guard
from effcc.codegen.cpp.linear import Known, Linear, bounds, minus, of_atom, shifted, uniform
from effcc.codegen.cpp.scope import Writer
from effcc.codegen.cpp.storage import Registers, Storage, lanes_axis
from effcc.ir import vectors
from effcc.ir.expr import free_axes, loads
from effcc.ir.loops import Tile, TileAxis
from effcc.ir.vectors import INDEX, TRUTH, Affine, Branch, Conjunction, Line, Loop, Var

GROUP = 4
"""So many vectors of a long lanes axis are computed together in one turn of a loop."""

_UNROLLED = 16
"""A tile with more vectors than this, none of which has a register of its own, becomes a loop."""


class Points:
    """Walks over the points of one tile. `at` is the evaluator, standing at the current one.

    A point is a place for each unrolled axis and the number of a vector of the lanes axis (0 where there is none). Axes
    that index the buffer are `kept`, the others folded away.
    """

    def __init__(
        self, writer: Writer, storage: Mapping[str, Storage], variables: Mapping[str, str], tile: Tile
    ) -> None:
        self.writer, self.storage, self.tile = writer, storage, tile
        self.variables = dict(variables)
        self.axes = {a.name: a for a in tile.axes}
        self.lanes_axis = lanes_axis(tile)
        self.kept = frozenset(self.axes) & frozenset[str]().union(*(free_axes(i) for i in tile.index))
        unrolled = frozenset(a.name for a in tile.axes if a.kind in ("unroll", "packed"))
        self.at = Evaluator(
            writer=writer, storage=storage, variables=self.variables, lanes_axis=self.lanes_axis, unrolled=unrolled,
            written=tile.buffer,
        )  # fmt: skip
        self.masked = True

    @property
    def folded(self) -> list[str]:
        """The axes that do not index the buffer."""
        return [a.name for a in self.tile.axes if a.name not in self.kept]

    @property
    def folds_lanes(self) -> bool:
        return self.lanes_axis is not None and self.lanes_axis not in self.kept

    @property
    def lanes(self) -> int:
        """The number of lanes of a value: 1 where the tile has no lanes axis."""
        return self.writer.lanes if self.lanes_axis is not None else 1

    def place(self, axes: Sequence[TileAxis]) -> tuple[int, ...]:
        """Where the current point stands on `axes`."""
        return tuple(self.at.point[a.name] for a in axes)

    @property
    def chunk(self) -> int:
        """The number of the current vector."""
        return self.at.point[self.lanes_axis] if self.lanes_axis is not None else 0

    def loop_axes(self, kept: bool) -> list[TileAxis]:
        """The axes that stay loops, of those that are kept or of those that are folded away."""
        return [a for a in self.tile.axes if a.kind == "loop" and (a.name in self.kept) == kept]

    def over_lanes(self, visit: Callable[[Sequence[int]], None]) -> None:
        """Call `visit` with the vectors of the lanes axis: all at once if few, else group by group in a loop."""
        if self.lanes_axis is None:
            visit([0])
            return
        axis, lanes = self.axes[self.lanes_axis], self.writer.lanes
        limit = self._limit(axis)
        points = min(axis.extent, limit) if isinstance(limit, int) else axis.extent
        chunks = range(-(-points // lanes))
        unrolled = math.prod(a.extent for a in self.tile.axes if a.kind == "unroll")
        group = max(1, min(GROUP, _UNROLLED // unrolled))
        if len(chunks) <= group or len(chunks) * unrolled <= _UNROLLED or self._lanes_in_registers():
            visit(chunks)
        elif isinstance(limit, Var):
            self._lane_loop(limit, visit)
        else:
            whole = points // lanes // group * group
            name = self._lane_variable(points, group * lanes)
            with self._lanes_loop(name) as lines:
                visit(range(group))
            self.writer.add(Loop(name, values.ZERO, values.number(whole * lanes), group * lanes, tuple(lines)))
            self._from(Linear())
            if chunks[whole:]:
                visit(chunks[whole:])

    def _lane_loop(self, limit: Var, visit: Callable[[Sequence[int]], None]) -> None:
        """Vector by vector up to a limit known at run time: whole ones, then the rest under a mask."""
        lanes, extent = self.writer.lanes, self.axes[str(self.lanes_axis)].extent
        size = values.number(lanes)
        vectors_ = vectors.Call("quotient", (limit, size), INDEX)
        whole = self.writer.let(vectors.Call("mul", (vectors_, size), INDEX), "whole")
        for start, stop, self.masked in ((values.ZERO, whole, False), (whole, limit, True)):
            name = self._lane_variable(extent, lanes)
            with self._lanes_loop(name) as lines:
                visit([0])
            self.writer.add(Loop(name, start, stop, lanes, tuple(lines)))
        self._from(Linear())
        self.masked = True

    def _lane_variable(self, extent: int, step: int) -> str:
        """The variable of a loop over the lanes axis; vectors are counted from it."""
        name = self.writer.names.fresh(str(self.lanes_axis))
        self.writer.known[name] = Known(0, max(0, extent - 1) // step * step, step)
        self._from(of_atom(name))
        return name

    @contextmanager
    def _lanes_loop(self, name: str) -> Iterator[list[Line]]:
        """The lines of a loop over vectors of the lanes axis."""
        self.writer.loops.append(name)
        with self.writer.block() as lines:
            yield lines
        self.writer.loops.pop()

    def _from(self, base: Linear) -> None:
        """Count vectors of the lanes axis from another place."""
        self.at.lanes_base = base
        self.at.moved()

    def _lanes_in_registers(self) -> bool:
        """Whether a buffer in registers is indexed by the lanes axis, so that each vector has to be named."""
        if isinstance(self.storage[self.tile.buffer], Registers) and self.lanes_axis in self.kept:
            return True
        found = (load for e in (self.tile.value, *self.tile.index) for load in loads(e))
        return any(isinstance(self.storage[x.buffer], Registers) and self.lanes_axis in free_axes(x) for x in found)

    def unrolled(self) -> list[TileAxis]:
        """The unrolled axes, those folded away last: what one point shares with the next stays in registers."""
        unrolled = [a for a in self.tile.axes if a.kind == "unroll"]
        return [a for a in unrolled if a.name in self.kept] + [a for a in unrolled if a.name not in self.kept]

    def each(self, axes: Sequence[TileAxis], visit: Callable[[], None], chunks: Sequence[int]) -> None:
        """Call `visit` with the evaluator at every point of `axes` and every vector, inside the guards of the axes."""
        ranges = [range(a.extent) for a in axes]
        limits = [self._limit(a) for a in axes]
        for place in itertools.product(*ranges):
            conditions: list[vectors.Value] = []
            skipped = False
            for position, limit in zip(place, limits, strict=True):
                if isinstance(limit, int):
                    skipped = skipped or position >= limit
                elif limit is not None:
                    below = (Affine(constant=position), limit)
                    conditions.append(vectors.Call("lt", below, TRUTH))
            if skipped:
                continue
            self.at.point.update({a.name: p for a, p in zip(axes, place, strict=True)})
            with self._guarded(conditions):
                for chunk in chunks:
                    self._enter(chunk)
                    visit()

    def _enter(self, chunk: int) -> None:
        """Go to one vector of the lanes axis."""
        if self.lanes_axis is None:
            return
        self.at.point[self.lanes_axis] = chunk
        axis, lanes = self.axes[self.lanes_axis], self.writer.lanes
        limit = self._limit(axis)
        count: int | vectors.Value | None = None
        if isinstance(limit, Var):
            if self.masked:
                count = uniform(minus(of_atom(limit.name), shifted(self.at.lanes_base, chunk * lanes)))
        elif not self.at.lanes_base.terms:
            rest = (axis.extent if limit is None else min(axis.extent, limit)) - chunk * lanes
            count = rest if rest < lanes else None
        self.at.guard = Guard(count)

    def _limit(self, axis: TileAxis) -> int | Var | None:
        """An axis's limit: a number, or a variable."""
        if axis.limit is None:
            return None
        limit = self.at.linear(axis.limit)
        if limit.value is not None:
            return limit.value
        high = bounds(limit, self.writer.known)[1]
        body: vectors.Value = uniform(limit)
        if high is None or high > axis.extent:
            body = vectors.Call("minimum", (body, values.number(axis.extent)), INDEX)
        return self.writer.let(body, f"{axis.name}_count")

    @contextmanager
    def _guarded(self, conditions: Sequence[vectors.Value]) -> Iterator[None]:
        if not conditions:
            yield
            return
        with self.writer.block() as lines:
            yield
        condition = conditions[0] if len(conditions) == 1 else Conjunction(tuple(conditions))
        self.writer.add(Branch(condition, tuple(lines)))

    @contextmanager
    def where_written(self) -> Iterator[None]:
        """Inside it, lines run where the tile writes to its buffer, if that is the same in all lanes."""
        kept = self.at.writes_at(self.tile.index)
        if kept is None or kept.lanes > 1:
            yield
            return
        with self.writer.block() as lines:
            yield
        self.writer.add(Branch(values.node(self.writer, kept), tuple(lines)))

    @contextmanager
    def loops(self, axes: Sequence[TileAxis]) -> Iterator[None]:
        if not axes:
            yield
            return
        axis = axes[0]
        limit = self._limit(axis)
        stop: vectors.Value = values.number(axis.extent)
        if limit is not None:
            stop = limit if isinstance(limit, Var) else values.number(min(limit, axis.extent))
        name = self.writer.names.fresh(axis.name)
        self.variables[axis.name] = name
        self.writer.known[name] = Known(0, axis.extent - 1)
        self.at.variables = self.variables
        self.at.moved()
        self.writer.loops.append(name)
        with self.writer.block() as lines, self.loops(axes[1:]):
            yield
        self.writer.loops.pop()
        self.writer.add(Loop(name, values.ZERO, stop, 1, tuple(lines)))
