"""Levels: which elements of a weight are stored, and where each stored element stands.

A level maps between the dense array, the array of stored elements, and its rows (for each output channel, the stored
elements of that channel), and writes decoding as a cascade over any expression for a stored element:

    dense         W[n,k] = v(n,k)
    block(r,c)    W[n,k] = sum(j, b: where(k == c * C[n//r,j] + b, v(n//r,j,n%r,b), 0))
    nm(4:2)       W[n,k] = sum(g, s: where(k == 4 * g + I[n,g,s], v(n,g,s), 0))
    csr           W[n,k] = sum(p in P[n]..P[n+1]: where(k == C[p], v(p), 0))

Each but the first says that element (n,k) is the stored element whose coordinate is k, if there is one. In a product
over k the sum over k meets the condition on k, and both vanish (`effcc.passes.fusion.encoded`): that is a sparse
product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType, i64
from effcc.ir.expr import Axis, Expr, add, cast, integer, multiply
from effcc.ir.form import FormBuilder, call, constant

Array = Any
Element = Callable[[Sequence[Expr], Expr], Expr]
"""A stored element as an expression: of its place in the stored array, and of its channel (the first coordinate)."""


class Listed(Protocol):
    """Levels whose stored blocks are listed, those of a row together, whole rows or slab by slab."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def width(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def slab(self) -> int | None: ...
    @property
    def stored(self) -> tuple[int, ...]: ...
    @property
    def height_in_blocks(self) -> int: ...
    @property
    def across(self) -> int: ...
    @property
    def slabs(self) -> int: ...
    def of_total(self, total: int) -> Levels:
        """The same with another number of stored blocks."""
        ...


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
    def listed(self) -> Listed | None:
        """Themselves, where stored blocks are listed row by row; None for any other."""
        return None

    @property
    def count(self) -> int:
        """How many blocks of each row of blocks are stored; 0 where everything is."""
        return 0

    @property
    def of_matrix(self) -> Levels | None:
        """The levels of the matrix that is stored, where the weight is a view of one of another shape; else None."""
        return None

    def at(self, coordinates: Sequence[Array], xp: Any = np) -> Levels:
        """The levels of one weight: with what its coordinates say about rows, where they say anything.

        xp: the library (numpy or torch) whose arrays they and those that `rows` takes are.
        """
        return self

    def require_sound(self, coordinates: Sequence[Array]) -> None:  # noqa: B027 (most levels have nothing to check)
        """Raise EncodingError, naming the component, unless coordinates say which row each stored element is in."""

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

    def channel_of(self, place: Sequence[Expr]) -> Expr | None:
        """The channel (row of the matrix) of the element at a place; None where a place alone does not say it."""
        return None

    @property
    def row_length(self) -> int:
        """How many columns `rows` has."""
        return int(np.prod(self.stored)) // self.shape[0]

    @property
    def has_positions(self) -> bool:
        """Whether a place alone says its position in the row: groups of a row's elements can share a scale."""
        return True

    @abstractmethod
    def from_rows(self, rows: Array) -> Array:
        """The stored array that `rows` came from."""

    @abstractmethod
    def pick(self, xp: Any, dense: Array, coordinates: Sequence[Array]) -> Array:
        """The elements of a dense array at the places that are stored, in operators of `xp` that can be traced."""

    def compress(self, dense: Array, coordinates: Sequence[Array]) -> Array:
        """The stored elements of a dense array."""
        return self.pick(np, dense, coordinates)

    @abstractmethod
    def expand(self, stored: Array, coordinates: Sequence[Array]) -> Array:
        """The dense array; what is not stored is zero."""

    @abstractmethod
    def form(self, b: FormBuilder, element: Element, whole: bool) -> None:
        """Define the dense result. `whole`: as an array of its own; else so that a product can read through it."""


def blocks_of(dense: Array, height: int, width: int) -> Array:
    """A dense matrix as [N/r, K/c, r, c]."""
    n, k = dense.shape
    return dense.reshape(n // height, height, k // width, width).swapaxes(1, 2)


def column_of(stored: Expr, columns: int, width: int, inside: Axis | None) -> Expr:
    """Where a stored element stands in its row: inside the row whatever a damaged file says, so access is safe.

    stored: its block's column; `columns`: how many such columns there are. inside: its place in the block.
    """
    safe = call("minimum", call("maximum", stored, constant(0, stored)), constant(columns - 1, stored))
    column = multiply(cast(safe, i64), integer(width))
    return column if inside is None else add(column, inside)


def require_blocks(scheme: str, shape: tuple[int, ...], height: int, width: int) -> None:
    """Raise EncodingError unless a weight is a matrix that blocks divide."""
    if len(shape) != 2:
        raise EncodingError(f"{scheme} stores matrices, got a weight of shape {list(shape)}; store that one densely")
    n, k = shape
    if n % height or k % width:
        raise EncodingError(
            f"{scheme} needs rows in multiples of {height} and columns in multiples of {width}, "
            f"got a weight of shape [{n}, {k}]; blocks of {fitting(n, height)} x {fitting(k, width)} fit"
        )


def fitting(extent: int, wanted: int) -> int:
    """The largest part, at most `wanted`, that divides an extent.

    >>> fitting(30, 4)
    3
    """
    return next(part for part in range(wanted, 0, -1) if extent % part == 0)


def require_inside(columns: Array, count: int, what: str) -> None:
    """Raise EncodingError unless all stored columns lie in 0..count - 1."""
    if columns.size and not (columns.min() >= 0 and columns.max() < count):
        raise EncodingError(f"{what} must lie in 0..{count - 1}, got {columns.min()}..{columns.max()}")
