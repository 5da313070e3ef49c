"""`nm(n,m)`: of every m neighbours in a row, n are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType, i64
from effcc.ir.encodings.levels.base import Array, Element, Levels, column_of, fitting
from effcc.ir.encodings.packing import Packed
from effcc.ir.encodings.registry import Declaration, Option, declare, positive
from effcc.ir.expr import Axis, Expr, add, cast, compare, integer, multiply, where
from effcc.ir.form import FormBuilder, constant
from effcc.ir.kernel import Scatter


@dataclass(frozen=True)
class Structured(Levels):
    """`nm(n,m)`, such as 2:4: stored elements are `[N, K/m, n]`, their places among m packed fields of log2(m) bits."""

    shape: tuple[int, ...]
    kept: int
    among: int

    def __post_init__(self) -> None:
        scheme = f"nm({self.kept},{self.among})"
        if len(self.shape) != 2:
            raise EncodingError(f"{scheme} stores matrices, got a weight of shape {list(self.shape)}")
        if self.shape[1] % self.among:
            part = fitting(self.shape[1], self.among)
            fits = f"nm({min(self.kept, part)},{part}) fits" if part > 1 else "csr and columns fit any"
            raise EncodingError(f"{scheme} needs columns in multiples of {self.among}, got {list(self.shape)}; {fits}")

    @property
    def _packed(self) -> Packed:
        return Packed((self.among - 1).bit_length())

    @property
    def stored(self) -> tuple[int, ...]:
        return (self.shape[0], self.shape[1] // self.among, self.kept)

    @property
    def coordinates(self) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        return self._packed.components("places", self.stored)

    def rows(self, stored: Array) -> Array:
        return stored.reshape(self.shape[0], -1)

    def position(self, place: Sequence[Expr]) -> Expr:
        _, g, s = place
        return add(multiply(g, integer(self.kept)), s)

    def channel_of(self, place: Sequence[Expr]) -> Expr:
        return place[0]

    def from_rows(self, rows: Array) -> Array:
        return rows.reshape(self.stored)

    def _groups(self, dense: Array) -> Array:
        return dense.reshape(self.shape[0], -1, self.among)

    def select(self, dense: Array) -> list[Array]:
        """The places of the n largest magnitudes of every m, ascending; of equals the first."""
        largest = np.argsort(-np.abs(self._groups(np.asarray(dense, np.float64))), axis=2, kind="stable")
        return self._packed.pack(np.sort(largest[:, :, : self.kept], axis=2))

    def _places(self, coordinates: Sequence[Array]) -> Array:
        places = self._packed.unpack(coordinates, self.stored).astype(np.int64)
        if places.max() >= self.among:
            raise EncodingError(f"places among {self.among} must lie below it, got {places.max()}")
        return places

    def pick(self, xp: Any, dense: Array, coordinates: Sequence[Array]) -> Array:
        n, g, _ = self.stored
        places = xp.asarray(self._packed.unpack(coordinates, self.stored, xp), dtype=xp.int64)
        return self._groups(dense)[xp.arange(n)[:, None, None], xp.arange(g)[:, None], places]

    def expand(self, stored: Array, coordinates: Sequence[Array]) -> Array:
        dense = np.zeros(self.shape, stored.dtype)
        np.put_along_axis(self._groups(dense), self._places(coordinates), stored, axis=2)
        return dense

    def form(self, b: FormBuilder, element: Element, whole: bool) -> None:
        n, k = b.axis(self.shape[0], "n"), b.axis(self.shape[1], "k")
        g, s = b.axis(self.stored[1], "g"), b.axis(self.kept, "s")
        row = b.axis(self.shape[0], "r") if whole else n
        value = element((row, g, s), row)
        if whole:
            b.define((n, k), constant(0, value))
            b.define((row, g, s), value, scatter=Scatter((row, self._column(b, row, g, s)), "set"))
            return
        body = where(compare("eq", k, self._column(b, n, g, s)), value, constant(0, value))
        b.define((n, k), b.reduce("sum", (g, s), body))

    def _column(self, b: FormBuilder, n: Axis, g: Axis, s: Axis) -> Expr:
        field = self._packed.element(lambda plane, index: b.load(plane, index), (n, g, s), self.stored)
        power = self.among & (self.among - 1) == 0  # a field cannot say more than there is
        place = cast(field, i64) if power else column_of(field, self.among, 1, None)
        return add(multiply(g, integer(self.among)), place)


declare(
    Declaration(
        "nm",
        "level",
        lambda shape, count, n, m: Structured(shape, n, m),
        "of every m neighbours in a row, n elements",
        ("nm(2,4)", "nm(1,4)", "nm(2,8)", "nm(2,6)"),
        arguments=(
            Option("n", None, positive, "a positive integer"),
            Option("m", None, lambda value: positive(value) and 2 <= int(value) <= 256, "2..256"),
        ),
        settle=lambda given: (
            None if given["n"] <= given["m"] else "expected n of m neighbours with n <= m, as in nm(2,4)"
        ),
    )
)
