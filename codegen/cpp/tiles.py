"""One tile statement to registers: unrolled, cut into vectors, with accumulators where an axis is folded away."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from effcc.codegen.cpp import values
from effcc.codegen.cpp.expressions import Evaluator, Guard
from effcc.codegen.cpp.form import Branch, Do, Loop
from effcc.codegen.cpp.form import Registers as RegisterLines
from effcc.codegen.cpp.linear import Known, Linear, bounds, linear_text, of_atom, shifted, times
from effcc.codegen.cpp.loads import load_memory, load_registers, store_memory, store_registers
from effcc.codegen.cpp.scope import Value, Writer
from effcc.codegen.cpp.spelling import Fold, computed, fold, literal, spell, value_type
from effcc.codegen.cpp.storage import Registers, Storage, lanes_axis
from effcc.errors import UnsupportedError
from effcc.ir.dtypes import boolean, i64
from effcc.ir.expr import Call, Expr, free_axes, loads
from effcc.ir.loops import Tile, TileAxis
from effcc.ir.scalars import reduction

_CHAINS = 8
"""At most so many accumulators for one fold along the lanes: enough to hide the latency of an addition."""

_GROUP = 4
"""So many vectors of a long lanes axis are computed together in one turn of a loop."""

_UNROLLED = 16
"""A tile with more vectors than this, none of which has a register of its own, becomes a loop."""

_IDENTITIES = {"add": "sum", "mul": "prod", "maximum": "max", "minimum": "min", "or": "any", "and": "all"}


def lower_tile(writer: Writer, storage: Mapping[str, Storage], variables: Mapping[str, str], tile: Tile) -> None:
    """Write the lines of one tile statement."""
    with writer.masked():
        _TileLowering(writer, storage, variables, tile).run()


class _TileLowering:
    def __init__(
        self, writer: Writer, storage: Mapping[str, Storage], variables: Mapping[str, str], tile: Tile
    ) -> None:
        self.writer, self.storage, self.tile = writer, storage, tile
        self.variables = dict(variables)
        self.target = storage[tile.buffer]
        self.axes = {a.name: a for a in tile.axes}
        self.lanes_axis = lanes_axis(tile)
        self.kept = frozenset(self.axes) & frozenset[str]().union(*(free_axes(i) for i in tile.index))
        self.fold: Fold | None = None if tile.combine == "set" else fold(tile.combine)
        unrolled = frozenset(a.name for a in tile.axes if a.kind == "unroll")
        self.at = Evaluator(writer, storage, self.variables, self.lanes_axis, unrolled, tile.buffer)
        self.masked = True
        folded = [a.name for a in tile.axes if a.name not in self.kept]
        if folded and self.fold is None:
            raise UnsupportedError(
                f"a tile sets {tile.buffer} for every {folded[0]}, which does not index it: "
                "expected a combine, got 'set'"
            )

    def run(self) -> None:
        outer = [a for a in self.tile.axes if a.kind == "loop" and a.name in self.kept]
        inner = [a for a in self.tile.axes if a.kind == "loop" and a.name not in self.kept]
        with self._loops(outer):
            if self.lanes_axis is not None and self.lanes_axis not in self.kept:
                self._fold_in_accumulators(inner)
            else:
                self._over_lanes(lambda chunks: self._write(inner, chunks))

    def _write(self, inner: Sequence[TileAxis], chunks: Sequence[int]) -> None:
        """Compute these vectors of the target."""
        if self._accumulates():
            self._fold_in_accumulators(inner, chunks)
        else:
            with self._loops(inner):
                self._each_point(self._unrolled_axes(), self._assign, chunks)

    # Which points

    def _over_lanes(self, visit: Callable[[Sequence[int]], None]) -> None:
        """Call `visit` with the vectors of the lanes axis: all at once if few, else group by group in a loop."""
        if self.lanes_axis is None:
            visit([0])
            return
        axis, lanes = self.axes[self.lanes_axis], self.writer.lanes
        limit = self._limit(axis)
        points = min(axis.extent, limit) if isinstance(limit, int) else axis.extent
        chunks = range(-(-points // lanes))
        unrolled = math.prod(a.extent for a in self.tile.axes if a.kind == "unroll")
        group = max(1, min(_GROUP, _UNROLLED // unrolled))
        if len(chunks) <= group or len(chunks) * unrolled <= _UNROLLED or self._lanes_in_registers():
            visit(chunks)
        elif isinstance(limit, str):
            self._lane_loop(limit, visit)
        else:
            whole = points // lanes // group * group
            name = self._lane_variable(points, group * lanes)
            with self.writer.block() as lines:
                visit(range(group))
            self.writer.add(Loop(name, "0", str(whole * lanes), group * lanes, tuple(lines)))
            self.at.lanes_base = Linear()
            if chunks[whole:]:
                visit(chunks[whole:])

    def _lane_loop(self, limit: str, visit: Callable[[Sequence[int]], None]) -> None:
        """Vector by vector up to a limit known at run time: whole ones, then the rest under a mask."""
        lanes, extent = self.writer.lanes, self.axes[str(self.lanes_axis)].extent
        whole = self.writer.let("i64", f"{limit} / {lanes} * {lanes}", "whole")
        for start, stop, self.masked in (("0", whole, False), (whole, limit, True)):
            name = self._lane_variable(extent, lanes)
            with self.writer.block() as lines:
                visit([0])
            self.writer.add(Loop(name, start, stop, lanes, tuple(lines)))
        self.at.lanes_base, self.masked = Linear(), True

    def _lane_variable(self, extent: int, step: int) -> str:
        """The variable of a loop over the lanes axis; vectors are counted from it."""
        name = self.writer.names.fresh(str(self.lanes_axis))
        self.writer.known[name] = Known(0, max(0, extent - 1) // step * step, step)
        self.at.lanes_base = of_atom(name)
        return name

    def _lanes_in_registers(self) -> bool:
        """Whether a buffer in registers is indexed by the lanes axis, so that each vector has to be named."""
        if isinstance(self.target, Registers) and self.lanes_axis in self.kept:
            return True
        found = (load for e in (self.tile.value, *self.tile.index) for load in loads(e))
        return any(isinstance(self.storage[x.buffer], Registers) and self.lanes_axis in free_axes(x) for x in found)

    def _unrolled_axes(self) -> list[TileAxis]:
        """Axes that are folded away first, so that neighbouring statements do not wait for each other."""
        unrolled = [a for a in self.tile.axes if a.kind == "unroll"]
        return [a for a in unrolled if a.name not in self.kept] + [a for a in unrolled if a.name in self.kept]

    def _each_point(self, axes: Sequence[TileAxis], visit: Callable[[], None], chunks: Sequence[int]) -> None:
        """Call `visit` with the evaluator at every point of `axes` and every vector, inside the guards of the axes."""
        ranges = [range(a.extent) for a in axes]
        limits = [self._limit(a) for a in axes]
        for place in itertools.product(*ranges):
            conditions = []
            skipped = False
            for position, limit in zip(place, limits, strict=True):
                if isinstance(limit, int):
                    skipped = skipped or position >= limit
                elif limit is not None:
                    conditions.append(f"{position} < {limit}")
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
        count: int | str | None = None
        if isinstance(limit, str):
            if self.masked:
                place = linear_text(times(shifted(self.at.lanes_base, chunk * lanes), -1))
                count = limit if place == "0" else f"{limit} {place}".replace(" -", " - ", 1)
        elif not self.at.lanes_base.terms:
            rest = (axis.extent if limit is None else min(axis.extent, limit)) - chunk * lanes
            count = rest if rest < lanes else None
        self.at.guard = Guard(count)

    def _limit(self, axis: TileAxis) -> int | str | None:
        """An axis's limit: a number, or a name."""
        if axis.limit is None:
            return None
        constant = _constant(self.at, axis.limit)
        if constant is not None:
            return constant
        limit = self.at.linear(axis.limit)
        high = bounds(limit, self.writer.known)[1]
        body = linear_text(limit)
        if high is None or high > axis.extent:
            body = f"minimum<i64>({body}, {axis.extent})"
        return self.writer.let("i64", body, f"{axis.name}_count")

    @contextmanager
    def _guarded(self, conditions: Sequence[str]) -> Iterator[None]:
        if not conditions:
            yield
            return
        with self.writer.block() as lines:
            yield
        self.writer.add(Branch(" && ".join(conditions), tuple(lines)))

    @contextmanager
    def _loops(self, axes: Sequence[TileAxis]) -> Iterator[None]:
        if not axes:
            yield
            return
        axis = axes[0]
        limit = self._limit(axis)
        stop = str(axis.extent) if limit is None else str(limit)
        if isinstance(limit, int):
            stop = str(min(limit, axis.extent))
        name = self.writer.names.fresh(axis.name)
        self.variables[axis.name] = name
        self.writer.known[name] = Known(0, axis.extent - 1)
        self.at.variables = self.variables
        self.writer.loops.append(name)
        with self.writer.block() as lines, self._loops(axes[1:]):
            yield
        self.writer.loops.pop()
        self.writer.add(Loop(name, "0", stop, 1, tuple(lines)))

    # What happens at a point

    def _assign(self) -> None:
        """`buffer[index] combine= value` at the current point."""
        index = [self.at.linear(i) for i in self.tile.index]
        count = self.at.guard.count
        target = self.target
        if isinstance(target, Registers):
            value = self._combined(lambda: load_registers(self.writer, target, index))
            kept = values.first_lanes(self.writer, str(count)) if self._must_keep(count) else None
            store_registers(self.writer, target, index, value, kept)
        elif self.fold is not None and any(i.vectors for i in index):
            template, _ = spell(self.fold.function, self.target.dtype)
            function = f"[](auto a, auto b) {{ return {template.format('a', 'b')}; }}"
            store_memory(self.writer, target, index, self._lane_value(), count, function)
        else:
            epoch = self.at.epoch
            value = self._combined(lambda: load_memory(self.writer, target, index, count, None, epoch))
            store_memory(self.writer, target, index, value, count)
        self.at.epoch += 1

    def _lane_value(self) -> Value:
        return self._stored(self.at.value(self.tile.value))

    def _stored(self, value: Value) -> Value:
        """The value in the dtype of the buffer; the half types wait for the store to be rounded."""
        dtype = self.target.dtype
        if computed(value.dtype) == computed(dtype):
            return value
        return values.convert(self.writer, value, dtype, self.at.epoch)

    def _must_keep(self, count: int | str | None) -> bool:
        """Whether lanes beyond the count hold values of the buffer that must stay as they are."""
        if count is None or self.lanes_axis is None:
            return False
        axis, target = self.axes[self.lanes_axis], self.target
        if (
            isinstance(target, Registers)
            and target.lane_dim is not None
            and target.shape[target.lane_dim] > axis.extent
        ):
            return True
        return axis.limit is not None

    def _combined(self, old: Callable[[], Value]) -> Value:
        """The value to store: folded with what stands there."""
        if self.fold is None:
            return self._lane_value()
        product = self._product()
        before = old()
        if product is not None:
            return self._multiply_add(product, before)
        return self._folded(before, self._lane_value())

    def _product(self) -> tuple[Expr, Expr] | None:
        """The factors, where the statement is a contraction and may be rounded once."""
        e = self.tile.value
        same = computed(e.dtype) == computed(self.target.dtype) and e.dtype.is_float
        if self.tile.combine == "add" and isinstance(e, Call) and e.function == "mul" and same:
            return e.operands[0], e.operands[1]
        return None

    def _multiply_add(self, product: tuple[Expr, Expr], before: Value) -> Value:
        self.at.streams = True
        a, b = (self.at.value(factor) for factor in product)
        self.at.streams = False
        lanes = max(a.lanes, b.lanes, before.lanes)
        if lanes > 1 and a.lanes == b.lanes == 1:
            texts = [values.in_lanes(self.writer, a), b.text, before.text]
        elif lanes > 1:
            texts = [a.text, b.text, values.in_lanes(self.writer, before)]
        else:
            texts = [a.text, b.text, before.text]
        return Value(f"mul_add({', '.join(texts)})", self.target.dtype, lanes)

    def _folded(self, before: Value, value: Value) -> Value:
        """`fold(value, before)` as text; the accumulator stands last, where maximum is quickest."""
        assert self.fold is not None
        dtype = self.target.dtype
        template, spelling = spell(self.fold.function, dtype)
        self.writer.functions.add(self.fold.function)
        lanes = max(before.lanes, value.lanes)
        if lanes > 1:
            texts = [values.in_lanes(self.writer, v, 4) for v in (value, before)]
        else:
            texts = [values.text(self.writer, v) for v in (value, before)]
        if spelling.operator:
            texts.reverse()
        body = template.format(*texts)
        if lanes == 1 and computed(dtype).bits < 32 and dtype != boolean:
            body = f"{dtype.name}({body})"
        return Value(body, dtype, lanes)

    # Folding axes away

    def _accumulates(self) -> bool:
        """Whether partial results should stay in registers of their own until an axis is folded away."""
        folded = [a for a in self.tile.axes if a.name not in self.kept]
        return bool(folded) and not isinstance(self.target, Registers) and not self._scatters()

    def _scatters(self) -> bool:
        """Whether the place written is itself data."""
        return any(loads(i) for i in self.tile.index)

    def _fold_in_accumulators(self, inner: Sequence[TileAxis], chunks: Sequence[int] | None = None) -> None:
        """Fold in variables, one for each point that is kept; `chunks`: the vectors kept (None: folded)."""
        unrolled = self._unrolled_axes()
        kept_axes = [a for a in unrolled if a.name in self.kept]
        across_lanes = chunks is None
        places = list(itertools.product(*(range(a.extent) for a in kept_axes)))
        chains = range(self._chains(len(places))) if chunks is None else chunks
        lanes = self.writer.lanes if self.lanes_axis is not None else 1
        names = {
            (place, chain): self.writer.names.fresh("sum" if self.tile.combine == "add" else "total")
            for place in places
            for chain in chains
        }
        self._declare(list(names.values()), lanes)

        def accumulate() -> None:
            place = tuple(self.at.point[a.name] for a in kept_axes)
            chunk = self.at.point[self.lanes_axis] if self.lanes_axis is not None else 0
            name = names[place, chunk % len(chains) if across_lanes else chunk]
            before = Value(name, self.target.dtype, lanes)
            after = self._accumulated(before)
            self.writer.add(Do(f"{name} = {after};"))

        with self._loops(inner):
            if chunks is None:
                self._over_lanes(lambda several: self._each_point(unrolled, accumulate, several))
            else:
                self._each_point(unrolled, accumulate, chunks)
        self._finish(kept_axes, names, chains, across_lanes)

    def _chains(self, places: int) -> int:
        """How many accumulators each folded point gets, so that additions need not wait for each other."""
        extent = self.axes[str(self.lanes_axis)].extent
        return max(1, min(_GROUP, -(-extent // self.writer.lanes), _CHAINS // max(1, places)))

    def _declare(self, names: list[str], lanes: int) -> None:
        dtype = self.target.dtype
        assert self.fold is not None
        identity = literal(reduction(_IDENTITIES[self.fold.function]).identity(dtype), dtype)
        if dtype == i64 or dtype.is_integer:
            identity = literal(int(reduction(_IDENTITIES[self.fold.function]).identity(dtype)), dtype)
        type = value_type(dtype, lanes)
        if dtype == boolean and lanes > 1:
            identity = f"{type}{{}}" if identity == "false" else f"~{type}{{}}"
        elif lanes > 1:
            identity = f"broadcast<{type}>({identity})"
        self.writer.add(RegisterLines(type, tuple(names), identity))

    def _accumulated(self, before: Value) -> str:
        """The accumulator with the current point folded in, in the lanes that count."""
        product = self._product()
        after = self._folded(before, self._lane_value()) if product is None else self._multiply_add(product, before)
        body = after.text if after.lanes == before.lanes else values.in_lanes(self.writer, after)
        if self.at.guard.count is None or before.lanes == 1:
            return body
        width = 4 if before.dtype == boolean else computed(before.dtype).bytes
        active = values.first_lanes(self.writer, str(self.at.guard.count))
        return f"select({values.mask(self.writer, active, width)}, {body}, {before.text})"

    def _finish(
        self,
        kept_axes: Sequence[TileAxis],
        names: Mapping[tuple[tuple[int, ...], int], str],
        chains: Sequence[int],
        across_lanes: bool,
    ) -> None:
        """Fold the accumulators together and into the buffer."""

        def store() -> None:
            place = tuple(self.at.point[a.name] for a in kept_axes)
            chunk = self.at.point[self.lanes_axis] if self.lanes_axis is not None else 0
            total = (
                self._total([names[place, c] for c in chains])
                if across_lanes
                else Value(
                    names[place, chunk], self.target.dtype, self.writer.lanes if self.lanes_axis is not None else 1
                )
            )
            index = [self.at.linear(i) for i in self.tile.index]
            count = None if across_lanes else self.at.guard.count
            if isinstance(self.target, Registers):
                value = self._folded(load_registers(self.writer, self.target, index), total)
                store_registers(self.writer, self.target, index, value, None)
            else:
                old = load_memory(self.writer, self.target, index, count, None, self.at.epoch)
                store_memory(self.writer, self.target, index, self._folded(old, total), count)
            self.at.epoch += 1

        self._each_point(kept_axes, store, [0] if across_lanes else chains)

    def _total(self, names: Sequence[str]) -> Value:
        """All lanes of several accumulators folded into one value."""
        assert self.fold is not None
        dtype, lanes = self.target.dtype, self.writer.lanes
        layer = [Value(name, dtype, lanes) for name in names]
        while len(layer) > 1:
            pairs = [layer[i : i + 2] for i in range(0, len(layer), 2)]
            layer = [self._pair(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        if lanes == 1:
            return layer[0]
        template = self.fold.masks if dtype == boolean else self.fold.lanes
        name = self.writer.let(value_type(dtype, 1), template.format(layer[0].text), "total")
        return Value(name, dtype)

    def _pair(self, a: Value, b: Value) -> Value:
        body = self._folded(a, b).text
        return Value(self.writer.let(value_type(a.dtype, a.lanes), body, "total"), a.dtype, a.lanes)


def _constant(at: Evaluator, limit: Expr | None) -> int | None:
    return None if limit is None else at.linear(limit).value
