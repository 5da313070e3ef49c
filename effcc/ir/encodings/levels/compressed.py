"""`csr`, and blocks of free counts: each row of blocks stores as many as it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType, i32, i64
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
from effcc.ir.expr import Expr, Span, add, cast, compare, floor_div, integer, modulo, where
from effcc.ir.form import FormBuilder, constant


@dataclass(frozen=True)
class Compressed(Levels):
    """`csr`, `bcsr(r,c)`: of a matrix, `total` blocks of r x c elements, in the order of rows.

    `starts[N/r + 1]` says where each row of blocks begins, `columns[total]` a block's column over c, and stored
    elements are `[total, r, c]`, without axes of size one. An axis of the product is ragged.

    bound: the starts of one weight, which say in which row an element is; `at` gives them.
    """

    shape: tuple[int, ...]
    height: int
    width: int
    total: int
    bound: Array | None = field(default=None, compare=False, repr=False)
    xp: Any = field(default=np, compare=False, repr=False)

    def __post_init__(self) -> None:
        scheme = "csr" if self.block == (1, 1) else f"bcsr({self.height},{self.width})"
        require_blocks(scheme, self.shape, self.height, self.width)
        most = self.shape[0] // self.height * (self.shape[1] // self.width)
        if not 1 <= self.total <= most:
            raise EncodingError(f"{scheme} of {list(self.shape)} stores 1 to {most} blocks, got {self.total}")

    @property
    def block(self) -> tuple[int, int]:
        return (self.height, self.width)

    @property
    def count(self) -> int:
        return self.total

    @property
    def stored(self) -> tuple[int, ...]:
        return (self.total, *(size for size in self.block if size > 1))

    @property
    def coordinates(self) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        return (("starts", i32, (self.shape[0] // self.height + 1,)), ("columns", i32, (self.total,)))

    def at(self, coordinates: Sequence[Array], xp: Any = np) -> Compressed:
        return replace(self, bound=coordinates[0], xp=xp)

    def rows(self, stored: Array) -> Array:
        """Rows are as long as those of the dense matrix, and end with zeros."""
        n, k = self.shape
        found = self.xp.zeros((n // self.height, k // self.width, *self.block), dtype=stored.dtype)
        found[self._places()] = stored.reshape(self.total, *self.block)
        return found.swapaxes(1, 2).reshape(n, k)

    @property
    def row_length(self) -> int:
        return self.shape[1]

    @property
    def has_positions(self) -> bool:
        return False

    def position(self, place: Sequence[Expr]) -> Expr:
        """Not said by a place alone; values that would ask are refused."""
        return integer(0)

    def from_rows(self, rows: Array) -> Array:
        return blocks_of(rows, self.height, self.width)[self._places()].reshape(self.stored)

    def _places(self) -> tuple[Array, Array]:
        """Of each stored block its row of blocks, and its number there."""
        assert self.bound is not None
        starts, blocks = self.xp.asarray(self.bound, dtype=self.xp.int64), self.xp.arange(self.total)
        row = self.xp.searchsorted(starts[1:], blocks, side="right")
        return row, blocks - starts[row]

    def require_sound(self, coordinates: Sequence[Array]) -> None:
        """Raise EncodingError unless rows begin where the ones before end, and fit the matrix."""
        starts = np.asarray(coordinates[0], np.int64)
        most, steps = self.shape[1] // self.width, np.diff(starts)
        if starts[0] != 0 or starts[-1] != self.total or (steps < 0).any() or (steps > most).any():
            raise EncodingError(
                f"starts of rows must rise from 0 to {self.total}, by at most {most}, got {_first_fault(starts, most)}"
            )

    def select(self, dense: Array) -> list[Array]:
        """The coordinates of the `total` blocks of largest L2 norm; of equals the first."""
        norms = np.square(blocks_of(np.asarray(dense, np.float64), self.height, self.width)).sum(axis=(2, 3))
        chosen = np.sort(np.argsort(-norms, axis=None, kind="stable")[: self.total])
        row, column = np.divmod(chosen, norms.shape[1])
        starts = np.searchsorted(row, np.arange(norms.shape[0] + 1))
        return [starts.astype(np.int32), column.astype(np.int32)]

    def pick(self, xp: Any, dense: Array, coordinates: Sequence[Array]) -> Array:
        row, _ = self.at(coordinates, xp)._places()
        column = xp.asarray(coordinates[1], dtype=xp.int64)
        return blocks_of(dense, self.height, self.width)[row, column].reshape(self.stored)

    def expand(self, stored: Array, coordinates: Sequence[Array]) -> Array:
        self.require_sound(coordinates)
        row, _ = self.at(coordinates)._places()
        require_inside(coordinates[1], self.shape[1] // self.width, "block columns")
        dense = np.zeros(self.shape, stored.dtype)
        blocks_of(dense, self.height, self.width)[row, coordinates[1]] = stored.reshape(self.total, *self.block)
        return dense

    def form(self, b: FormBuilder, element: Element, whole: bool) -> None:
        n, k = b.axis(self.shape[0], "n"), b.axis(self.shape[1], "k")
        p = b.axis(self.total, "p")
        inside = (b.axis(self.width, "c"),) if self.width > 1 else ()
        block, row = floor_div(n, integer(self.height)), modulo(n, integer(self.height))
        start, stop = (cast(b.load(0, (i,)), i64) for i in (block, add(block, integer(1))))
        place = column_of(b.load(1, (p,)), self.shape[1] // self.width, self.width, inside[0] if inside else None)
        value = element((p, *((row,) if self.height > 1 else ()), *inside), n)
        body = where(compare("eq", k, place), value, constant(0, value))
        b.define((n, k), b.reduce("sum", (p, *inside), body, spans=(Span(p.name, start, stop),)))


def _compressed(
    shape: tuple[int, ...], count: int, rows: int = 1, columns: int = 1, share: float | None = None
) -> Levels:
    return Compressed(shape, rows, columns, count or _kept(shape, 1.0 if share is None else share, rows, columns))


def _kept(shape: tuple[int, ...], density: float, rows: int = 1, columns: int = 1, share: float | None = None) -> int:
    return max(1, round(density * (int(np.prod(shape)) // (rows * columns))))


def _first_fault(starts: Array, most: int) -> str:
    """The first step between starts that cannot be, or else their ends."""
    steps = np.diff(starts)
    wrong = np.flatnonzero((steps < 0) | (steps > most))
    fault = f", from {starts[wrong[0]]} to {starts[wrong[0] + 1]}" if wrong.size else ""
    return f"{starts[0]} to {starts[-1]}{fault}"


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


declare(
    Declaration(
        "csr",
        "level",
        _compressed,
        "single elements, as many in each row as matter there",
        ("csr",),
        options=(Option("share", None, _is_share, "the share of elements that is kept, 0 < share <= 1"),),
        kept=_kept,
        counted=(1, 0),
    )
)
declare(
    Declaration(
        "bcsr",
        "level",
        _compressed,
        "blocks of r x c elements, as many in each r rows as matter there",
        ("bcsr(4,1)", "bcsr(2,2)", "bcsr(1,4)"),
        arguments=(
            Option("rows", None, positive, "a positive integer"),
            Option("columns", None, positive, "a positive integer"),
        ),
        kept=_kept,
        counted=(1, 0),
    )
)
