"""`block(r,c)`: blocks of a matrix, the same number in each row of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType, i32
from effcc.ir.encodings.levels.base import (
    Array,
    Element,
    Levels,
    blocks_of,
    column_of,
    require_blocks,
    require_inside,
)
from effcc.ir.encodings.registry import Declaration, Option, declare, positive
from effcc.ir.expr import Axis, Expr, add, compare, floor_div, integer, modulo, multiply, where
from effcc.ir.form import FormBuilder, constant
from effcc.ir.kernel import Scatter


@dataclass(frozen=True)
class Block(Levels):
    """`block(r,c)`: of every r rows of a matrix, the same number `kept` of blocks of r x c elements.

    An equal count makes all axes plain: one coordinate array `columns[N/r, count]` (a block's column over c,
    ascending), and stored elements `[N/r, count, r, c]` (`[N/r, count, r]` where c is 1).

    A product reads what is stored: where no block is, it adds 0, whatever it would multiply (infinities and NaN too).
    """

    shape: tuple[int, ...]
    height: int
    width: int
    kept: int

    def __post_init__(self) -> None:
        scheme = f"block({self.height},{self.width})"
        require_blocks(scheme, self.shape, self.height, self.width)
        n, k = self.shape
        if not 1 <= self.kept <= k // self.width:
            raise EncodingError(f"{scheme} of [{n}, {k}] stores 1 to {k // self.width} blocks a row, got {self.kept}")

    @property
    def block(self) -> tuple[int, int]:
        return (self.height, self.width)

    @property
    def count(self) -> int:
        return self.kept

    @property
    def stored(self) -> tuple[int, ...]:
        inner = (self.height,) if self.width == 1 else (self.height, self.width)
        return (self.shape[0] // self.height, self.count, *inner)

    @property
    def coordinates(self) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        return (("columns", i32, self.stored[:2]),)

    def rows(self, stored: Array) -> Array:
        return stored.reshape(*self.stored[:3], self.width).swapaxes(1, 2).reshape(self.shape[0], -1)

    def position(self, place: Sequence[Expr]) -> Expr:
        _, j, _, *inside = place
        first = multiply(j, integer(self.width))
        return add(first, inside[0]) if inside else first

    def channel_of(self, place: Sequence[Expr]) -> Expr:
        return add(multiply(place[0], integer(self.height)), place[2])

    def from_rows(self, rows: Array) -> Array:
        blocks = rows.reshape(self.stored[0], self.height, self.count, self.width).swapaxes(1, 2)
        return (np.ascontiguousarray(blocks) if isinstance(blocks, np.ndarray) else blocks).reshape(self.stored)

    def select(self, dense: Array) -> list[Array]:
        """The coordinates of the `count` blocks of largest L2 norm in each row of blocks; of equals the first."""
        norms = np.square(blocks_of(np.asarray(dense, np.float64), self.height, self.width)).sum(axis=(2, 3))
        largest = np.argsort(-norms, axis=1, kind="stable")[:, : self.count]
        return [np.sort(largest, axis=1).astype(np.int32)]

    def pick(self, xp: Any, dense: Array, coordinates: Sequence[Array]) -> Array:
        rows = xp.arange(self.stored[0])[:, None]
        return blocks_of(dense, self.height, self.width)[rows, coordinates[0]].reshape(self.stored)

    def expand(self, stored: Array, coordinates: Sequence[Array]) -> Array:
        dense = np.zeros(self.shape, stored.dtype)
        chosen = np.asarray(coordinates[0], np.int64)[:, :, None, None]
        require_inside(chosen, self.shape[1] // self.width, "block columns")
        np.put_along_axis(
            blocks_of(dense, self.height, self.width), chosen, stored.reshape(*self.stored[:3], self.width), axis=1
        )
        return dense

    def form(self, b: FormBuilder, element: Element, whole: bool) -> None:
        height = integer(self.height)
        if whole:
            self._scatter(b, element)
            return
        n, k = b.axis(self.shape[0], "n"), b.axis(self.shape[1], "k")
        block = floor_div(n, height)
        row = modulo(n, height)
        j = b.axis(self.count, "j")
        inside = (b.axis(self.width, "c"),) if self.width > 1 else ()
        place = self._column(b, block, j, inside[0] if inside else None)
        value = element((block, j, row, *inside), n)
        body = where(compare("eq", k, place), value, constant(0, value))
        b.define((n, k), b.reduce("sum", (j, *inside), body))

    def _column(self, b: FormBuilder, block: Expr, j: Expr, inside: Axis | None) -> Expr:
        return column_of(b.load(0, (block, j)), self.shape[1] // self.width, self.width, inside)

    def _scatter(self, b: FormBuilder, element: Element) -> None:
        """Zeros, then each stored element to its place."""
        n, k = b.axis(self.shape[0], "n"), b.axis(self.shape[1], "k")
        axes = b.axes(self.stored, "j")
        block, j, _, *inside = axes
        channel = self.channel_of(axes)
        value = element(axes, channel)
        b.define((n, k), constant(0, value))
        b.define(
            axes, value, scatter=Scatter((channel, self._column(b, block, j, inside[0] if inside else None)), "set")
        )


def _block(shape: tuple[int, ...], count: int, rows: int, columns: int) -> Levels:
    return Block(shape, rows, columns, count or shape[-1] // columns)


declare(
    Declaration(
        "block",
        "level",
        _block,
        "of every r rows, so many blocks of r x c elements",
        ("block(4,1)", "block(1,1)", "block(2,2)", "block(1,4)", "block(2,1)"),
        arguments=(
            Option("rows", None, positive, "a positive integer"),
            Option("columns", None, positive, "a positive integer"),
        ),
        kept=lambda shape, density, rows, columns: max(1, round(density * (shape[-1] // columns))),
        counted=(0, 1),
    )
)
declare(
    Declaration(
        "outliers",
        "level",
        lambda shape, count, columns: _block(shape, min(columns, shape[-1]), shape[0], 1),
        "so many whole columns, those of largest L2 norm, as a term beside what stores the others",
        ("outliers(2)",),
        arguments=(Option("columns", None, positive, "a positive integer"),),
    )
)
declare(
    Declaration(
        "columns",
        "level",
        lambda shape, count: _block(shape, count, shape[0], 1),
        "so many whole columns: inputs that nothing else reads are left out",
        ("columns",),
        kept=lambda shape, density: max(1, round(density * shape[-1])),
        counted=(0, 1),
    )
)
