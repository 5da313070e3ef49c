"""What a register tile's sums ask for early: the lines that follow at the same points, and the next tile's rows.

A product of 14 rows and 32 columns with 64 steps takes 900 cycles, and then reads a residual and writes a result of 28
lines each, which lie in short runs far apart: the hardware foresees none of them. Asked for row by row, some steps
after each, they arrive meanwhile; asked for all at once, they would wait for each other. The same goes for the next
tile's rows, where they follow on those of this one. Measured on short products in ResNet-50: 5 to 20 % less time. The
steps themselves have no room to find out which row is due: with AVX2 six instructions beside 10 or 12 sums made them
take 1.12 to 1.25 times as long, so the loop is cut where a row is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from effcc.codegen.cpp.linear import LANE, Known, Linear, minus, of_atom, plus, shifted, times, uniform
from effcc.codegen.cpp.loads import offset, place
from effcc.codegen.cpp.points import Points
from effcc.codegen.cpp.scope import Writer
from effcc.codegen.cpp.storage import Memory, Registers, Storage
from effcc.codegen.cpp.values import number
from effcc.ir.expr import Load, free_axes, loads
from effcc.ir.loops import For, Stmt, Tile
from effcc.ir.vectors import INDEX, Call, Loop, Prefetch

LINE = 64
"""Bytes of a cache line."""
SEVERAL = 8
"""Lines asked for at once, at most: as many more would wait for each other."""
SHORT = 32
"""A sum of fewer steps is over before anything arrives, and what asks costs more (16 and 24 steps: 2 to 7 % slower)."""
NEAR = 4
"""A buffer of less than this part of L2 is likely there."""
APART, PANELS = 16, 4
"""Of more than this part of L2 other threads have left theirs in caches of their own, from where lines come as late
as from L3: the rows of a product of at most so many panels of columns are asked for nevertheless. More panels read the
same rows again and again, from L2. Measured with two threads on 1x1 convolutions of 14x14 pixels: 0.7 to 0.9 of the
time."""


@dataclass(frozen=True)
class _Rows:
    """What a tile touches of a buffer: `width` bytes from an offset on, in each of `count` rows `stride` apart."""

    storage: Memory
    first: Linear
    count: int
    stride: int
    width: int


def ask_for_next_rows(writer: Writer, storage: Mapping[str, Storage], variables: Mapping[str, str], loop: For) -> None:
    """At the begin of a turn of `loop`, which sums into registers: ask for a piece of the next tile's rows. Nothing
    where the loop is no such sum, or too short for its rows."""
    steps = _steps(writer, storage, variables, loop)
    if steps is not None:
        for tile in _sums(loop, storage):
            _next_rows(writer, storage, variables, tile, variables[loop.axis], steps)


def ask_row_by_row(
    writer: Writer, storage: Mapping[str, Storage], variables: Mapping[str, str], loop: For, later: Sequence[Stmt]
) -> None:
    """Cut `loop`, which sums into registers and was written last, into a piece for each row that `later` statements
    touch, and ask for the row before its piece. Nothing where the loop is no such sum, or too short for its rows."""
    steps = _steps(writer, storage, variables, loop)
    if steps is None:
        return
    touched: dict[tuple[str, Linear], _Rows] = {}
    for tile in _straight(later):
        for load in _touched(tile, storage):
            rows = _rows(writer, storage, variables, tile, load)
            if rows is not None and rows.count <= steps and is_far(writer, rows.storage):
                touched.setdefault((rows.storage.pointer, rows.first), rows)
    lines = sum(-(-r.width // LINE) for r in touched.values())
    if 0 < lines <= SEVERAL:
        _cut(writer, list(touched.values()), steps)


def _sums(loop: For, storage: Mapping[str, Storage]) -> list[Tile]:
    """The loop's tiles, if it does nothing but sum into registers."""
    sums = [s for s in loop.body if isinstance(s, Tile)]
    if len(sums) != len(loop.body) or not all(isinstance(storage.get(s.buffer), Registers) for s in sums):
        return []
    return sums


def _steps(writer: Writer, storage: Mapping[str, Storage], variables: Mapping[str, str], loop: For) -> int | None:
    """How many steps a sum into registers has; None where the loop is no such sum, or one that is soon over."""
    known = writer.known[variables[loop.axis]]
    if not _sums(loop, storage) or known.low != 0 or known.high is None or known.modulus != 1:
        return None
    return known.high + 1 if known.high + 1 >= SHORT else None


def _straight(later: Sequence[Stmt]) -> Iterator[Tile]:
    """The tiles that come next without another loop or branch."""
    for s in later:
        if isinstance(s, Tile):
            yield s
        elif isinstance(s, For):
            return


def _touched(tile: Tile, storage: Mapping[str, Storage]) -> Iterator[Load]:
    """What a tile reads and writes in memory at places that no data decide."""
    own = Load(tile.buffer, tile.index, tile.value.dtype)
    for load in (*loads(tile.value), own):
        memory = storage.get(load.buffer)
        if isinstance(memory, Memory) and not memory.local and not any(loads(i) for i in load.index):
            yield load


def _rows(
    writer: Writer, storage: Mapping[str, Storage], variables: Mapping[str, str], tile: Tile, load: Load
) -> _Rows | None:
    """The rows that a tile touches through one load; None where they are no rows of neighbours evenly apart."""
    memory = storage[load.buffer]
    assert isinstance(memory, Memory)
    points = Points(writer, storage, variables, tile)
    unrolled = [a for a in tile.axes if a.kind == "unroll"]
    if points.lanes_axis is None or len(unrolled) + 1 != len(tile.axes) or any(a.limit for a in tile.axes):
        return None

    def at(*place: int) -> Linear:
        points.at.point.update({a.name: p for a, p in zip(unrolled, place, strict=True)})
        points.at.point[str(points.lanes_axis)] = 0
        points.at.moved()
        return offset(memory, [points.at.linear(i) for i in load.index])

    zero = (0,) * len(unrolled)
    first = at(*zero)
    strides = [minus(at(*zero[:n], 1, *zero[n + 1 :]), first).value for n in range(len(unrolled))]
    stride = _even(strides, [a.extent for a in unrolled])
    if first.lane != 1 or first.vectors or not stride:
        return None
    base = Linear(tuple(t for t in first.terms if t[0] != LANE), first.constant)
    width = points.axes[points.lanes_axis].extent * memory.dtype.bytes
    return _Rows(memory, base, prod(a.extent for a in unrolled), stride, width)


def _even(strides: Sequence[int | None], extents: Sequence[int]) -> int | None:
    """The distance of rows along unrolled axes, the last of which runs fastest, if it is the same for all."""
    if not strides or strides[-1] is None:
        return None
    step = strides[-1]
    for n in range(len(strides) - 1):
        if strides[n] != step * prod(extents[n + 1 :]):
            return None
    return step


def is_far(writer: Writer, storage: Memory, part: int = NEAR) -> bool:
    """Whether a buffer is larger than a part of L2, so that it has left it since it was read."""
    size = _size(storage)
    return size is not None and size * storage.dtype.bytes * part >= writer.l2_bytes


def _size(storage: Memory) -> int | None:
    """Elements of a buffer; None where that is known at run time only."""
    sizes = [n for n in storage.shape if isinstance(n, int)]
    return prod(sizes) if len(sizes) == len(storage.shape) else None


def _cut(writer: Writer, touched: Sequence[_Rows], steps: int) -> None:
    """The loop written last, in as many pieces as the most rows; before each, all lines of a row of each buffer."""
    loop = writer.scope.lines[-1]
    if not isinstance(loop, Loop):
        return
    writer.scope.lines.pop()
    pieces = max(r.count for r in touched)
    each = -(-steps // pieces)
    row = writer.names.fresh("row")
    writer.known[row] = Known(0, pieces - 1)
    with writer.block() as lines:
        for rows in touched:
            start = plus(rows.first, times(of_atom(row), rows.stride))
            for byte in range(0, rows.width, LINE):
                writer.add(Prefetch(place(rows.storage, shifted(start, byte // rows.storage.dtype.bytes))))
        begin, end = times(of_atom(row), each), shifted(times(of_atom(row), each), each)
        until = uniform(end) if each * pieces == steps else Call("minimum", (uniform(end), number(steps)), INDEX)
        writer.add(replace(loop, start=uniform(begin), stop=writer.let(until, "until")))
    writer.add(Loop(row, number(0), number(pieces), 1, tuple(lines)))


def _next_rows(
    writer: Writer, storage: Mapping[str, Storage], variables: Mapping[str, str], tile: Tile, loop: str, steps: int
) -> None:
    """A piece of the rows that the next turn of the loop outside reads, if those follow on this turn's in memory."""
    points = Points(writer, storage, variables, tile)
    unrolled = [a for a in tile.axes if a.kind == "unroll"]
    if len(unrolled) != 1 or len(writer.loops) < 2 or unrolled[0].limit is not None:
        return
    (axis,) = unrolled
    outside = writer.loops[-2]
    columns = [x for x in loads(tile.value) if any(points.lanes_axis in free_axes(i) for i in x.index)]
    panel = steps * next((a.extent for a in tile.axes if a.name == points.lanes_axis), 1)
    few = all(_panels(storage.get(x.buffer), panel) <= PANELS for x in columns)
    for load in loads(tile.value):
        memory = storage.get(load.buffer)
        if not isinstance(memory, Memory) or memory.local or not is_far(writer, memory, APART if few else NEAR):
            continue
        if any(loads(i) for i in load.index) or points.lanes_axis in frozenset().union(*map(free_axes, load.index)):
            continue
        points.at.point[axis.name] = 0
        points.at.moved()
        start = offset(memory, [points.at.linear(i) for i in load.index])
        moves = dict(start.terms)
        block = axis.extent * steps  # elements of one turn's rows
        along = moves.get(outside, 0)
        if moves.get(loop) != 1 or along * writer.known[outside].modulus != block or along != steps:
            continue
        if axis.extent * memory.dtype.bytes <= LINE:
            ahead = plus(start, times(of_atom(loop), axis.extent - 1))
            writer.add(Prefetch(place(memory, shifted(ahead, block))))


def _panels(storage: Storage | None, panel: int) -> float:
    """How many panels of so many elements a factor's buffer holds."""
    size = _size(storage) if isinstance(storage, Memory) else None
    return math.inf if size is None else size / panel
