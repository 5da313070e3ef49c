"""Codes: what number each of the 2^b codes of an element stands for, before scales.

A code is data: integers (`Integers`), or the entries of a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType
from effcc.ir.encodings.values.base import NamedArray
from effcc.ir.encodings.values.packing import Packed
from effcc.ir.expr import Const, Expr, cast
from effcc.ir.form import call

Array = Any


class Code(ABC):
    """Numbers of the codes of `packed`, and what a scale must be for elements to be among them."""

    packed: Packed

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest magnitude of a number."""

    @abstractmethod
    def radius(self, count: int) -> float:
        """How far, in scales, an element may be from the number nearest to it, where `count` share a scale."""

    @abstractmethod
    def scale(self, blocks: Array) -> Array:
        """A scale for each block (the last axis) of elements; what is 0 throughout may have any."""

    @abstractmethod
    def nearest(self, scaled: Array, table: Array | None) -> Array:
        """The codes of the numbers nearest to elements over their scale."""

    @abstractmethod
    def numbers(self, codes: Array, table: Array | None) -> Array:
        """The numbers of codes; of PyTorch's tensors, too."""

    @abstractmethod
    def element(self, code: Expr, table: Callable[[Expr], Expr], wide: DType) -> Expr:
        """The number of a code (an i32, or a byte) as an expression of dtype `wide`."""

    def tables(self) -> tuple[NamedArray, ...]:
        """The array of numbers, where they are one: `table`, f32, an entry for each code."""
        return ()

    def fit_table(self, blocks: Array) -> Sequence[Array]:
        """The table for elements."""
        return ()


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

    def radius(self, count: int) -> float:
        return 0.5

    def scale(self, blocks: Array) -> Array:
        if self.low == -self.high:
            return _largest(blocks) / np.float32(self.high)
        most, least = blocks.max(axis=-1, initial=0), blocks.min(axis=-1, initial=0)
        upright = np.maximum(most / np.float32(self.high), least / np.float32(self.low))
        turned = np.maximum(most / np.float32(-self.low), least / np.float32(-self.high))
        return np.where(upright <= turned, upright, -turned)

    def nearest(self, scaled: Array, table: Array | None) -> Array:
        whole = np.rint(scaled)
        np.clip(whole, self.low, self.high, out=whole)
        if self.offset:
            whole += self.offset
        return whole.astype(np.int8 if self.packed.signed else np.uint8)

    def numbers(self, codes: Array, table: Array | None) -> Array:
        return codes - self.offset if self.offset else codes

    def element(self, code: Expr, table: Callable[[Expr], Expr], wide: DType) -> Expr:
        return cast(call("sub", code, Const(self.offset, code.dtype)) if self.offset else code, wide)


def _largest(blocks: Array) -> Array:
    return np.maximum(blocks.max(axis=-1, initial=0), -blocks.min(axis=-1, initial=0))
