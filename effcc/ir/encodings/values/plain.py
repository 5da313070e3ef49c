"""Elements as they are: what a weight has that is not quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType
from effcc.ir.encodings.levels import Levels
from effcc.ir.encodings.values.base import Array, LoadComponent, NamedArray, Nearest, Values
from effcc.ir.expr import Expr


@dataclass(frozen=True)
class Plain(Values):
    """Elements in the weight's own dtype: v = values[p]."""

    def components(self, levels: Levels, dtype: DType) -> tuple[NamedArray, ...]:
        return (("values", dtype, levels.stored),)

    def fit(self, levels: Levels, stored: Array, importance: Array | None = None) -> list[Array]:
        return []

    def round(self, levels: Levels, stored: Array, parameters: Sequence[Array]) -> list[Array]:
        return [stored]

    def rounding(self, levels: Levels, parameters: Sequence[Array]) -> Nearest:
        return lambda columns, start: columns

    def decode(self, levels: Levels, arrays: Sequence[Array], dtype: DType) -> Array:
        return arrays[0]

    def element(self, levels: Levels, load: LoadComponent, place: Sequence[Expr], channel: Expr, dtype: DType) -> Expr:
        return load(0, place)

    def error_bound(self, levels: Levels, arrays: Sequence[Array]) -> Array:
        return np.zeros((levels.shape[0], 1))

    def gradients(self, xp: Any, levels: Levels, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        return [upstream]

    @property
    def is_exact(self) -> bool:
        return True
