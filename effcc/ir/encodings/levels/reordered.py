"""`reorder`: every element is stored, columns in an order of their own, so that outliers share groups and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType, i32
from effcc.ir.encodings.levels.base import Array, Element, Levels, column_of
from effcc.ir.encodings.registry import Declaration, declare
from effcc.ir.expr import Axis, Expr, compare, where
from effcc.ir.form import FormBuilder, constant
from effcc.ir.kernel import Scatter


@dataclass(frozen=True)
class Reordered(Levels):
    """W[n,order[j]] = v(n,j): columns by their largest magnitude, the largest first."""

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != 2:
            raise EncodingError(f"reorder stores matrices, got a weight of shape {list(self.shape)}")

    @property
    def stored(self) -> tuple[int, ...]:
        return self.shape

    @property
    def coordinates(self) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        return (("order", i32, self.shape[1:]),)

    def rows(self, stored: Array) -> Array:
        return stored

    def position(self, place: Sequence[Expr]) -> Expr:
        return place[1]

    def from_rows(self, rows: Array) -> Array:
        return rows

    def select(self, dense: Array) -> list[Array]:
        return [np.argsort(-np.abs(dense.astype(np.float64)).max(axis=0), kind="stable").astype(np.int32)]

    def pick(self, xp: Any, dense: Array, coordinates: Sequence[Array]) -> Array:
        return dense[:, xp.asarray(coordinates[0], dtype=xp.int64)]

    def expand(self, stored: Array, coordinates: Sequence[Array]) -> Array:
        order, last = coordinates[0], self.shape[1] - 1
        if not (order.min() >= 0 and order.max() <= last):
            raise EncodingError(f"columns must lie in 0..{last}, got {order.min()}..{order.max()}")
        dense = np.zeros(self.shape, stored.dtype)
        dense[:, order] = stored
        return dense

    def form(self, b: FormBuilder, element: Element, whole: bool) -> None:
        n, k, j = b.axis(self.shape[0], "n"), b.axis(self.shape[1], "k"), b.axis(self.shape[1], "j")
        row = b.axis(self.shape[0], "r") if whole else n
        value = element((row, j), row)
        if whole:
            b.define((n, k), constant(0, value))
            b.define((row, j), value, scatter=Scatter((row, self._column(b, j)), "set"))
            return
        body = where(compare("eq", k, self._column(b, j)), value, constant(0, value))
        b.define((n, k), b.reduce("sum", (j,), body))

    def _column(self, b: FormBuilder, j: Axis) -> Expr:
        return column_of(b.load(0, (j,)), self.shape[1], 1, None)


declare(
    Declaration(
        "reorder",
        "level",
        lambda shape, count: Reordered(shape),
        "every element, columns of large magnitude first: outliers share groups",
        ("reorder",),
        whole=True,
    )
)
