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
from effcc.ir.expr import Expr, Span, add, cast, compare, floor_div, integer, modulo, multiply, where
from effcc.ir.form import FormBuilder, constant


@dataclass(frozen=True)
class Compressed(Levels):
    """`csr`, `bcsr(r,c)`: of a matrix, `total` blocks of r x c elements, in the order of rows.

    `starts[N/r + 1]` says where each row of blocks begins, `columns[total]` a block's column over c, and stored
    elements are `[total, r, c]`, without axes of size one. An axis of the product is ragged.

    slab: the matrix is cut into slabs of so many columns, and blocks are stored slab by slab, each in the order of
    rows (`starts[slabs * N/r + 1]`). What a product of many rows gathers for one slab stays in the nearest cache.
    Columns count from the matrix's first, so that results do not depend on which slab a block is stored in.

    bound: the starts of one weight, which say in which row an element is; `at` gives them.
    """

    shape: tuple[int, ...]
    height: int
    width: int
    total: int
    slab: int | None = None
    bound: Array | None = field(default=None, compare=False, repr=False)
    xp: Any = field(default=np, compare=False, repr=False)

    def __post_init__(self) -> None:
        scheme = "csr" if self.block == (1, 1) else f"bcsr({self.height},{self.width})"
        require_blocks(scheme, self.shape, self.height, self.width)
        most = self.shape[0] // self.height * (self.shape[1] // self.width)
        if not 1 <= self.total <= most:
            raise EncodingError(f"{scheme} of {list(self.shape)} stores 1 to {most} blocks, got {self.total}")
        if self.slab is not None and self.slab % self.width:
            raise EncodingError(f"{scheme} needs slabs in multiples of {self.width} columns, got slab={self.slab}")

    @property
    def block(self) -> tuple[int, int]:
        return (self.height, self.width)

    @property
    def listed(self) -> Compressed:
        return self

    def of_total(self, total: int) -> Compressed:
        return replace(self, total=total)

    @property
    def count(self) -> int:
        return self.total

    @property
    def stored(self) -> tuple[int, ...]:
        return (self.total, *(size for size in self.block if size > 1))

    @property
    def coordinates(self) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        return (("starts", i32, (self.slabs * self.height_in_blocks + 1,)), ("columns", i32, (self.total,)))

    @property
    def height_in_blocks(self) -> int:
        """Rows of blocks."""
        return self.shape[0] // self.height

    @property
    def across(self) -> int:
        """How many blocks lie side by side in a slab; the last one may be narrower."""
        return (self.slab or self.shape[1]) // self.width

    @property
    def slabs(self) -> int:
        """How many slabs there are; one where it is not cut."""
        return -(-self.shape[1] // (self.across * self.width))

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
        """Of each stored block its row of blocks, and its number there: slabs begin where they would if all were
        stored."""
        assert self.bound is not None
        starts, blocks = self.xp.asarray(self.bound, dtype=self.xp.int64), self.xp.arange(self.total)
        segment = self.xp.searchsorted(starts[1:], blocks, side="right")
        slab, row = segment // self.height_in_blocks, segment % self.height_in_blocks
        return row, slab * self.across + blocks - starts[segment]

    def require_sound(self, coordinates: Sequence[Array]) -> None:
        """Raise EncodingError unless rows begin where the ones before end, and fit the matrix."""
        starts = np.asarray(coordinates[0], np.int64)
        most, steps = self._most, np.diff(starts)
        if starts[0] != 0 or starts[-1] != self.total or (steps < 0).any() or (steps > most).any():
            raise EncodingError(
                f"starts of rows must rise from 0 to {self.total}, by at most {self.across}, "
                f"got {_first_fault(starts, most)}"
            )

    @property
    def _most(self) -> Array:
        """How many blocks each row of each slab has room for."""
        slabs = np.arange(self.slabs)[:, None]
        room = np.minimum(self.across, self.shape[1] // self.width - slabs * self.across)
        return np.broadcast_to(room, (self.slabs, self.height_in_blocks)).reshape(-1)

    def select(self, dense: Array) -> list[Array]:
        """The coordinates of the `total` blocks of largest L2 norm; of equals the first."""
        norms = np.square(blocks_of(np.asarray(dense, np.float64), self.height, self.width)).sum(axis=(2, 3))
        chosen = np.sort(np.argsort(-norms, axis=None, kind="stable")[: self.total])
        row, column = np.divmod(chosen, norms.shape[1])
        segment = column // self.across * self.height_in_blocks + row
        order = np.argsort(segment, kind="stable")
        starts = np.searchsorted(segment[order], np.arange(self.slabs * self.height_in_blocks + 1))
        return [starts.astype(np.int32), column[order].astype(np.int32)]

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
        slabs = (b.axis(self.slabs, "s"),) if self.slabs > 1 else ()
        segment = add(multiply(slabs[0], integer(self.height_in_blocks)), block) if slabs else block
        start, stop = (cast(b.load(0, (i,)), i64) for i in (segment, add(segment, integer(1))))
        place = column_of(b.load(1, (p,)), self.shape[1] // self.width, self.width, inside[0] if inside else None)
        value = element((p, *((row,) if self.height > 1 else ()), *inside), n)
        body = where(compare("eq", k, place), value, constant(0, value))
        b.define((n, k), b.reduce("sum", (*slabs, p, *inside), body, spans=(Span(p.name, start, stop),)))


def _compressed(
    shape: tuple[int, ...],
    count: int,
    rows: int = 1,
    columns: int = 1,
    share: float | None = None,
    slab: int | None = None,
) -> Levels:
    total = count or _kept(shape, 1.0 if share is None else share, rows, columns)
    return Compressed(shape, rows, columns, total, slab)


def _kept(shape: tuple[int, ...], density: float, rows: int = 1, columns: int = 1, **beside: object) -> int:
    return max(1, round(density * (int(np.prod(shape)) // (rows * columns))))


def _first_fault(starts: Array, most: Array) -> str:
    """The first step between starts that cannot be, or else their ends."""
    steps = np.diff(starts)
    wrong = np.flatnonzero((steps < 0) | (steps > most))
    fault = f", from {starts[wrong[0]]} to {starts[wrong[0] + 1]}" if wrong.size else ""
    return f"{starts[0]} to {starts[-1]}{fault}"


_SLAB = Option("slab", None, positive, "how many columns' blocks are stored before those of the next")


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


declare(
    Declaration(
        "csr",
        "level",
        _compressed,
        "single elements, as many in each row as matter there",
        ("csr", "csr(slab=4)"),
        options=(Option("share", None, _is_share, "the share of elements that is kept, 0 < share <= 1"), _SLAB),
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
        options=(_SLAB,),
        kept=_kept,
        counted=(1, 0),
    )
)
