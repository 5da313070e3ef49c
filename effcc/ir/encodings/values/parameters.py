"""How scales and minimums are stored: as floating numbers, as small integers times a number that many
share, or as
exponents of two.

scale="f16"              s = f32(scale[g])
scale="u6", super=256    s = f32(scale_super[g * group // 256]) * scale[g]        (Q4_K's way)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType, f32, from_numpy, i8
from effcc.ir.encodings.packing import Packed
from effcc.ir.encodings.values.base import EPSILON, SMALLEST, NamedArray
from effcc.ir.encodings.values.codes import floating
from effcc.ir.encodings.values.grid import Grid
from effcc.ir.encodings.values.parts import Factors, pack_integers
from effcc.ir.expr import Const, Expr, cast, floor_div, integer
from effcc.ir.form import call

Array = Any
Load = Callable[[int, Sequence[Expr]], Expr]


class Stored(ABC):
    """How an array of parameters is stored. Its arrays follow each other among a weight's components."""

    signed: bool
    """Whether a parameter may be negative."""

    @abstractmethod
    def components(self, name: str, shape: tuple[int, ...], dtype: DType) -> tuple[NamedArray, ...]:
        """The arrays that hold parameters of `shape` for a weight of `dtype`."""

    shrinks: tuple[float, ...] = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)
    """Shares of the range that reaches all elements, among which a search finds the scale of smallest error."""

    @abstractmethod
    def bounded(self, scales: Array, dtype: DType, empty: float) -> Array:
        """Scales that can be divided by as far as the storage has them: none smaller than its smallest number.

        empty: what becomes of a scale of 0.
        """

    @abstractmethod
    def representable(self, minimums: Array) -> Array:
        """Minimums lowered to what the storage can hold."""

    @abstractmethod
    def store(self, numbers: Array, dtype: DType) -> list[Array]:
        """The arrays for given parameters. Raises EncodingError where they are too large for it."""

    def assembled(self, factors: Factors) -> list[Array]:
        """The arrays for parameters that others stored so."""
        if factors.inner is not None:
            raise EncodingError("parameters are floating numbers; integers for them were given, too")
        return [np.ascontiguousarray(factors.outer)]

    @abstractmethod
    def numbers(self, arrays: Sequence[Array], shape: tuple[int, ...], xp: Any = np) -> Array:
        """The parameters as stored, in f32 (f64 if the arrays are); arrays of the library `xp`."""

    @abstractmethod
    def slack(self, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
        """How far a stored parameter may be from the one that was given."""

    @abstractmethod
    def element(self, load: Load, index: Sequence[Expr], shape: tuple[int, ...], wide: DType) -> Expr:
        """A parameter as an expression of dtype `wide`."""

    @abstractmethod
    def gradients(self, xp: Any, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        """The gradient of each array, given that of the parameters; None for codes."""


@dataclass(frozen=True)
class Floats(Stored):
    """Numbers of a floating dtype; of the weight's own where none is said."""

    dtype: DType | None = None
    signed = True

    def components(self, name: str, shape: tuple[int, ...], dtype: DType) -> tuple[NamedArray, ...]:
        return ((name, self.dtype or dtype, shape),)

    def bounded(self, scales: Array, dtype: DType, empty: float) -> Array:
        smallest = np.float32(SMALLEST[self.dtype or dtype])
        away = np.copysign(np.maximum(np.abs(scales), smallest), scales)
        return np.where(scales != 0, away, np.float32(empty))

    def representable(self, minimums: Array) -> Array:
        return minimums

    def store(self, numbers: Array, dtype: DType) -> list[Array]:
        return [as_float(numbers, self.dtype or dtype)]

    def numbers(self, arrays: Sequence[Array], shape: tuple[int, ...], xp: Any = np) -> Array:
        return widened(xp, arrays[0])

    def slack(self, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
        return _slack(arrays[0])

    def element(self, load: Load, index: Sequence[Expr], shape: tuple[int, ...], wide: DType) -> Expr:
        return cast(load(0, index), wide)

    def gradients(self, xp: Any, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        return [upstream]


@dataclass(frozen=True)
class TwoLevel(Stored):
    """Codes of `bits` bits times a floating number for every `share` parameters of a row.

    signed: codes are -2^(bits-1) and above (stored as unsigned ones, except whole bytes), else 0 and above.
    """

    bits: int
    signed: bool
    share: int
    dtype: DType

    @property
    def packed(self) -> Packed:
        return Packed(self.bits, self.signed and self.bits == 8)

    @property
    def offset(self) -> int:
        """What a stored code is more than its number."""
        return 1 << (self.bits - 1) if self.signed and self.bits < 8 else 0

    @property
    def largest(self) -> int:
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1

    def components(self, name: str, shape: tuple[int, ...], dtype: DType) -> tuple[NamedArray, ...]:
        rows, groups = shape
        codes = self.packed.components(name, shape)
        return (*codes, (f"{name}_super", self.dtype, (rows, -(-groups // self.share))))

    def bounded(self, scales: Array, dtype: DType, empty: float) -> Array:
        return scales

    def representable(self, minimums: Array) -> Array:
        return minimums if self.signed else np.minimum(minimums, 0)

    def store(self, numbers: Array, dtype: DType) -> list[Array]:
        missing = -numbers.shape[1] % self.share
        padded = np.pad(numbers, ((0, 0), (0, missing))).reshape(len(numbers), -1, self.share)
        extreme = np.take_along_axis(padded, np.abs(padded).argmax(-1)[..., None], axis=-1)[..., 0]
        over = as_float(extreme / np.float32(self.largest), self.dtype)
        step = self._spread(widened(np, over), numbers.shape[1])
        codes = np.rint(np.divide(numbers, step, out=np.zeros_like(numbers), where=step != 0))
        codes = np.clip(codes, -self.largest if self.signed else 0, self.largest)
        return [*self.packed.pack((codes + self.offset).astype(np.int16)), over]

    def assembled(self, factors: Factors) -> list[Array]:
        if factors.inner is None:
            raise EncodingError("parameters are integers times floating numbers; no integers were given")
        return [*pack_integers(self.packed, factors.inner, self.offset), factors.outer]

    def numbers(self, arrays: Sequence[Array], shape: tuple[int, ...], xp: Any = np) -> Array:
        *codes, over = arrays
        groups = floating(xp, self.packed.unpack(codes, shape, xp)) - self.offset
        return self._spread(widened(xp, over), shape[1], xp) * groups

    def _spread(self, over: Array, groups: int, xp: Any = np) -> Array:
        return over[:, xp.arange(groups) // self.share]

    def slack(self, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
        over = arrays[-1]
        return self._spread(np.abs(over.astype(np.float64)) * 0.5 + self.largest * _slack(over), shape[1])

    def element(self, load: Load, index: Sequence[Expr], shape: tuple[int, ...], wide: DType) -> Expr:
        code = self.packed.element(load, index, shape)
        if self.offset:
            code = call("sub", code, Const(self.offset, code.dtype))
        over = load(len(self.packed.planes), (index[0], floor_div(index[1], integer(self.share))))
        return call("mul", cast(over, wide), cast(code, wide))

    def gradients(self, xp: Any, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        codes = arrays[:-1]
        groups = floating(xp, self.packed.unpack(codes, tuple(upstream.shape), xp)) - self.offset
        shared = Grid("group", self.share).sums(xp, upstream * groups)
        return [*(None for _ in codes), shared]


@dataclass(frozen=True)
class Exponents(Stored):
    """Powers of two, 2^e with e an i8, by which products are exact: what was given, or the next larger one.

    halved: a search may take half of what reaches all elements, which then leave the range.
    """

    halved: bool = False
    signed = False
    shrinks = (1.0, 0.5)

    def components(self, name: str, shape: tuple[int, ...], dtype: DType) -> tuple[NamedArray, ...]:
        return ((name, i8, shape),)

    def bounded(self, scales: Array, dtype: DType, empty: float) -> Array:
        return np.where(scales != 0, np.maximum(scales, np.float32(SMALLEST[f32])), np.float32(empty))

    def representable(self, minimums: Array) -> Array:
        return minimums

    def store(self, numbers: Array, dtype: DType) -> list[Array]:
        fraction, exponent = np.frexp(numbers)
        return [(exponent - (fraction == 0.5)).astype(np.int8)]

    def numbers(self, arrays: Sequence[Array], shape: tuple[int, ...], xp: Any = np) -> Array:
        return np.ldexp(np.float32(1), arrays[0]) if xp is np else xp.exp2(floating(xp, arrays[0]))

    def slack(self, arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
        return self.numbers(arrays, shape).astype(np.float64) * float(self.halved)

    def element(self, load: Load, index: Sequence[Expr], shape: tuple[int, ...], wide: DType) -> Expr:
        return call("exp2", cast(load(0, index), wide))

    def gradients(self, xp: Any, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        return [None]


def as_float(numbers: Array, dtype: DType) -> Array:
    """Numbers rounded to a floating dtype. Raises EncodingError where they leave its range."""
    with np.errstate(over="ignore"):
        rounded = numbers.astype(dtype.numpy)
    if not np.isfinite(rounded.astype(np.float32)).all():
        largest = float(np.abs(numbers).max())
        raise EncodingError(f"a scale or minimum of magnitude {largest:.3g} does not fit {dtype}; store it as f32")
    return rounded


def widened(xp: Any, array: Array) -> Array:
    """Floating numbers in f32, or f64 if they are."""
    return array if array.dtype in (xp.float32, xp.float64) else floating(xp, array)


def _slack(array: Array) -> Array:
    """How far a number of this dtype may be from what was rounded to it, in f64."""
    dtype = from_numpy(array.dtype)
    return np.maximum(np.abs(array.astype(np.float64)) * EPSILON[dtype], SMALLEST[dtype])
