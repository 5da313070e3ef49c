"""Divisions of sizes in one form: equal sizes that models spell with remainders, ceilings and floors look alike.

A remainder is `a - n * floor(a / n)`, a ceiling `-floor(-a)`. What is whole leaves a floor, so that coefficients of
what stays lie in [0, 1): `floor(9*s/8 + 1)` is `s + floor(s/8) + 1`. Rounding up and rounding down are the same
function of different sums, `floor((n - 1 - p) / n)` is `-floor(p / n)` for whole p; of the two, the one with the
smaller leading coefficient stays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import sympy


def has_division(size: sympy.Expr) -> bool:
    """Whether a size rounds anything."""
    return bool(size.has(sympy.floor, sympy.ceiling, sympy.Mod))


@functools.lru_cache(maxsize=4096)
def normal_divisions(size: sympy.Expr) -> sympy.Expr:
    """`size` with its divisions in their one form.

    >>> s = sympy.Symbol("s", integer=True, nonnegative=True)
    >>> padded = s + sympy.Mod(-s, 8)
    >>> normal_divisions(padded)
    8*floor(s/8 + 7/8)
    >>> normal_divisions(sympy.floor(padded / normal_divisions(sympy.floor(padded / 8))))
    8
    """
    if not size.args:
        return size
    args = [normal_divisions(a) for a in size.args]
    if isinstance(size, sympy.Mod):
        dividend, divisor = args
        return sympy.expand(dividend - divisor * _floor(dividend / divisor))
    if isinstance(size, sympy.ceiling):
        return sympy.expand(-_floor(-args[0]))
    return _floor(args[0]) if isinstance(size, sympy.floor) else size.func(*args)


def _floor(quotient: sympy.Expr) -> sympy.Expr:
    """The floor of an expression whose own divisions are in normal form."""
    whole: list[sympy.Expr] = []
    fractions: dict[sympy.Expr, sympy.Rational] = {}
    reduced = sympy.cancel(quotient) if quotient.has(sympy.Pow) else quotient
    for term in sympy.Add.make_args(sympy.expand(reduced)):
        coefficient, factor = term.as_coeff_Mul()
        if not factor.is_integer or not coefficient.is_Rational:
            return sympy.floor(quotient)
        step = coefficient.p // coefficient.q
        whole.append(step * factor)
        if coefficient != step:
            fractions[factor] = coefficient - step
    constant = fractions.pop(sympy.S.One, sympy.S.Zero)
    return sympy.Add(*whole, _floor_of_fractions(fractions, constant))


def _floor_of_fractions(fractions: Mapping[sympy.Expr, sympy.Rational], constant: sympy.Rational) -> sympy.Expr:
    """The floor of a sum of whole numbers times fractions in (0, 1) and a constant in [0, 1)."""
    if not fractions:
        return sympy.S.Zero
    n = math.lcm(*(c.q for c in fractions.values()))
    down = [*fractions.values(), sympy.Rational(math.floor(n * constant), n)]
    up = [*(1 - c for c in fractions.values()), sympy.Rational(n - 1, n) - down[-1]]
    factors = [*fractions, sympy.S.One]
    order = [*sorted(range(len(fractions)), key=lambda i: sympy.default_sort_key(factors[i])), -1]
    if [down[i] for i in order] <= [up[i] for i in order]:
        return sympy.floor(_dot(down, factors))
    return sympy.Add(*fractions) - sympy.floor(_dot(up, factors))


def _dot(coefficients: Sequence[sympy.Expr], factors: Sequence[sympy.Expr]) -> sympy.Expr:
    return sympy.Add(*(c * f for c, f in zip(coefficients, factors, strict=True)))
