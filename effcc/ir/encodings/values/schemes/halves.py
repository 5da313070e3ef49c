"""`f16` and `bf16`: elements rounded to a half type, of a weight that is computed with in its own, wider one.

    bf16                    v = values[p]
    f16(per="channel")      v = values[p] * s, s = max|w|

With a scale, codes that are small floats (fp8, fp6, fp4) are such numbers, too, and quicker to widen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType, bf16, f16
from effcc.ir.encodings.levels import Levels
from effcc.ir.encodings.packing import Packed, Plane
from effcc.ir.encodings.registry import Declaration, declare
from effcc.ir.encodings.values.base import EPSILON, SMALLEST, Array, LoadComponent, NamedArray, Nearest, Values
from effcc.ir.encodings.values.coded import Coded
from effcc.ir.encodings.values.codes import Code, floating, reaching
from effcc.ir.encodings.values.options import SCALES, SHARING, grid_of, settle_sharing, stored_of
from effcc.ir.encodings.values.parameters import as_float
from effcc.ir.encodings.values.plain import Plain
from effcc.ir.expr import Expr, cast


@dataclass(frozen=True)
class Halves(Plain):
    """Elements in a half type, whatever the weight's dtype."""

    half: DType

    @property
    def quicker(self) -> str:
        return "own"

    def components(self, levels: Levels, dtype: DType) -> tuple[NamedArray, ...]:
        return (("values", self.half, levels.stored),)

    def round(self, levels: Levels, stored: Array, parameters: Sequence[Array]) -> list[Array]:
        return [as_float(stored, self.half)]

    def rounding(self, levels: Levels, parameters: Sequence[Array]) -> Nearest:
        return lambda columns, start: as_float(columns, self.half).astype(columns.dtype)

    def decode(self, levels: Levels, arrays: Sequence[Array], dtype: DType) -> Array:
        return arrays[0].astype(dtype.numpy)

    def element(self, levels: Levels, load: LoadComponent, place: Sequence[Expr], channel: Expr, dtype: DType) -> Expr:
        return cast(load(0, place), dtype)

    def error_bound(self, levels: Levels, arrays: Sequence[Array]) -> Array:
        magnitude = np.abs(levels.rows(arrays[0]).astype(np.float64))
        return magnitude * EPSILON[self.half] + SMALLEST[self.half]

    @property
    def is_exact(self) -> bool:
        return False


@dataclass(frozen=True)
class Whole(Packed):
    """Codes of 16 bits that are numbers of a half type, and lie in an array of it."""

    @property
    def planes(self) -> tuple[Plane, ...]:
        return (Plane(16, 0),)

    def components(self, name: str, shape: tuple[int, ...]) -> tuple[NamedArray, ...]:
        return ((name, f16, shape),)

    def pack(self, codes: Array) -> list[Array]:
        return [as_float(codes, f16)]

    def unpack(self, arrays: Sequence[Array], shape: tuple[int, ...], xp: Any = np) -> Array:
        return arrays[0]

    def element(self, load: LoadComponent, place: Sequence[Expr], shape: Sequence[int]) -> Expr:
        return load(0, place)


@dataclass(frozen=True)
class HalfNumbers(Code):
    """Every number of f16 is its own code; elements over their scale are in -1..1."""

    packed = Whole(16)

    @property
    def largest(self) -> float:
        return 1.0

    def radius(self, count: int, table: Array | None) -> float:
        return EPSILON[f16] / 2

    def scale(self, blocks: Array, counts: Array, signed: bool) -> Array:
        return reaching(blocks, -1.0, 1.0, signed)

    def nearest(self, scaled: Array, table: Array | None) -> Array:
        return as_float(scaled, f16)

    def numbers(self, xp: Any, codes: Array, table: Array | None) -> Array:
        return floating(xp, codes)

    def element(self, code: Expr, table: Callable[[Expr], Expr], wide: DType) -> Expr:
        return cast(code, wide)


class ScaledHalves(Coded):
    """Half floats times scales; gradients pass to both."""

    def gradients(self, xp: Any, levels: Levels, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        _, *rest = super().gradients(xp, levels, arrays, upstream)
        scales = self.scale.numbers(arrays[1:], self._grid_shape(levels), xp)
        spread = self.grid.spread(scales, range(levels.row_length), xp)
        return [levels.from_rows(levels.rows(upstream) * spread), *rest]


def _make_f16(**given: Any) -> Values:
    return ScaledHalves(HalfNumbers(), grid_of(given), stored_of(given)) if _shares(given) else Halves(f16)


def _shares(given: Mapping[str, Any]) -> bool:
    return given["per"] is not None or given["group"] is not None


def _settle_f16(given: dict[str, Any]) -> str | None:
    if _shares(given):
        return settle_sharing()(given)
    return 'a scale is shared: say per="channel", or a group' if given["scale"] or given["super"] else None


declare(
    Declaration(
        "f16",
        "values",
        _make_f16,
        "elements rounded to f16, or such numbers times scales",
        ("f16", 'f16(per="channel")'),
        options=(*SHARING, *SCALES),
        settle=_settle_f16,
    )
)
declare(Declaration("bf16", "values", lambda: Halves(bf16), "elements rounded to bf16", ("bf16",)))
