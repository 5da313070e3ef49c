"""Stores across a register tile: lanes whose places are far apart, and neighbours along an unrolled axis.

A product whose lanes are rows of its result (tokens, say) holds four neighbouring columns in four vectors. Stored one
by one, every element is a store of its own; transposed in registers, every row is one store of four elements, or of a
whole vector where there are as many columns as lanes.
"""

from __future__ import annotations

from collections.abc import Sequence

from effcc.codegen.cpp import loads, values
from effcc.codegen.cpp.combine import Combine
from effcc.codegen.cpp.linear import Linear, minus
from effcc.codegen.cpp.points import Points
from effcc.codegen.cpp.storage import Memory, Storage
from effcc.ir.dtypes import bf16, f32
from effcc.ir.loops import TileAxis
from effcc.ir.vectors import StoreRows

WIDTH = 4
"""So many neighbours, at least, are stored together."""
PAIR = 2
"""Neighbours that dot products of packed lanes want side by side."""
WHOLE = (8, 16)
"""Lanes of vectors of which as many are transposed as a whole."""


def neighbours(points: Points, combine: Combine, target: Storage) -> TileAxis | None:
    """The unrolled axis along which the target's elements are neighbours, where its lanes are apart; None if not so."""
    if combine.fold is not None or not isinstance(target, Memory) or target.dtype not in (f32, bf16):
        return None
    if points.lanes_axis is None or points.writer.lanes % WIDTH:
        return None
    unrolled = points.unrolled()
    for axis in unrolled:
        pair = target.dtype == bf16 and axis.extent == PAIR
        many = pair or (target.dtype == f32 and axis.extent >= WIDTH)
        if many and axis.limit is None and axis.name in points.kept:
            points.at.point.update({a.name: 0 for a in (*unrolled, points.axes[points.lanes_axis])})
            here = _place(points, target)
            points.at.point[axis.name] = 1
            next_ = _place(points, target)
            if pair and here.lane != PAIR:
                continue
            if here.lane not in (0, 1) and not here.vectors and minus(next_, here).value == 1:
                return axis
    return None


def store_rows(points: Points, combine: Combine, target: Memory, along: TileAxis, chunks: Sequence[int]) -> None:
    """Compute the tile's vectors and store them as rows of neighbours along an axis."""
    lanes = points.writer.lanes
    over = _following(points, target, along) if PAIR < along.extent < lanes else None
    others = [a for a in points.unrolled() if a is not along and a is not over]
    extent = along.extent * (over.extent if over is not None else 1)
    width = lanes if lanes in WHOLE and extent % lanes == 0 else min(extent, WIDTH)

    def move_to(position: int) -> None:
        points.at.point[along.name] = position % along.extent
        if over is not None:
            points.at.point[over.name] = position // along.extent

    def at_point() -> None:
        writer, at = points.writer, points.at
        count = at.guard.count
        for first in range(0, extent // width * width, width):
            rows = []
            for position in range(first, first + width):
                move_to(position)
                rows.append(values.in_lanes(writer, combine.value()))
            move_to(first)
            place = _place(points, target)
            where = loads.place(target, place)
            writer.add(StoreRows(where, tuple(rows), place.lane, None if count is None else values.number(count)))
        for position in range(extent // width * width, extent):  # what is left of a tile of 13, say
            move_to(position)
            index = [at.linear(i) for i in points.tile.index]
            loads.store_memory(writer, target, index, combine.value(), count)
        at.epoch += 1

    points.each(others, at_point, chunks)


def _following(points: Points, target: Memory, along: TileAxis) -> TileAxis | None:
    """The unrolled axis whose next point follows the last one of `along`: the rows of blocks, block after block."""
    unrolled = points.unrolled()
    for axis in unrolled:
        if axis is not along and axis.limit is None and axis.name in points.kept:
            points.at.point.update({a.name: 0 for a in unrolled})
            here = _place(points, target)
            points.at.point[axis.name] = 1
            next_ = _place(points, target)
            points.at.point[axis.name] = 0
            if minus(next_, here).value == along.extent:
                return axis
    return None


def _place(points: Points, target: Memory) -> Linear:
    return loads.offset(target, [points.at.linear(i) for i in points.tile.index])
