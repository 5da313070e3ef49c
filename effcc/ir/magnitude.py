"""How large integers become that a program computes from its sizes and numbers: Python's do not end, a kernel's do.

    k * 3 + n        for k, n up to 1000: 4000
    (k * k) // 7     for k up to 2**32: 2**64 on the way, which 64 bits do not hold

What is counted is an upper bound, of the result and of all that is computed on the way to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy

from effcc.ir.dims import Dim, symbols
from effcc.ir.size_functions import SizeFunction, is_real

LARGEST = 2**63 - 1
_MOST_BITS = 256
_ENDLESS = 2**_MOST_BITS
_NUMBER = 2**64
"""A number among the arguments may be so large, or larger."""
_OF_A_DOUBLE = 2**53  # what an integer is taken to be at most that was rounded from a double


def magnitude(e: Dim, limits: Mapping[str, int]) -> int:
    """The largest absolute value that occurs where `e` is computed, if symbols are at most as `limits` say by name.

    >>> s = sympy.Symbol("s", integer=True, nonnegative=True)
    >>> magnitude(3 * s + 1, {"s": 1000}), magnitude(sympy.floor(s * s / 7), {"s": 10})
    (3001, 100)
    """
    if isinstance(e, int):
        return abs(e)
    largest = [0]
    _bound(e, limits, largest)
    return largest[0]


def _bound(e: Any, limits: Mapping[str, int], largest: list[int]) -> int:
    """At most how large `e` is; the largest integer on the way goes to `largest`."""
    if e.is_Symbol:
        found = limits[e.name]
    elif e.is_Rational:
        found = max(abs(int(e.p)), int(e.q))
    elif not e.args:
        return _OF_A_DOUBLE
    elif isinstance(e, sympy.floor | sympy.ceiling):
        numerator, denominator = sympy.fraction(sympy.together(e.args[0]))
        found = _bound(numerator, limits, largest)
        _bound(denominator, limits, largest)
    elif isinstance(e, SizeFunction):
        found = _of_function(e, limits, largest)
    elif e.is_Pow:
        base, exponent = e.args
        found = _power(_bound(base, limits, largest), int(exponent) if exponent.is_Integer else _MOST_BITS)
    else:
        parts = [_bound(a, limits, largest) for a in e.args]
        found = sum(parts) if e.is_Add else _product(parts) if e.is_Mul else max(parts)
    if not is_real(e):
        largest[0] = max(largest[0], found)
    return found


def _of_function(e: SizeFunction, limits: Mapping[str, int], largest: list[int]) -> int:
    parts = [_bound(a, limits, largest) for a in e.args]
    name = e.entry.name
    if name == "power":
        return _power(*parts)
    if name.startswith("bit"):
        return 2 * max(parts)
    if name == "choose":
        return max(parts[1:])
    if e.entry.real:
        return _OF_A_DOUBLE
    return 1 if e.entry.least == 0 else _OF_A_DOUBLE


def _power(base: int, exponent: int) -> int:
    if base <= 1 or exponent <= 0:
        return base
    return _ENDLESS if exponent * base.bit_length() > _MOST_BITS else base**exponent


def _product(parts: Sequence[int]) -> int:
    found = 1
    for part in parts:
        found = min(found * max(part, 1), _ENDLESS)
    return found


@dataclass(frozen=True)
class Limits:
    """Up to which values of their symbols expressions can be computed with 64 bits.

    names: the symbols, in order. safe: no value up to this one makes any of the expressions leave 64 bits.
    """

    expressions: tuple[sympy.Expr, ...]
    names: tuple[str, ...] = ()
    safe: int = field(default=LARGEST)

    @staticmethod
    def of(expressions: Iterable[Dim], told: Mapping[str, int]) -> Limits:
        """The limits of those expressions that may leave 64 bits; `told` says by name how large symbols can be."""
        kept = []
        for e in dict.fromkeys(e for e in expressions if isinstance(e, sympy.Expr)):
            if magnitude(e, {s.name: told.get(s.name, _NUMBER) for s in e.free_symbols}) > LARGEST:
                kept.append(e)
        names = tuple(s.name for s in symbols(kept))
        safe = max((n for n in range(64) if _all_hold(kept, dict.fromkeys(names, 2**n - 1))), default=0)
        return Limits(tuple(kept), names, 2**safe - 1)

    def hold(self, values: Sequence[int]) -> bool:
        """Whether everything fits where the symbols have these values."""
        if not values or max(values) <= self.safe:
            return True
        return max(values) <= LARGEST and _all_hold(self.expressions, dict(zip(self.names, values, strict=True)))


def _all_hold(expressions: Iterable[sympy.Expr], limits: Mapping[str, int]) -> bool:
    return all(magnitude(e, limits) <= LARGEST for e in expressions)
