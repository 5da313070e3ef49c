"""Numbers of few bits: v = number(code) * scale, from zero points or minimums on, for any code and any scales.

    symmetric      v = q * s
    zero point     v = (q - z) * s
    minimum        v = q * s + m

q is the number of the element's code; s, z and m are shared by what `Grid` says. Products are computed in f32 (f64 for
weights in f64) and rounded to the weight's dtype once, at the end. Every named scheme is an instance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType, f64, from_numpy, i64
from effcc.ir.encodings.levels import Levels
from effcc.ir.encodings.packing import Packed
from effcc.ir.encodings.values.base import Array, IntegerForm, LoadComponent, NamedArray, Nearest, Values
from effcc.ir.encodings.values.codes import Code, Integers
from effcc.ir.encodings.values.grid import Grid
from effcc.ir.encodings.values.listed import SmallFloats
from effcc.ir.encodings.values.parameters import Exponents, Floats, Stored
from effcc.ir.encodings.values.parts import Parts, pack_integers
from effcc.ir.expr import Expr, cast
from effcc.ir.form import call


@dataclass(frozen=True)
class Coded(Values):
    """Codes times scales. `zero`: an integer zero point for each scale; `minimum`: how minimums are stored.

    searched: scales are those of smallest squared error also where nothing is said of importance.
    """

    code: Code
    grid: Grid
    scale: Stored
    zero: bool = False
    minimum: Stored | None = None
    searched: bool = False

    @property
    def integer_form(self) -> IntegerForm | None:
        if not isinstance(self.code, Integers) or not isinstance(self.scale, Floats):
            return None
        return IntegerForm(self.code, self.scale.dtype, self.zero)

    @property
    def quicker(self) -> str:
        if isinstance(self.code, Integers) and isinstance(self.scale, Exponents):
            return "bf16"  # integers of 8 bits times powers of two
        return "f16" if isinstance(self.code, SmallFloats) and not self.shares_groups else ""

    def components(self, levels: Levels, dtype: DType) -> tuple[NamedArray, ...]:
        shape = self._grid_shape(levels)
        return (
            *self.code.packed.components("values", levels.stored),
            *self.scale.components("scale", shape, dtype),
            *(Packed(self.code.packed.bits).components("zero", shape) if self.zero else ()),
            *(self.minimum.components("minimum", shape, dtype) if self.minimum else ()),
            *self.code.tables(),
        )

    def _grid_shape(self, levels: Levels) -> tuple[int, ...]:
        return self.grid.shape(rows_shape(levels))

    def _split(self, levels: Levels, arrays: Sequence[Any]) -> _Parts:
        """The arrays by role, codes left out where they are (`arrays` are parameters only)."""
        shape, dtype = self._grid_shape(levels), f64
        left = list(arrays)

        def take(count: int) -> list[Any]:
            taken, left[:] = left[:count], left[count:]
            return taken

        planes = len(self.code.packed.planes)
        return _Parts(
            take(len(self.scale.components("", shape, dtype))),
            take(planes) if self.zero else [],
            take(len(self.minimum.components("", shape, dtype))) if self.minimum else [],
            take(len(self.code.tables())),
        )

    def fit(self, levels: Levels, stored: Array, importance: Array | None = None) -> list[Array]:
        shape, dtype = self._grid_shape(levels), from_numpy(stored.dtype)
        blocks = self.grid.blocks(levels.rows(_float(stored)), None if self.minimum else 0.0)
        counts = self.grid.counts(rows_shape(levels))
        weights = None if importance is None else self.grid.blocks(_float(importance), 0.0)
        shrink = np.float32(1)
        if self.searched or weights is not None:
            shrink = self._searched(blocks, counts, weights, dtype)
        wanted = self._reaching(blocks, counts, shrink)
        if self.minimum is not None:
            return self._stored_minimum(self.minimum, wanted, shape, dtype)
        scales = self._stored_scale(wanted.scale, shape, dtype)
        found = self.scale.numbers(scales, shape)
        if self.zero:
            zero = np.clip(np.rint(_over(-self._least(blocks, shrink).reshape(shape), found)), 0, self._steps)
            return [*scales, *Packed(self.code.packed.bits).pack(zero.astype(np.int16))]
        if not self.code.tables():
            return scales
        return [*scales, *self.code.fit_table(_over(blocks, _column(found)), weights)]

    def _stored_scale(self, scale: Array, shape: tuple[int, ...], dtype: DType) -> list[Array]:
        """Scales as stored, no smaller than what the storage can hold; 1 (0 for codes without 0) where all is zero."""
        bounded = self.scale.bounded(scale.astype(np.float32), dtype, float(self.code.has_zero))
        return self.scale.store(bounded.reshape(shape), dtype)

    def _stored_minimum(self, minimum: Stored, wanted: _Numbers, shape: tuple[int, ...], dtype: DType) -> list[Array]:
        """Scales and minimums as stored; where a minimum was lowered by that, the scale reaches as much further."""
        assert wanted.minimum is not None
        least = wanted.minimum.reshape(shape)
        found = minimum.store(least, dtype)
        lowered = np.maximum(least - minimum.numbers(found, shape), 0)
        scale = wanted.scale.reshape(shape) + lowered / np.float32(self._steps)
        return [*self._stored_scale(scale, shape, dtype), *found]

    @property
    def _steps(self) -> int:
        """How many steps of a scale lie between the first and the last code."""
        return (1 << self.code.packed.bits) - 1

    def _least(self, blocks: Array, shrink: Array) -> Array:
        return blocks.min(axis=-1, initial=0) * shrink

    def _reaching(self, blocks: Array, counts: Array, shrink: Array) -> _Numbers:
        """Parameters, before they are stored, whose codes reach the given share of each block's range."""
        if self.minimum is not None:
            least, most = blocks.min(axis=-1), blocks.max(axis=-1)
            cut = (most - least) * (1 - shrink) / 2
            least, most = self.minimum.representable(least + cut), most - cut
            return _Numbers(np.maximum(most - least, 0) / np.float32(self._steps), None, least, None)
        if self.zero:
            least, most = self._least(blocks, shrink), blocks.max(axis=-1, initial=0) * shrink
            scale = (most - least) / np.float32(self._steps)
            return _Numbers(scale, np.clip(np.rint(_over(-least, scale)), 0, self._steps), None, None)
        return _Numbers(self.code.scale(blocks, counts, self.scale.signed) * shrink, None, None, None)

    def _searched(self, blocks: Array, counts: Array, weights: Array | None, dtype: DType) -> Array:
        """For each block the share of its range whose codes have the smallest (weighted) squared error.

        Of some shares, and of what least squares say for the codes of the best of them.
        """
        whole = self._reaching(blocks, counts, np.float32(1))
        scaled = _over(blocks, _column(whole.scale))
        table = self.code.fit_table(scaled, weights)[0] if self.code.tables() else None
        largest = _column(np.abs(blocks).max(axis=-1))

        def tried(share: Array) -> tuple[Array, Array]:
            """The numbers that blocks are decoded as, over their scale, and their errors."""
            by = self._reaching(blocks, counts, share)
            scales = self._stored_scale(by.scale, by.scale.shape, dtype)
            by = replace(by, scale=self.scale.numbers(scales, by.scale.shape)).each(_column)
            decoded = self._values(self._codes(blocks, replace(by, table=table)), replace(by, table=table))
            squared = np.square(_over(decoded - blocks, largest))
            return _over(decoded, by.scale), (squared if weights is None else squared * weights).sum(axis=-1)

        best = np.full(blocks.shape[:-1], self.scale.shrinks[0], np.float32)
        numbers, least = tried(best)
        for share in self.scale.shrinks[1:]:
            found, error = tried(np.full_like(best, share))
            better = error < least
            best, least = np.where(better, np.float32(share), best), np.where(better, error, least)
            numbers = np.where(_column(better), found, numbers)
        if self.zero or self.minimum is not None:
            return best
        heavy = numbers if weights is None else numbers * weights
        squares = (heavy * numbers).sum(axis=-1)
        squared_best = _over(_over((heavy * blocks).sum(axis=-1), squares), whole.scale)
        return np.where((tried(squared_best)[1] < least) & (squared_best != 0), squared_best, best)

    def round(self, levels: Levels, stored: Array, parameters: Sequence[Array]) -> list[Array]:
        rows = levels.rows(_float(stored))
        codes = self._codes(self.grid.blocks(rows), self._numbers(levels, parameters).each(_column))
        return self.code.packed.pack(levels.from_rows(self.grid.rows(codes, rows.shape)))

    def rounding(self, levels: Levels, parameters: Sequence[Array]) -> Nearest:
        every = self._numbers(levels, parameters)

        def nearest(columns: Array, start: int) -> Array:
            span = range(start, start + columns.shape[1])
            numbers = every.each(lambda p: self.grid.spread(p, span))
            return self._values(self._codes(_float(columns), numbers), numbers)

        return nearest

    def _numbers(self, levels: Levels, parameters: Sequence[Array]) -> _Numbers:
        """Parameters as floating numbers in the grid's shape."""
        parts, shape = self._split(levels, parameters), self._grid_shape(levels)
        scale = self.scale.numbers(parts.scale, shape)
        zero = Packed(self.code.packed.bits).unpack(parts.zero, shape).astype(scale.dtype) if self.zero else None
        minimum = self.minimum.numbers(parts.minimum, shape) if self.minimum else None
        return _Numbers(scale, zero, minimum, parts.tables[0] if parts.tables else None)

    def _codes(self, x: Array, by: _Numbers) -> Array:
        if by.minimum is not None:
            x = x - by.minimum
        scaled = _over(x, by.scale)
        if by.zero is not None:
            np.rint(scaled, out=scaled)
            scaled += by.zero
        return self.code.nearest(scaled, by.table)

    def _values(self, codes: Array, by: _Numbers) -> Array:
        numbers = self.code.numbers(np, codes, by.table)
        if by.zero is not None:
            numbers = numbers - by.zero
        numbers = numbers * by.scale
        return numbers if by.minimum is None else numbers + by.minimum

    def assembled(self, levels: Levels, parts: Parts) -> list[Array]:
        if (parts.zero is not None) != self.zero or (parts.minimum is not None) != (self.minimum is not None):
            raise EncodingError("zero points and minimums are given where the encoding has them, and nowhere else")
        packed, offset = self.code.packed, self.code.offset
        arrays = pack_integers(packed, parts.codes.reshape(levels.stored), offset)
        arrays += self.scale.assembled(parts.scale)
        if parts.zero is not None:
            arrays += pack_integers(Packed(packed.bits), parts.zero)
        if self.minimum is not None and parts.minimum is not None:
            arrays += self.minimum.assembled(parts.minimum)
        return arrays if parts.table is None else [*arrays, parts.table]

    def kept(
        self, dense: Levels, arrays: Sequence[Array], levels: Levels, coordinates: Sequence[Array], dtype: DType
    ) -> list[Array]:
        """Codes and parameters as they are where whole channels share them; groups are others and are encoded anew."""
        if self.grid.per == "group":
            return super().kept(dense, arrays, levels, coordinates, dtype)
        planes, packed = len(self.code.packed.planes), self.code.packed
        codes = levels.compress(packed.unpack(arrays[:planes], dense.stored), coordinates)
        return [*packed.pack(codes), *arrays[planes:]]

    def decode(self, levels: Levels, arrays: Sequence[Array], dtype: DType) -> Array:
        planes = len(self.code.packed.planes)
        rows = levels.rows(self.code.packed.unpack(arrays[:planes], levels.stored))
        numbers = self._numbers(levels, arrays[planes:]).each(_column)
        if dtype is f64:
            numbers = numbers.each(lambda p: p.astype(np.float64))
        values = self._values(self.grid.blocks(rows), numbers)
        exact = any(a.dtype == np.float64 for a in arrays)
        return levels.from_rows(self.grid.rows(values, rows.shape)).astype(np.float64 if exact else dtype.numpy)

    def element(self, levels: Levels, load: LoadComponent, place: Sequence[Expr], channel: Expr, dtype: DType) -> Expr:
        number, scale, least = self.integer_parts(levels, load, place, channel, dtype)
        value: Expr = call("mul", number, scale)
        return cast(value if least is None else call("add", value, least), dtype)

    def integer_parts(
        self, levels: Levels, load: LoadComponent, place: Sequence[Expr], channel: Expr, dtype: DType
    ) -> tuple[Expr, Expr, Expr | None]:
        wide, shape = dtype.accumulator, self._grid_shape(levels)
        index = self.grid.index(channel, levels.position(place))
        names = list(range(len(self.components(levels, dtype))))
        planes = len(self.code.packed.planes)
        parts = self._split(levels, names[planes:])
        code = self.code.packed.element(load, place, levels.stored)
        number = self.code.element(code, lambda c: load(parts.tables[0], (cast(c, i64),)), wide)
        if self.zero:
            zero = Packed(self.code.packed.bits).element(lambda i, at: load(parts.zero[i], at), index, shape)
            number = call("sub", number, cast(zero, wide))
        scale = self.scale.element(lambda i, at: load(parts.scale[i], at), index, shape, wide)
        if self.minimum is None:
            return number, scale, None
        return number, scale, self.minimum.element(lambda i, at: load(parts.minimum[i], at), index, shape, wide)

    def error_bound(self, levels: Levels, arrays: Sequence[Array]) -> Array:
        parameters = arrays[len(self.code.packed.planes) :]
        parts, shape = self._split(levels, parameters), self._grid_shape(levels)
        scale = np.abs(self.scale.numbers(parts.scale, shape).astype(np.float64))
        radius = self.code.radius(
            self.grid.largest_count(rows_shape(levels)), parts.tables[0] if parts.tables else None
        ) + (0.5 if self.zero else 0.0)
        reach = self._steps if self.zero or self.minimum else max(self.code.largest, radius)
        bound = scale * radius + reach * self.scale.slack(parts.scale, shape)
        if self.minimum is not None:
            bound = bound + self.minimum.slack(parts.minimum, shape)
        n, length = rows_shape(levels)
        return np.broadcast_to(self.grid.spread(bound, range(length)), (n, length))

    def gradients(self, xp: Any, levels: Levels, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        planes = len(self.code.packed.planes)
        rows, codes = levels.rows(upstream), levels.rows(self.code.packed.unpack(arrays[:planes], levels.stored, xp))
        parts, columns = self._split(levels, arrays[planes:]), range(rows_shape(levels)[1])
        numbers = self.code.numbers(xp, codes, parts.tables[0] if parts.tables else None)
        if self.zero:
            zero = Packed(self.code.packed.bits).unpack(parts.zero, self._grid_shape(levels), xp)
            numbers = numbers - self.grid.spread(zero, columns, xp)
        found = self.scale.gradients(xp, parts.scale, self.grid.sums(xp, rows * numbers))
        found += [None for _ in parts.zero]
        if self.minimum is not None:
            found += self.minimum.gradients(xp, parts.minimum, self.grid.sums(xp, rows))
        if parts.tables:
            scale = self.grid.spread(self.scale.numbers(parts.scale, self._grid_shape(levels), xp), columns, xp)
            weighted = rows * scale
            found.append(xp.stack([(weighted * (codes == c)).sum() for c in range(len(parts.tables[0]))], 0))
        return [*(None for _ in range(planes)), *found]

    @property
    def integers(self) -> tuple[int, int] | None:
        found = self.code.integers
        return found if found is None or not self.zero else (found[0] - self._steps, found[1])

    def separated(self, levels: Levels, arrays: Sequence[Array]) -> tuple[Array, Array, Array | None]:
        planes = len(self.code.packed.planes)
        rows = levels.rows(self.code.packed.unpack(arrays[:planes], levels.stored))
        by = self._numbers(levels, arrays[planes:])
        numbers = self.code.numbers(np, rows, by.table)
        if by.zero is not None:
            numbers = numbers - self.grid.spread(by.zero, range(rows.shape[1]))
        return numbers, by.scale, by.minimum

    @property
    def has_minimum(self) -> bool:
        return self.minimum is not None

    def blocks(self, stored: Array) -> Array | None:
        return self.grid.blocks(stored)

    def group_size(self, length: int) -> int:
        return self.grid.group if self.grid.per == "group" else length

    @property
    def shares_groups(self) -> bool:
        return self.grid.per == "group"

    @property
    def is_exact(self) -> bool:
        return False


@dataclass(frozen=True)
class _Numbers:
    """Parameters as floating numbers, of a shape that can be broadcast to that of elements; the table has its own."""

    scale: Array
    zero: Array | None
    minimum: Array | None
    table: Array | None

    def each(self, change: Callable[[Array], Array]) -> _Numbers:
        """All but the table changed."""
        zero, minimum = (None if p is None else change(p) for p in (self.zero, self.minimum))
        return _Numbers(change(self.scale), zero, minimum, self.table)


@dataclass(frozen=True)
class _Parts:
    """Parameters (or their numbers) by role."""

    scale: list[Any]
    zero: list[Any]
    minimum: list[Any]
    tables: list[Any]


def rows_shape(levels: Levels) -> tuple[int, int]:
    """The shape of `levels.rows`: channels, and stored elements of each."""
    return levels.shape[0], levels.row_length


def _column(parameters: Array) -> Array:
    return parameters[..., None]


def _over(x: Array, scale: Array) -> Array:
    """Elements over their scales; 0 where the scale is."""
    nonzero = scale != 0
    return x / scale if nonzero.all() else np.divide(x, scale, out=np.zeros_like(x), where=nonzero)


def _float(stored: Array) -> Array:
    return stored if stored.dtype == np.float32 else stored.astype(np.float32)
