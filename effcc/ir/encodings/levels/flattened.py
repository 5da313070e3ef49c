"""A level of a convolution's weight: what stores its matrix [N, C * taps], a row for each output channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType
from effcc.ir.encodings.levels.base import Array, Element, Levels
from effcc.ir.expr import Expr, Load, add, integer, multiply
from effcc.ir.form import FormBuilder
from effcc.ir.kernel import Param
from effcc.ir.types import TensorType


@dataclass(frozen=True)
class Flattened(Levels):
    """W[n,c,y,x] = M[n, (c * Y + y) * X + x], where `matrix` stores M.

    Coordinates, stored elements and their rows are those of the matrix.
    """

    shape: tuple[int, ...]
    matrix: Levels

    @property
    def stored(self) -> tuple[int, ...]:
        return self.matrix.stored

    @property
    def coordinates(self) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        return self.matrix.coordinates

    @property
    def block(self) -> tuple[int, int]:
        return self.matrix.block

    @property
    def count(self) -> int:
        return self.matrix.count

    @property
    def of_matrix(self) -> Levels:
        return self.matrix

    def at(self, coordinates: Sequence[Array], xp: Any = np) -> Flattened:
        return replace(self, matrix=self.matrix.at(coordinates, xp))

    def require_sound(self, coordinates: Sequence[Array]) -> None:
        self.matrix.require_sound(coordinates)

    def select(self, dense: Array) -> list[Array]:
        return self.matrix.select(dense.reshape(self.matrix.shape))

    def rows(self, stored: Array) -> Array:
        return self.matrix.rows(stored)

    def position(self, place: Sequence[Expr]) -> Expr:
        return self.matrix.position(place)

    @property
    def row_length(self) -> int:
        return self.matrix.row_length

    @property
    def has_positions(self) -> bool:
        return self.matrix.has_positions

    def from_rows(self, rows: Array) -> Array:
        return self.matrix.from_rows(rows)

    def pick(self, xp: Any, dense: Array, coordinates: Sequence[Array]) -> Array:
        return self.matrix.pick(xp, dense.reshape(self.matrix.shape), coordinates)

    def expand(self, stored: Array, coordinates: Sequence[Array]) -> Array:
        return self.matrix.expand(stored, coordinates).reshape(self.shape)

    def form(self, b: FormBuilder, element: Element, whole: bool) -> None:
        """The matrix as a statement of its own, and the view of it."""
        made = Param(b.fresh(), TensorType(b.results[0].type.dtype, self.matrix.shape))
        inner = FormBuilder(b.operands, (made,), b.attrs, b.prefix, b.first_check)
        self.matrix.form(inner, element, whole)
        b.statements += inner.statements
        b.extents.update(inner.extents)
        n, *rest = axes = b.axes(self.shape)
        column: Expr = integer(0)
        for axis, size in zip(rest, self.shape[1:], strict=True):
            column = add(multiply(column, integer(size)), axis)
        b.define(axes, Load(made.name, (n, column), made.type.dtype))
