"""Where the arguments of a call tell the values of its size symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from effcc.ir.dims import Dim
from effcc.ir.graph import Value


@dataclass(frozen=True)
class Reading:
    """A symbol's value, read off the argument at `position`: a tensor's size along `axis`, or (None) a number.

    sign: 0, or which part of the number it is: 1 what it has above 0, -1 what it has below. Where `n` is read, the
    symbol is `(n - offset) // factor`.
    """

    position: int
    axis: int | None = None
    sign: int = 0
    factor: int = 1
    offset: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether it is read off a number as it is, or is a part of one."""
        return self.axis is None and (self.factor, self.offset) == (1, 0)

    def value(self, arguments: Sequence[Any]) -> int:
        """The symbol's value in a call with these arguments."""
        found = arguments[self.position]
        n = int(found) if self.axis is None else int(found.shape[self.axis])
        return max(self.sign * n, 0) if self.sign else (n - self.offset) // self.factor


def readings(inputs: Sequence[Value | Dim | None]) -> dict[str, Reading]:
    """Where each symbol in the shapes of tensors, and in numbers, is read; those that nothing tells are left out."""
    found: dict[str, Reading] = {}
    inexact: dict[str, Reading] = {}
    for position, known in enumerate(inputs):
        sizes: Sequence[Dim] = known.type.shape if isinstance(known, Value) else () if known is None else (known,)
        for place, size in enumerate(sizes):
            axis = place if isinstance(known, Value) else None
            if isinstance(size, sympy.Symbol):
                found.setdefault(size.name, Reading(position, axis))
            elif isinstance(size, sympy.Expr) and axis is None and (pair := _difference(size)) is not None:
                found.update({pair[0]: Reading(position, sign=1), pair[1]: Reading(position, sign=-1)})
            elif isinstance(size, sympy.Expr) and len(size.free_symbols) == 1:
                inexact.update(_solved(size, position, axis))
    return {**inexact, **found}


def _difference(size: sympy.Expr) -> tuple[str, str] | None:
    """The names of a and b in `a - b`: a number that may be negative."""
    if len(size.args) != 2 or not size.is_Add:
        return None
    first, second = sorted(size.args, key=lambda t: not isinstance(t, sympy.Symbol))
    plain = isinstance(first, sympy.Symbol) and isinstance(-second, sympy.Symbol)
    return (first.name, (-second).name) if plain else None


def _solved(size: sympy.Expr, position: int, axis: int | None) -> Mapping[str, Reading]:
    """The symbol of a size `factor * symbol + offset`."""
    (symbol,) = size.free_symbols
    offset, rest = size.as_coeff_Add()
    factor, variable = rest.as_coeff_Mul()
    if variable != symbol or not (factor.is_Integer and offset.is_Integer) or factor <= 0:
        return {}
    return {symbol.name: Reading(position, axis, factor=int(factor), offset=int(offset))}
