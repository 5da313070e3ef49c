"""Schedules of what is kept in spans: rows of a group, times the group's own matrix.

    T[g,j,n] = sum(k: X[j,k] * W[g,k,n])
    Y[j,n] set= T[g,j,n] for g, j in P[g]..P[g + 1], n

A task is a group and some columns: it reads a panel of W once, for all rows of the group, so tasks are even where
columns are many, however rows are spread over groups, and a group without rows costs a look at its ends. Register tiles
are rows by columns, inside a group; what is left of its rows runs row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from effcc.ir.dependences import shared_axes
from effcc.ir.dims import elements
from effcc.ir.expr import Axis, ends_at
from effcc.ir.kernel import Kernel, Statement, span_of_index
from effcc.ir.schedule import PARALLEL, SERIAL, Do, Hold, Loop, Node, Pack, Schedule
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.chunk import PRODUCT, chunk_of
from effcc.passes.tiling.pack import pack_along, packable
from effcc.target import Target

MOST_ROWS = 8
"""Rows of a register tile: what is left of a group's rows runs row by row, so that taller tiles leave more of them."""
OF_PEAK = 0.6
"""What tiles reach of the arithmetic peak, the rows left included."""


def is_grouped(kernel: Kernel) -> bool:
    """Whether a kernel writes what is in spans, and all else that it computes is read there alone."""
    *before, last = kernel.statements
    if not last.kept_spans or kernel.scans:
        return False
    own, made = tuple(Axis(a) for a in last.axes), {s.target for s in before}
    at_own_point = all(x.index == own for s in kernel.statements for x in s.reads if x.buffer in made)
    return at_own_point and all(s.scatter is None and s.axes == last.axes and not s.spans for s in before)


def group_schedule(kernel: Kernel, target: Target) -> Schedule:
    """The schedule of a kernel that `is_grouped`."""
    *before, last = kernel.statements
    lanes, rows = _lanes_axis(kernel, last), tuple(span.axis for span in last.kept_spans)
    counts = {a: max(elements((extent,)), 1) for a, extent in kernel.axes}
    for span in last.kept_spans:
        counts[span.axis] = max(counts[span.axis] // prod(counts[a] for a in ends_at(span)), 1)
    sums = [s for s in before if s.reduction is not None]
    height, width = _tile(target, last, counts.get(lanes or "", 1), len(sums))
    together = {} if lanes is None else {lanes: ("lanes", width)}
    if sums and lanes not in rows:
        together[rows[-1]] = ("unroll", height)
    cut = {a: width if a == lanes else 1 for a in shared_axes(kernel)}
    body: tuple[Node, ...] = (*_computed(kernel, before, counts), Do(last.target))
    order = [a for a in last.axes if a not in (*rows, lanes)]
    order += dict.fromkeys(a for a in (lanes, *rows) if a is not None)
    for axis in reversed(order):
        way, step = together.get(axis, ("", 1))
        if way or axis not in cut:
            body = (Loop(SERIAL, axis, step, body, way),)
    for axis in reversed([a for a in order if a in cut]):
        body = (Loop(PARALLEL, axis, cut[axis], body),)
    packs = tuple(_packs(kernel, sums, lanes, width, order))
    flops = 2.0 * prod(counts[a] for a in {*last.axes, *(r for s in sums if s.reduction for r in s.reduction.axes)})
    bytes_moved = sum(elements(p.type.shape) * p.type.dtype.bytes for p in kernel.signature)
    seconds = max(flops / (OF_PEAK * target.peak_flops), bytes_moved / target.memory_bandwidth)
    note = f"{last.target}: tiles of {height} {rows[-1]} by {width} {lanes or 'points'} in spans"
    return Schedule(body, packs, seconds, (note,))


def _computed(kernel: Kernel, before: list[Statement], counts: Mapping[str, int]) -> Iterator[Node]:
    """What is computed for the points of a tile, sums with their accumulators."""
    for s in before:
        if s.reduction is None:
            yield Do(s.target)
            continue
        inner: tuple[Node, ...] = (Do(s.target),)
        axes = s.reduction.axes
        chunk = chunk_of(kernel, [kernel.statements.index(s)], axes, counts, PRODUCT)
        inside = axes if chunk is None else axes[axes.index(chunk.axis) + (chunk.tile == 1) :]
        for axis in reversed(inside):
            inner = (Loop(SERIAL, axis, 1, inner),)
        if chunk is not None:
            inner = (Loop(SERIAL, chunk.axis, chunk.tile, (Hold((s.target,), "registers", inner),)),)
            for axis in reversed(axes[: axes.index(chunk.axis)]):
                inner = (Loop(SERIAL, axis, 1, inner),)
        yield Hold((s.target,), "registers", inner)


def _lanes_axis(kernel: Kernel, last: Statement) -> str | None:
    """The axis along which results lie in memory."""
    assert last.scatter is not None
    for index, step in zip(last.scatter.index, layouts(kernel)[last.target], strict=True):
        span = span_of_index(index)
        if step == 1 and span is not None:
            return span.axis
        if step == 1 and isinstance(index, Axis):
            return index.name
    return None


def _tile(target: Target, last: Statement, columns: int, sums: int) -> tuple[int, int]:
    """Rows and columns of a register tile: as many accumulators as fit beside a row of columns and an element."""
    lanes = max(target.vector_bytes // 4, 1)
    vectors = -(-columns // lanes)
    best = (0.0, MOST_ROWS, 1)
    for across in range(1, 5):
        rows = min(MOST_ROWS, (target.vector_registers // max(sums, 1) - across - 1) // across)
        if rows < 1:
            continue
        loads = across + rows  # for so many products: the more of them a load serves the better
        used = vectors / (-(-vectors // across) * across)
        best = max(best, (used * rows * across / loads, rows, across))
    return best[1], best[2] * lanes


def _packs(kernel: Kernel, sums: list[Statement], lanes: str | None, width: int, order: list[str]) -> Iterator[Pack]:
    """Constant operands, stored as panels of a tile's columns."""
    if lanes is None:
        return
    layout = layouts(kernel)
    for s in sums:
        assert s.reduction is not None
        for load in s.reads:
            moves = stride(load, lanes, layout[load.buffer])
            if load.buffer in kernel.weights and moves not in (0, None) and packable(kernel, load, lanes):
                yield pack_along(load, lanes, width, (*order, *s.reduction.axes))
