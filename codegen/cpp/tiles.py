"""One tile statement to registers: unrolled, cut into vectors, with accumulators where an axis is folded away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from effcc.codegen.cpp import values
from effcc.codegen.cpp.accumulators import fold_away
from effcc.codegen.cpp.combine import Combine
from effcc.codegen.cpp.loads import load_memory, load_registers, store_memory, store_registers
from effcc.codegen.cpp.packed import Packed, clear_tiles, is_packed, leave_tiles
from effcc.codegen.cpp.points import Points
from effcc.codegen.cpp.rows import neighbours, store_rows
from effcc.codegen.cpp.scope import Value, Writer
from effcc.codegen.cpp.spelling import spell
from effcc.codegen.cpp.storage import Memory, Registers, Storage, TileRegisters
from effcc.errors import ScheduleError
from effcc.ir.expr import Load, loads
from effcc.ir.loops import Tile


def lower_tile(
    writer: Writer,
    storage: Mapping[str, Storage],
    in_tiles: Mapping[str, TileRegisters],
    variables: Mapping[str, str],
    tile: Tile,
) -> None:
    """Write the lines of one tile statement; `in_tiles` are the buffers in the registers of a matrix unit.

    Raises UnsupportedError for a function, combine or index that the backend has no code for.
    """
    with writer.masked():
        points = Points(writer, storage, variables, tile)
        if _is_on_unit(points, in_tiles):
            return
        target = storage[tile.buffer]
        if is_packed(tile):
            if not isinstance(target, Registers):
                raise ScheduleError(f"packed points are added up in registers, not in {tile.buffer}")
            Packed(points).accumulate(target)
            return
        combine = Combine(points, target.dtype)
        with points.loops(points.loop_axes(kept=True)):
            if points.folds_lanes:
                fold_away(points, combine, target)
            else:
                points.over_lanes(lambda chunks: _write(points, combine, target, chunks))


def _is_on_unit(points: Points, in_tiles: Mapping[str, TileRegisters]) -> bool:
    """Write the lines of a tile that clears tile registers, adds to them or leaves them; whether it is such a one."""
    tile = points.tile
    source = in_tiles.get(tile.value.buffer) if isinstance(tile.value, Load) else None
    target = in_tiles.get(tile.buffer)
    if source is not None:
        leave_tiles(points, source)
    elif target is not None and tile.combine == "set":
        clear_tiles(points.writer, target, tile)
    elif target is not None:
        Packed(points).multiply(target)
    return source is not None or target is not None


def _write(points: Points, combine: Combine, target: Storage, chunks: Sequence[int]) -> None:
    """Compute these vectors of the target: through accumulators, where memory would be folded into many times."""
    scatters = any(loads(i) for i in points.tile.index)
    if points.folded and not isinstance(target, Registers) and not scatters:
        fold_away(points, combine, target, chunks)
        return
    with points.loops(points.loop_axes(kept=False)):
        row = neighbours(points, combine, target)
        if row is not None and isinstance(target, Memory):
            store_rows(points, combine, target, row, chunks)
            return
        points.each(points.unrolled(), lambda: _assign(points, combine, target), chunks)


def _assign(points: Points, combine: Combine, target: Storage) -> None:
    """`buffer[index] combine= value` at the current point."""
    writer, at = points.writer, points.at
    index = [at.linear(i) for i in points.tile.index]
    count = at.guard.count
    if isinstance(target, Registers):
        value = combine.value() if combine.fold is None else combine.combined(load_registers(writer, target, index))
        store_registers(writer, target, index, value, _kept_lanes(points, target))
    elif combine.fold is not None and any(i.vectors for i in index):
        function, kept = combine.fold.function, at.writes_at(points.tile.index)
        spell(function, target.dtype)
        store_memory(writer, target, index, combine.value(), count, function, kept)
    elif combine.fold is not None:
        combine.value()  # its checks hold wherever it is written
        with points.where_written():
            value = combine.combined(load_memory(writer, target, index, count, None, at.epoch))
            store_memory(writer, target, index, value, count)
    else:
        value = combine.value()
        with points.where_written():
            store_memory(writer, target, index, value, count, kept=_in_lanes(at.writes_at(points.tile.index)))
    at.epoch += 1


def _in_lanes(kept: Value | None) -> Value | None:
    """A condition that differs between lanes; one that is the same in all of them stands around the store."""
    return kept if kept is not None and kept.lanes > 1 else None


def _kept_lanes(points: Points, target: Registers) -> Value | None:
    """The lanes to write, where those beyond hold values of the buffer that must stay as they are."""
    count = points.at.guard.count
    if count is None or points.lanes_axis is None:
        return None
    axis = points.axes[points.lanes_axis]
    longer = target.lane_dim is not None and target.shape[target.lane_dim] > axis.extent
    return values.first_lanes(points.writer, count) if longer or axis.limit is not None else None
