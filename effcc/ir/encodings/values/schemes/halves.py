"""`f16` and `bf16`: elements rounded to a half type, of a weight that is computed with in its own, wider one.

bf16        v = values[p]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effcc.ir.dtypes import DType, bf16, f16
from effcc.ir.encodings.levels import Levels
from effcc.ir.encodings.registry import Declaration, declare
from effcc.ir.encodings.values.base import EPSILON, SMALLEST, Array, LoadComponent, NamedArray, Nearest
from effcc.ir.encodings.values.parameters import as_float
from effcc.ir.encodings.values.plain import Plain
from effcc.ir.expr import Expr, cast


@dataclass(frozen=True)
class Halves(Plain):
    """Elements in a half type, whatever the weight's dtype."""

    half: DType

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


for _half in (f16, bf16):
    declare(
        Declaration(
            _half.name,
            "values",
            lambda half=_half: Halves(half),
            f"elements rounded to {_half.name}",
            (_half.name,),
        )
    )
