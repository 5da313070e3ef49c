"""Compressed rows, `csr` and `bcsr(r,c)`, stored anew in another order: slab by slab, or each row as a whole.

Products of many rows gather what stays in the nearest cache where a slab's elements stand before the next one's; a
product of one row loses where each row is in pieces. Which order a program reads is thus the choice of its predicted
times, whatever order a weight came in, and weights are stored in it once, before the first call:

    decode(starts, columns, values) <csr>   =   decode(starts', columns', values') <csr(slab=256)>

Block p, of row r and slab s, moves to where its segment begins, behind those of its row that are in the same slab:

    p'         =  p - starts[r] - sum(t < s: count[t,r]) + starts'[s,r]              from rows to slabs
    p'         =  p - starts[s,r] + sum(t < s: count[t,r]) + starts'[r]              from slabs to rows

Columns are those of the matrix, so that a product is the same in any order. Rows must list slabs in their order, as
encoding leaves them: where a row does not, all blocks stay in the order in which they are, as those of the first slab.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from effcc.ir.dtypes import i32, i64
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import Storage, stored_as
from effcc.ir.encodings.levels.base import Listed
from effcc.ir.graph import Node, Value
from effcc.passes.writer import Writer
from effcc.target import Target

ROWS_IN_LANES = 64
"""Rows of activations that a task gathers side by side (`effcc.passes.tiling.gathered`)."""
_FEWEST = 16
"""Of so many blocks half fill fewer bytes, however many bits each has."""


def other_orders(stored: Storage, many_rows: bool, target: Target) -> Iterator[Storage]:
    """The same weight in orders that may be quicker to read: slabs whose gathered rows take L1, or twice as much, for
    products of many rows; whole rows where it is stored in slabs."""
    levels = stored.levels.listed
    if levels is None or _of_blocks(stored) is None:
        return
    if levels.slab is not None:
        yield _ordered(stored, None)
    elif many_rows:
        columns = target.l1_bytes // (ROWS_IN_LANES * stored.dtype.bytes) // levels.width * levels.width
        for slab in (columns, 2 * columns):
            if 0 < slab < levels.shape[1]:
                yield _ordered(stored, slab)


def store_in_order(writer: Writer, node: Node, stored: Storage, wanted: Storage) -> tuple[Value, ...]:
    """The components of the weight that `node` decodes, in the order that `wanted` has."""
    levels, ordered = stored.levels.listed, wanted.levels.listed
    assert levels is not None and ordered is not None
    starts, columns, *values = node.operands
    order, begins = _Order(writer, levels, ordered).of(starts, columns)

    def moved(value: Value) -> Value:
        return writer.emit("index_select", value, order, name=value.name, axis=0)

    of_blocks = _of_blocks(stored)
    assert of_blocks is not None
    parts = (moved(v) if moves else v for v, moves in zip(values, of_blocks, strict=True))
    return (writer.emit("cast", begins, name=starts.name, dtype=i32), moved(columns), *parts)


class _Order:
    """Where blocks go: integers are i64, and N is the number of rows of blocks."""

    def __init__(self, writer: Writer, levels: Listed, wanted: Listed) -> None:
        self.writer, self.levels, self.wanted = writer, levels, wanted
        self.count, self.rows = levels.total, levels.height_in_blocks

    def of(self, starts: Value, columns: Value) -> tuple[Value, Value]:
        """Which block stands at each new place, and where new segments begin."""
        low, high = self.number(0), self.number(self.count)
        old = self.emit("minimum", self.emit("maximum", self.wide(starts), low), high)
        segment = self._segments(old)
        row = self.emit("mod", segment, self.number(self.rows))
        slab = self._slabs(columns, row) if self.wanted.slab is not None else None
        source = segment if slab is None else self.plus(self.emit("mul", slab, self.number(self.rows)), row)
        slabs = (self.levels if slab is None else self.wanted).slabs
        counts = self._counted(source, slabs * self.rows)
        table = self.emit("reshape", counts, shape=(slabs, self.rows))
        before = self.emit("sub", self.emit("cumsum", table, axis=0), table)
        if slab is None:
            begins = self._begins(self.emit("sum", table, axes=(0,), keepdim=False))
            shift = self.plus(before, self._first(begins, self.rows))
            begun = self.emit("reshape", self._first(old, slabs * self.rows), shape=(slabs, self.rows))
        else:
            begins = self._begins(counts)
            shift = self.emit("reshape", self._first(begins, slabs * self.rows), shape=(slabs, self.rows))
            begun = self.plus(before, self._first(old, self.rows))
        shift = self.emit("reshape", self.emit("sub", shift, begun), shape=(slabs * self.rows,))
        number = self.emit("iota", size=self.count)
        place = self.plus(number, self.emit("index_select", shift, source, axis=0))
        place = self.emit("minimum", self.emit("maximum", place, low), self.number(self.count - 1))
        return self.emit("scatter", self.zeros(self.count), place, number, axis=0), begins

    def _segments(self, starts: Value) -> Value:
        """The segment that each block is in: how many begin at or before it, less one."""
        inner = self.emit("slice", starts, axis=0, start=1, end=starts.type.shape[0] - 1)
        if inner.type.shape[0] == 0:
            return self.zeros(self.count)
        marks = self._counted(inner, self.count + 1)
        return self._first(self.emit("cumsum", marks, axis=0), self.count)

    def _slabs(self, columns: Value, row: Value) -> Value:
        """The slab of each block; 0 for all where a row does not list slabs in their order."""
        most = self.number(self.levels.shape[1] // self.levels.width - 1)
        inside = self.emit("minimum", self.emit("maximum", self.wide(columns), self.number(0)), most)
        slab = self.emit("floordiv", inside, self.number(self.wanted.across))
        if self.count == 1:
            return slab
        ends = [(0, self.count - 1), (1, self.count)]
        (s, t), (r, u) = ([self.emit("slice", v, axis=0, start=a, end=b) for a, b in ends] for v in (slab, row))
        falls = self.emit("and", self.emit("lt", t, s), self.emit("eq", r, u))
        ordered = self.emit("not", self.emit("any", falls, axes=(0,), keepdim=False))
        return self.emit("mul", slab, self.wide(ordered))

    def _counted(self, numbers: Value, below: int) -> Value:
        """How often each of the first integers is among `numbers`."""
        (size,) = numbers.type.shape
        ones = self.emit("full", shape=(size,), value=1, dtype=i64)
        return self.emit("scatter", self.zeros(below), numbers, ones, axis=0, combine="add")

    def _begins(self, counts: Value) -> Value:
        return self.emit("concat", self.zeros(1), self.emit("cumsum", counts, axis=0), axis=0)

    def _first(self, value: Value, count: int) -> Value:
        return self.emit("slice", value, axis=0, start=0, end=count)

    def emit(self, op: str, *operands: Value, **attrs: object) -> Value:
        return self.writer.emit(op, *operands, name="order", **attrs)  # type: ignore[arg-type]

    def plus(self, a: Value, b: Value) -> Value:
        return self.emit("add", a, b)

    def wide(self, value: Value) -> Value:
        return self.emit("cast", value, dtype=i64)

    def number(self, value: int) -> Value:
        return self.emit("constant", value=value, dtype=i64, shape=())

    def zeros(self, count: int) -> Value:
        return self.emit("full", shape=(count,), value=0, dtype=i64)


def _ordered(stored: Storage, slab: int | None) -> Storage:
    """The same weight with its blocks in slabs of so many columns, or in none."""
    (chain,) = stored.encoding.terms
    level, *rest = chain
    given = tuple((k, v) for k, v in level.options if k != "slab")
    level = replace(level, options=given if slab is None else (*given, ("slab", slab)))
    shapes = [c.type.shape for c in stored.components]
    return stored_as(Encoding(((level, *rest),)), stored.shape, stored.dtype, shapes)


def _of_blocks(stored: Storage) -> tuple[bool, ...] | None:
    """Of each array of values, whether it holds stored blocks, one after the other, or is the same for any number of
    them; None where one is neither, as codes that share bytes are."""
    levels = stored.levels.listed
    if levels is None or stored.values.terms or levels.total < _FEWEST:
        return None
    fewer = levels.of_total(levels.total // 2)
    found = []
    for (*_, shape), (*_, other) in zip(
        *(stored.values.components(one, stored.dtype) for one in (stored.levels, fewer)), strict=True
    ):
        if shape != other and shape != levels.stored:
            return None
        found.append(shape != other)
    return tuple(found)
