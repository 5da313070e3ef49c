"""Axes folded away: partial results stay in variables of their own until all points have been seen."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from effcc.codegen.cpp import values
from effcc.codegen.cpp.combine import Combine
from effcc.codegen.cpp.loads import load_memory, load_registers, store_memory, store_registers
from effcc.codegen.cpp.points import GROUP, Points
from effcc.codegen.cpp.scope import Value, Writer
from effcc.codegen.cpp.storage import Registers, Storage
from effcc.codegen.cpp.values import computed
from effcc.ir import vectors
from effcc.ir.dtypes import boolean
from effcc.ir.loops import TileAxis
from effcc.ir.vectors import Assign, Reduce, Select, Var

_CHAINS = 8
"""At most so many accumulators for one fold along the lanes: enough to hide the latency of an addition."""

Names = Mapping[tuple[tuple[int, ...], int], str]
"""The accumulators: by the place on the kept axes, and the vector (or, across lanes, the chain) that each is for."""


def fold_away(points: Points, combine: Combine, target: Storage, chunks: Sequence[int] | None = None) -> None:
    """Fold into `target` through accumulators. `chunks`: the vectors of a kept lanes axis; None folds the lanes too."""
    kept = [a for a in points.unrolled() if a.name in points.kept]
    places = list(itertools.product(*(range(a.extent) for a in kept)))
    chains = range(_chains(points, len(places))) if chunks is None else chunks
    base = "sum" if points.tile.combine == "add" else "total"
    names = {(place, chain): points.writer.names.fresh(base) for place in places for chain in chains}
    type = values.type_of(points.writer, combine.dtype, points.lanes)
    points.writer.add(vectors.Registers(type, tuple(names.values()), combine.identity(points.lanes)))

    def accumulate() -> None:
        chain = points.chunk % len(chains) if chunks is None else points.chunk
        name = names[points.place(kept), chain]
        points.writer.add(Assign(name, _accumulated(points, combine, Var(name, type))))

    with points.loops(points.loop_axes(kept=False)):
        if chunks is None:
            points.over_lanes(lambda several: points.each(points.unrolled(), accumulate, several))
        else:
            points.each(points.unrolled(), accumulate, chunks)
    _store(points, combine, target, kept, names, None if chunks is None else list(chunks))


def _chains(points: Points, places: int) -> int:
    """How many accumulators each folded point gets, so that additions need not wait for each other."""
    extent = points.axes[str(points.lanes_axis)].extent
    return max(1, min(GROUP, -(-extent // points.writer.lanes), _CHAINS // max(1, places)))


def _accumulated(points: Points, combine: Combine, accumulator: Var) -> vectors.Value:
    """The accumulator with the current point folded in, in the lanes that count."""
    writer, lanes = points.writer, points.lanes
    after = combine.combined(Value(accumulator, combine.dtype, lanes))
    body = values.node(writer, after) if after.lanes == lanes else values.in_lanes(writer, after)
    if points.at.guard.count is None or lanes == 1:
        return body
    width = 4 if combine.dtype == boolean else computed(combine.dtype).bytes
    active = values.first_lanes(writer, points.at.guard.count)
    return Select(values.mask(writer, active, width), body, accumulator)


def _store(
    points: Points, combine: Combine, target: Storage, kept: list[TileAxis], names: Names, chunks: list[int] | None
) -> None:
    """Fold the accumulators into the buffer; first with each other, where they are chains of one fold."""
    writer = points.writer
    type = values.type_of(writer, combine.dtype, points.lanes)

    def store() -> None:
        place = points.place(kept)
        if chunks is None:
            total = _total(writer, combine, [name for (at, _), name in names.items() if at == place])
        else:
            total = Value(Var(names[place, points.chunk], type), combine.dtype, points.lanes)
        index = [points.at.linear(i) for i in points.tile.index]
        count = None if chunks is None else points.at.guard.count
        if isinstance(target, Registers):
            value = combine.folded(load_registers(writer, target, index), total)
            store_registers(writer, target, index, value, None)
        else:
            with points.where_written():
                old = load_memory(writer, target, index, count, None, points.at.epoch)
                store_memory(writer, target, index, combine.folded(old, total), count)
        points.at.epoch += 1

    points.each(kept, store, [0] if chunks is None else chunks)


def _total(writer: Writer, combine: Combine, names: Sequence[str]) -> Value:
    """All lanes of several accumulators folded into one value, in pairs."""
    assert combine.fold is not None
    dtype, lanes = combine.dtype, writer.lanes
    type = values.type_of(writer, dtype)
    layer = [Value(Var(name, type), dtype, lanes) for name in names]
    while len(layer) > 1:
        pairs = [layer[i : i + 2] for i in range(0, len(layer), 2)]
        layer = [_pair(writer, combine, *pair) if len(pair) == 2 else pair[0] for pair in pairs]
    if lanes == 1:
        return layer[0]
    return Value(writer.let(Reduce(combine.fold.function, values.node(writer, layer[0])), "total"), dtype)


def _pair(writer: Writer, combine: Combine, a: Value, b: Value) -> Value:
    body = values.node(writer, combine.folded(a, b))
    return Value(writer.let(body, "total"), a.dtype, a.lanes)
