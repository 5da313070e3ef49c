"""Levels: which elements of a weight are stored, and where each stored element stands.

A level maps between the dense array, the array of stored elements, and its rows (for each output channel, the stored
elements of that channel), and writes decoding as a cascade over any expression for a stored element:

    dense         W[n,k] = v(n,k)
    block(r,c)    W[n,k] = sum(j, b: where(k == c * C[n//r,j] + b, v(n//r,j,n%r,b), 0))

The second says that element (n,k) is the stored element whose coordinate is k, if there is one. In a product over k the
sum over k meets the condition on k, and both vanish (`effcc.passes.fusion.encoded`): that is a sparse product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType, i32, i64
from effcc.ir.encodings.registry import Declaration, Option, declare
from effcc.ir.expr import Axis, Expr, add, cast, compare, floor_div, integer, modulo, multiply, where
from effcc.ir.form import FormBuilder, call, constant
from effcc.ir.kernel import Scatter

Array = Any
Element = Callable[[Sequence[Expr], Expr], Expr]
"""A stored element as an expression: of its place in the stored array, and of its channel (the first coordinate)."""


class Levels(ABC):
    """Which elements of a weight of `shape` are stored. Coordinate arrays come first among a weight's components."""

    shape: tuple[int, ...]

    @property
    @abstractmethod
    def stored(self) -> tuple[int, ...]:
        """The shape of the array of stored elements."""

    @property
    @abstractmethod
    def coordinates(self) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        """The coordinate arrays: name, dtype and shape."""

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of the blocks that coordinates choose."""
        return (1, 1)

    @property
    def count(self) -> int:
        """How many blocks of each row of blocks are stored; 0 where everything is."""
        return 0

    @property
    def density(self) -> float:
        """Stored elements over all elements."""
        return float(np.prod(self.stored)) / float(np.prod(self.shape))

    def select(self, dense: Array) -> list[Array]:
        """The coordinates of what is kept of a dense array: none where everything is."""
        return []

    @abstractmethod
    def rows(self, stored: Array) -> Array:
        """The stored elements of each channel as a row of a matrix; also of PyTorch's tensors, traced or not."""

    @abstractmethod
    def position(self, place: Sequence[Expr]) -> Expr:
        """The column of `rows` that the element at a place of the stored array is in."""

    @abstractmethod
    def from_rows(self, rows: Array) -> Array:
        """The stored array that `rows` came from."""

    @abstractmethod
    def compress(self, dense: Array, coordinates: Sequence[Array]) -> Array:
        """The stored elements of a dense array."""

    @abstractmethod
    def expand(self, stored: Array, coordinates: Sequence[Array]) -> Array:
        """The dense array; what is not stored is zero."""

    @abstractmethod
    def form(self, b: FormBuilder, element: Element, whole: bool) -> None:
        """Define the dense result. `whole`: as an array of its own; else so that a product can read through it."""


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

    def from_rows(self, rows: Array) -> Array:
        return rows.reshape(self.shape)

    def compress(self, dense: Array, coordinates: Sequence[Array]) -> Array:
        return dense

    def expand(self, stored: Array, coordinates: Sequence[Array]) -> Array:
        return stored

    def form(self, b: FormBuilder, element: Element, whole: bool) -> None:
        axes = b.axes(self.shape)
        b.define(axes, element(axes, axes[0]))


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
        if len(self.shape) != 2:
            raise EncodingError(
                f"{scheme} stores matrices, got a weight of shape {list(self.shape)}; store that one densely"
            )
        n, k = self.shape
        if n % self.height or k % self.width:
            raise EncodingError(
                f"{scheme} needs rows in multiples of {self.height} and columns in multiples of {self.width}, "
                f"got a weight of shape [{n}, {k}]"
            )
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

    def from_rows(self, rows: Array) -> Array:
        blocks = rows.reshape(self.stored[0], self.height, self.count, self.width)
        return np.ascontiguousarray(np.moveaxis(blocks, 1, 2)).reshape(self.stored)

    def _blocks(self, dense: Array) -> Array:
        """A dense matrix as [N/r, K/c, r, c]."""
        n, k = self.shape
        return dense.reshape(n // self.height, self.height, k // self.width, self.width).swapaxes(1, 2)

    def select(self, dense: Array) -> list[Array]:
        """The coordinates of the `count` blocks of largest L2 norm in each row of blocks; of equals the first."""
        norms = np.square(self._blocks(np.asarray(dense, np.float64))).sum(axis=(2, 3))
        largest = np.argsort(-norms, axis=1, kind="stable")[:, : self.count]
        return [np.sort(largest, axis=1).astype(np.int32)]

    def compress(self, dense: Array, coordinates: Sequence[Array]) -> Array:
        chosen = np.asarray(coordinates[0], np.int64)[:, :, None, None]
        return np.take_along_axis(self._blocks(dense), chosen, axis=1).reshape(self.stored)

    def expand(self, stored: Array, coordinates: Sequence[Array]) -> Array:
        dense = np.zeros(self.shape, stored.dtype)
        chosen = np.asarray(coordinates[0], np.int64)[:, :, None, None]
        last = self.shape[1] // self.width - 1
        if not (chosen.min() >= 0 and chosen.max() <= last):
            raise EncodingError(f"block columns must lie in 0..{last}, got {chosen.min()}..{chosen.max()}")
        np.put_along_axis(self._blocks(dense), chosen, stored.reshape(*self.stored[:3], self.width), axis=1)
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
        """Where a stored element stands in its row: inside the row whatever a damaged file says, so access is safe."""
        stored = b.load(0, (block, j))
        safe = call(
            "minimum", call("maximum", stored, constant(0, stored)), constant(self.shape[1] // self.width - 1, stored)
        )
        column = multiply(cast(safe, i64), integer(self.width))
        return column if inside is None else add(column, inside)

    def _scatter(self, b: FormBuilder, element: Element) -> None:
        """Zeros, then each stored element to its place."""
        n, k = b.axis(self.shape[0], "n"), b.axis(self.shape[1], "k")
        axes = b.axes(self.stored, "j")
        block, j, row, *inside = axes
        value = element(axes, add(multiply(block, integer(self.height)), row))
        b.define((n, k), constant(0, value))
        channel = add(multiply(block, integer(self.height)), row)
        b.define(
            axes, value, scatter=Scatter((channel, self._column(b, block, j, inside[0] if inside else None)), "set")
        )


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _block(shape: tuple[int, ...], count: int, rows: int, columns: int) -> Levels:
    return Block(shape, rows, columns, count or shape[-1] // columns)


declare(
    Declaration(
        "dense", "level", lambda shape, count: Dense(shape), "every element is stored, where it stands", ("dense",)
    )
)
declare(
    Declaration(
        "block",
        "level",
        _block,
        "of every r rows, so many blocks of r x c elements",
        ("block(4,1)", "block(1,1)", "block(2,2)", "block(1,4)", "block(2,1)"),
        arguments=(
            Option("rows", None, _positive, "a positive integer"),
            Option("columns", None, _positive, "a positive integer"),
        ),
    )
)
