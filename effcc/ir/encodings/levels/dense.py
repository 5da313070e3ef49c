"""`dense`: every element is stored, where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from effcc.ir.dtypes import DType
from effcc.ir.encodings.levels.base import Array, Element, Levels
from effcc.ir.encodings.registry import Declaration, declare
from effcc.ir.expr import Expr, add, integer, multiply
from effcc.ir.form import FormBuilder


@dataclass(frozen=True)
class Dense(Levels):
    """Every element is stored, where it stands."""

    shape: tuple[int, ...]

    @property
    def stored(self) -> tuple[int, ...]:
        return self.shape

    @property
    def coordinates(self) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        return ()

    def rows(self, stored: Array) -> Array:
        return stored.reshape(self.shape[0], -1)

    def position(self, place: Sequence[Expr]) -> Expr:
        total: Expr = integer(0)
        for index, size in zip(place[1:], self.shape[1:], strict=True):
            total = add(multiply(total, integer(size)), index)
        return total

    def channel_of(self, place: Sequence[Expr]) -> Expr:
        return place[0]

    def from_rows(self, rows: Array) -> Array:
        return rows.reshape(self.shape)

    def pick(self, xp: Any, dense: Array, coordinates: Sequence[Array]) -> Array:
        return dense

    def expand(self, stored: Array, coordinates: Sequence[Array]) -> Array:
        return stored

    def form(self, b: FormBuilder, element: Element, whole: bool) -> None:
        axes = b.axes(self.shape)
        b.define(axes, element(axes, axes[0]))


declare(
    Declaration(
        "dense", "level", lambda shape, count: Dense(shape), "every element is stored, where it stands", ("dense",)
    )
)
