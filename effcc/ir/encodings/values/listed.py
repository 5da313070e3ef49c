"""Codes whose numbers do not lie at equal distances: small floats, powers of two, tables. Rounding looks them up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType, f32, i32
from effcc.ir.encodings.packing import Packed
from effcc.ir.encodings.values.base import NamedArray
from effcc.ir.encodings.values.codes import Code, floating, reaching
from effcc.ir.expr import Const, Expr, cast, where
from effcc.ir.form import call

Array = Any
CLUSTERED = 1 << 16
"""How many elements of a weight a table is learned from."""
ROUNDS = 25
PIECE = 1 << 15


class Listed(Code):
    """Codes with a list of numbers, f32[2^bits]."""

    @abstractmethod
    def listed(self, table: Array | None) -> Array:
        """The number of each code."""

    @property
    def largest(self) -> float:
        return float(np.abs(_finite(self.listed(None))).max())

    def radius(self, count: int, table: Array | None) -> float:
        return float(np.diff(np.unique(_finite(self.listed(table)))).max(initial=0)) / 2

    def scale(self, blocks: Array, counts: Array, signed: bool) -> Array:
        numbers = _finite(self.listed(None))
        return reaching(blocks, float(numbers.min()), float(numbers.max()), signed)

    def nearest(self, scaled: Array, table: Array | None) -> Array:
        """Counts the midpoints between neighbours that an element exceeds, a piece that stays in cache at a time."""
        numbers = self.listed(table)
        order = np.argsort(numbers, kind="stable").astype(np.uint8)
        between = numbers[order[:-1]] + np.diff(numbers[order]) / np.float32(2)
        flat, ranks = scaled.reshape(-1), np.zeros(scaled.size, np.uint8)
        for start in range(0, len(flat), PIECE):
            piece, rank = flat[start : start + PIECE], ranks[start : start + PIECE]
            for middle in between:
                rank += piece > middle
        return order[ranks].reshape(scaled.shape)

    def numbers(self, xp: Any, codes: Array, table: Array | None) -> Array:
        listed = self.listed(None) if table is None else table
        return listed[codes] if xp is np else xp.asarray(listed)[codes.long()]


@dataclass(frozen=True)
class SmallFloats(Listed):
    """IEEE-like floats: a sign, `exponent` bits with the given bias, `mantissa` bits; also subnormal ones.

    dtype: what NumPy calls them.
    special: what the largest exponent means: "ieee" (infinity, or NaN where the mantissa is not 0), "nan" (NaN where
        all bits are set, a number else), "none" (numbers).
    """

    exponent: int
    mantissa: int
    bias: int
    dtype: Any
    special: str = "none"

    @property
    def packed(self) -> Packed:  # type: ignore[override]
        return Packed(1 + self.exponent + self.mantissa)

    def listed(self, table: Array | None) -> Array:
        codes = np.arange(1 << self.packed.bits)
        magnitude = codes & ((1 << (self.exponent + self.mantissa)) - 1)
        exponent, mantissa = magnitude >> self.mantissa, magnitude & ((1 << self.mantissa) - 1)
        whole = np.where(exponent > 0, mantissa + (1 << self.mantissa), mantissa)
        numbers = np.ldexp(whole.astype(np.float64), np.maximum(exponent, 1) - self.bias - self.mantissa)
        highest = exponent == (1 << self.exponent) - 1
        if self.special == "ieee":
            numbers = np.where(highest, np.where(mantissa > 0, np.nan, np.inf), numbers)
        elif self.special == "nan":
            numbers = np.where(highest & (mantissa == (1 << self.mantissa) - 1), np.nan, numbers)
        return np.where(codes >> (self.packed.bits - 1), -numbers, numbers).astype(np.float32)

    def nearest(self, scaled: Array, table: Array | None) -> Array:
        within = np.clip(scaled, -np.float32(self.largest), np.float32(self.largest))
        return within.astype(self.dtype).view(np.uint8)

    def element(self, code: Expr, table: Callable[[Expr], Expr], wide: DType) -> Expr:
        """(1 + m) 2^e as an integer shifted by e, in two steps where that leaves 31 bits, times the smallest number."""

        def at(value: int) -> Expr:
            return Const(value, i32)

        code, bits, ones = cast(code, i32), self.exponent + self.mantissa, (1 << self.mantissa) - 1
        exponent = call("and", call("shr", code, at(self.mantissa)), at((1 << self.exponent) - 1))
        mantissa = call("and", code, at(ones))
        normal = call("gt", exponent, at(0))
        whole = call("or", mantissa, where(normal, at(1 << self.mantissa), at(0)))
        shift = call("sub", exponent, where(normal, at(1), at(0)))
        if self.exponent < 5:
            size = cast(call("shl", whole, shift), wide)
        else:
            size = cast(call("shl", whole, call("and", shift, at(15))), wide)
            size = call("mul", size, where(call("gt", shift, at(15)), Const(65536.0, wide), Const(1.0, wide)))
        size = call("mul", size, Const(2.0 ** (1 - self.bias - self.mantissa), wide))
        highest = call("eq", exponent, at((1 << self.exponent) - 1))
        if self.special == "ieee":
            infinite = where(call("gt", mantissa, at(0)), Const(float("nan"), wide), Const(float("inf"), wide))
            size = where(highest, infinite, size)
        elif self.special == "nan":
            every = call("eq", call("and", code, at((1 << bits) - 1)), at((1 << bits) - 1))
            size = where(every, Const(float("nan"), wide), size)
        negative = call("gt", call("and", code, at(1 << bits)), at(0))
        return where(negative, call("neg", size), size)


@dataclass(frozen=True)
class Powers(Listed):
    """0 and powers of two, with a sign: code p of the low bits is 2^(p-1), 0 where p is 0 (a product is a shift)."""

    bits: int

    @property
    def packed(self) -> Packed:  # type: ignore[override]
        return Packed(self.bits)

    @property
    def integers(self) -> tuple[int, int]:
        return -int(self.largest), int(self.largest)

    def listed(self, table: Array | None) -> Array:
        codes = np.arange(1 << self.bits)
        half = 1 << (self.bits - 1)
        magnitude = (np.int64(1) << (codes % half)) >> 1
        return np.where(codes >= half, -magnitude, magnitude).astype(np.float32)

    def element(self, code: Expr, table: Callable[[Expr], Expr], wide: DType) -> Expr:
        code, half = cast(code, i32), 1 << (self.bits - 1)
        power = call("and", code, Const(half - 1, i32))
        size = call("shr", call("shl", Const(1, i32), power), Const(1, i32))
        negative = call("gt", call("and", code, Const(half, i32)), Const(0, i32))
        return cast(where(negative, call("neg", size), size), wide)


@dataclass(frozen=True)
class Table(Listed):
    """The entries of a component `table`, f32[2^bits]: known ones, which it begins with, or learned.

    Learned ones minimize the squared error of a sample of scaled elements (Lloyd's iterations), in -1..1.
    """

    bits: int
    entries: tuple[float, ...] | None

    @property
    def packed(self) -> Packed:  # type: ignore[override]
        return Packed(self.bits)

    @cached_property
    def _known(self) -> Array:
        return np.asarray((-1.0, 1.0) if self.entries is None else self.entries, np.float32)

    @property
    def has_zero(self) -> bool:
        return self.entries is not None and 0.0 in self.entries

    def tables(self) -> tuple[NamedArray, ...]:
        return (("table", f32, (1 << self.bits,)),)

    def listed(self, table: Array | None) -> Array:
        return self._known if table is None else table

    def radius(self, count: int, table: Array | None) -> float:
        assert table is not None
        numbers = np.unique(table)
        ends = (float(self._known.max()) - numbers[-1], numbers[0] - float(self._known.min()))
        return max(super().radius(count, table), *ends)

    def fit_table(self, scaled: Array, importance: Array | None) -> list[Array]:
        if self.entries is not None:
            return [self._known]
        step = -(-scaled.size // CLUSTERED)
        weights = np.ones_like(scaled) if importance is None else importance
        return [_clusters(scaled.reshape(-1)[::step], weights.reshape(-1)[::step], 1 << self.bits)]

    def numbers(self, xp: Any, codes: Array, table: Array | None) -> Array:
        assert table is not None
        return (floating(xp, table))[codes if xp is np else codes.long()]

    def element(self, code: Expr, table: Callable[[Expr], Expr], wide: DType) -> Expr:
        return cast(table(code), wide)


def _clusters(elements: Array, weights: Array, count: int) -> Array:
    """`count` numbers that elements are near to: k-means in one dimension, from equal shares of the elements on."""
    order = np.argsort(elements, kind="stable")
    sorted_, heavy = elements[order].astype(np.float64), weights[order].astype(np.float64)
    mass = np.concatenate([[0.0], np.cumsum(heavy)])
    moment = np.concatenate([[0.0], np.cumsum(heavy * sorted_)])
    centers = np.quantile(sorted_, (np.arange(count) + 0.5) / count)
    for _ in range(ROUNDS):
        edges = np.concatenate([[0], np.searchsorted(sorted_, (centers[1:] + centers[:-1]) / 2), [len(sorted_)]])
        total = mass[edges[1:]] - mass[edges[:-1]]
        sums = moment[edges[1:]] - moment[edges[:-1]]
        centers = np.sort(np.divide(sums, total, out=centers.copy(), where=total > 0))
    return centers.astype(np.float32)


def _finite(numbers: Array) -> Array:
    return numbers[np.isfinite(numbers)]
