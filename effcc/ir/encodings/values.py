"""Values: how a stored element becomes a number.

    (nothing)              v = values[p]
    int8(per="channel")    v = values[p] * scale[n]        scale[n] = max|W[n,:]| / 127
    int8(per="tensor")     v = values[p] * scale[0]

p is the element's place in the stored array, n its channel (its first coordinate in the weight).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType, bf16, f16, f32, f64, from_numpy, i8
from effcc.ir.encodings.levels import Levels
from effcc.ir.expr import Expr, cast, integer
from effcc.ir.form import call

Array = Any
LoadComponent = Callable[[int, Sequence[Expr]], Expr]
LARGEST_INT8 = 127
SMALLEST = {f64: 2.0**-1022, f32: 2.0**-126, bf16: 2.0**-126, f16: 2.0**-14}
"""The smallest normal number of each dtype."""
EPSILON = {f64: 2.0**-52, f32: 2.0**-23, bf16: 2.0**-7, f16: 2.0**-10}
"""The distance from 1 to the next number of each dtype."""


class Values(ABC):
    """How the stored elements of a weight of `dtype` become numbers; the component arrays follow the levels' ones."""

    @abstractmethod
    def components(self, levels: Levels, dtype: DType) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        """The arrays: name, dtype and shape. The first has the stored shape."""

    @abstractmethod
    def encode(self, levels: Levels, stored: Array) -> list[Array]:
        """The arrays for given stored elements."""

    @abstractmethod
    def decode(self, levels: Levels, arrays: Sequence[Array], dtype: DType) -> Array:
        """The stored elements as numbers."""

    @abstractmethod
    def element(self, load: LoadComponent, place: Sequence[Expr], channel: Expr, dtype: DType) -> Expr:
        """One stored element as an expression; `load(i, index)` is an element of the i-th array."""

    @abstractmethod
    def error_bound(self, levels: Levels, arrays: Sequence[Array]) -> Array:
        """For each channel, [N, 1]: how far a decoded element may be from the one that was encoded."""

    @property
    @abstractmethod
    def is_exact(self) -> bool:
        """Whether elements are stored as they are, so that they can be trained."""


@dataclass(frozen=True)
class Plain(Values):
    """Elements in the weight's own dtype."""

    def components(self, levels: Levels, dtype: DType) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        return (("values", dtype, levels.stored),)

    def encode(self, levels: Levels, stored: Array) -> list[Array]:
        return [stored]

    def decode(self, levels: Levels, arrays: Sequence[Array], dtype: DType) -> Array:
        return arrays[0]

    def element(self, load: LoadComponent, place: Sequence[Expr], channel: Expr, dtype: DType) -> Expr:
        return load(0, place)

    def error_bound(self, levels: Levels, arrays: Sequence[Array]) -> Array:
        return np.zeros((levels.shape[0], 1))

    @property
    def is_exact(self) -> bool:
        return True


@dataclass(frozen=True)
class Int8(Values):
    """Signed bytes -127..127 times a scale, in the weight's dtype, for each channel or for the whole weight.

    Products are computed in f32 and rounded to the weight's dtype. Zero stays zero.
    """

    per_channel: bool

    def components(self, levels: Levels, dtype: DType) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        return ("values", i8, levels.stored), ("scale", dtype, (levels.shape[0] if self.per_channel else 1,))

    def encode(self, levels: Levels, stored: Array) -> list[Array]:
        rows = levels.rows(np.asarray(stored, np.float32))
        largest = np.abs(rows).max(axis=1 if self.per_channel else None, keepdims=True, initial=0.0)
        scale = np.where(largest > 0, largest / np.float32(LARGEST_INT8), np.float32(1))
        # A scale that underflows would divide by zero; the smallest normal number is as good for such tiny weights.
        scale = np.maximum(scale, SMALLEST[from_numpy(stored.dtype)]).astype(stored.dtype)
        whole = np.clip(np.rint(rows / scale.astype(np.float32)), -LARGEST_INT8, LARGEST_INT8).astype(np.int8)
        return [levels.from_rows(whole), scale.reshape(-1)]

    def decode(self, levels: Levels, arrays: Sequence[Array], dtype: DType) -> Array:
        wide = np.promote_types(arrays[1].dtype, np.float32) if arrays[1].dtype.kind == "f" else np.float32
        rows = levels.rows(arrays[0]).astype(wide) * arrays[1].astype(wide).reshape(-1, 1)
        return levels.from_rows(rows).astype(arrays[1].dtype)

    def element(self, load: LoadComponent, place: Sequence[Expr], channel: Expr, dtype: DType) -> Expr:
        scale = load(1, (channel if self.per_channel else integer(0),))
        wide = dtype.accumulator
        return cast(call("mul", cast(load(0, place), wide), cast(scale, wide)), dtype)

    def error_bound(self, levels: Levels, arrays: Sequence[Array]) -> Array:
        scale = arrays[1].astype(np.float64).reshape(-1, 1)
        rounding = LARGEST_INT8 * EPSILON[from_numpy(arrays[1].dtype)]
        return np.broadcast_to(scale * (0.5 + rounding), (levels.shape[0], 1))

    @property
    def is_exact(self) -> bool:
        return False
