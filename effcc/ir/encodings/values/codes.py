"""Codes: what number each of the 2^b codes of an element stands for, before scales. Integers and signs are computed;
`listed.py` has those whose numbers can only be listed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType
from effcc.ir.encodings.packing import Packed
from effcc.ir.encodings.values.base import NamedArray
from effcc.ir.expr import Const, Expr, cast
from effcc.ir.form import call

Array = Any


class Code(ABC):
    """Numbers of the codes of `packed`, and what a scale must be for elements to be among them.

    `table` is the array of numbers of codes whose numbers are data (`Table`), else None.
    """

    packed: Packed

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest magnitude of a number."""

    @property
    def offset(self) -> int:
        """What a stored code is more than the integer that it stands for."""
        return 0

    @property
    def has_zero(self) -> bool:
        """Whether 0 is among the numbers; where it is not, elements that are all 0 get a scale of 0."""
        return True

    @property
    def integers(self) -> tuple[int, int] | None:
        """The least and the largest number, where all of them are integers whatever the data say."""
        return None

    @abstractmethod
    def radius(self, count: int, table: Array | None) -> float:
        """How far, in scales, an element may be from the number nearest to it, where `count` share a scale."""

    @abstractmethod
    def scale(self, blocks: Array, counts: Array, signed: bool) -> Array:
        """A scale for each block (the last axis) of elements, of which the first `counts` are real and others 0.

        What is 0 throughout may have any. signed: whether it may be negative.
        """

    @abstractmethod
    def nearest(self, scaled: Array, table: Array | None) -> Array:
        """The codes of the numbers nearest to elements over their scale."""

    @abstractmethod
    def numbers(self, xp: Any, codes: Array, table: Array | None) -> Array:
        """The numbers of codes, as floating numbers of the library `xp` (numpy or torch)."""

    @abstractmethod
    def element(self, code: Expr, table: Callable[[Expr], Expr], wide: DType) -> Expr:
        """The number of a code (an i32, or a byte) as an expression of dtype `wide`."""

    def tables(self) -> tuple[NamedArray, ...]:
        """The array of numbers, where they are one: `table`, f32, an entry for each code."""
        return ()

    def fit_table(self, scaled: Array, importance: Array | None) -> list[Array]:
        """The table for elements over their scales."""
        return []


def reaching(blocks: Array, low: float, high: float, signed: bool) -> Array:
    """The scale of smallest magnitude by which no element of a block leaves low..high; `signed`: or negative."""
    most, least = blocks.max(axis=-1, initial=0), blocks.min(axis=-1, initial=0)
    upright = np.maximum(most / np.float32(high), least / np.float32(low))
    if low == -high or not signed:
        return upright
    turned = np.maximum(most / np.float32(-low), least / np.float32(-high))
    return np.where(upright <= turned, upright, -turned)


@dataclass(frozen=True)
class Integers(Code):
    """Integers `low` to `high`, stored as they are (whole signed bytes) or as their distance from -2^(bits-1) or 0."""

    bits: int
    low: int
    high: int

    @classmethod
    def symmetric(cls, bits: int) -> Integers:
        """Bytes are -127..127; fewer bits use all their codes, the lowest for the side of larger magnitude."""
        half = 1 << (bits - 1)
        return cls(bits, 1 - half if bits == 8 else -half, half - 1)

    @classmethod
    def balanced(cls, bits: int) -> Integers:
        """As many below 0 as above, whose scale is positive."""
        half = 1 << (bits - 1)
        return cls(bits, 1 - half, half - 1)

    @classmethod
    def unsigned(cls, bits: int) -> Integers:
        return cls(bits, 0, (1 << bits) - 1)

    @property
    def packed(self) -> Packed:  # type: ignore[override]
        return Packed(self.bits, self.low < 0 and self.bits == 8)

    @property
    def offset(self) -> int:
        return 1 << (self.bits - 1) if self.low < 0 and self.bits < 8 else 0

    @property
    def largest(self) -> float:
        return float(max(-self.low, self.high))

    @property
    def integers(self) -> tuple[int, int]:
        if self.packed.signed:
            return -128, 127  # which a byte may hold that others wrote
        return -self.offset, (1 << self.bits) - 1 - self.offset

    def radius(self, count: int, table: Array | None) -> float:
        return 0.5

    def scale(self, blocks: Array, counts: Array, signed: bool) -> Array:
        return reaching(blocks, self.low, self.high, signed)

    def nearest(self, scaled: Array, table: Array | None) -> Array:
        whole = np.rint(scaled)
        np.clip(whole, self.low, self.high, out=whole)
        if self.offset:
            whole += self.offset
        return whole.astype(np.int8 if self.packed.signed else np.uint8)

    def numbers(self, xp: Any, codes: Array, table: Array | None) -> Array:
        return floating(xp, codes) - self.offset if self.offset else floating(xp, codes)

    def element(self, code: Expr, table: Callable[[Expr], Expr], wide: DType) -> Expr:
        return cast(call("sub", code, Const(self.offset, code.dtype)) if self.offset else code, wide)


@dataclass(frozen=True)
class Trits(Integers):
    """-1, 0 and 1. The scale is the mean magnitude (BitNet b1.58, arXiv:2402.17764), so that the larger half stays."""

    def radius(self, count: int, table: Array | None) -> float:
        return float(count)

    def scale(self, blocks: Array, counts: Array, signed: bool) -> Array:
        return np.abs(blocks).sum(axis=-1) / counts.astype(np.float32)


@dataclass(frozen=True)
class Signs(Code):
    """-1 and 1 as one bit. The scale is the mean magnitude, which has the least squared error (XNOR-Net)."""

    packed = Packed(1)

    @property
    def largest(self) -> float:
        return 1.0

    @property
    def integers(self) -> tuple[int, int]:
        return -1, 1

    @property
    def has_zero(self) -> bool:
        return False

    def radius(self, count: int, table: Array | None) -> float:
        return float(count)

    def scale(self, blocks: Array, counts: Array, signed: bool) -> Array:
        return np.abs(blocks).sum(axis=-1) / counts.astype(np.float32)

    def nearest(self, scaled: Array, table: Array | None) -> Array:
        return (scaled >= 0).astype(np.uint8)

    def numbers(self, xp: Any, codes: Array, table: Array | None) -> Array:
        return 2.0 * floating(xp, codes) - 1.0

    def element(self, code: Expr, table: Callable[[Expr], Expr], wide: DType) -> Expr:
        twice = call("shl", code, Const(1, code.dtype))
        return cast(call("sub", twice, Const(1, code.dtype)), wide)


def floating(xp: Any, codes: Array) -> Array:
    """Codes as floating numbers: f32."""
    return codes.astype(np.float32) if xp is np else codes.to(xp.float32)
