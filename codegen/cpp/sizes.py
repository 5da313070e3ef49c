"""Sizes (integers or sympy expressions over size symbols) as C++ text of type i64, numbers made of sizes as doubles."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import sympy

from effcc.errors import UnsupportedError
from effcc.ir.dims import Dim
from effcc.ir.size_functions import SizeFunction, is_real


def size_text(size: Dim) -> str:
    """`size` in C++, without parentheses around it; symbols are variables of their own names.

    >>> from effcc.ir.dims import symbol
    >>> size_text(2 * symbol("s0") + 1)
    '2 * s0 + 1'

    Raises UnsupportedError for a function of sizes that has no spelling.
    """
    return str(size) if isinstance(size, int) else _text(sympy.sympify(size), 0)


def size_factor(size: Dim) -> str:
    """`size` in C++ as a factor: in parentheses where it is a sum."""
    return str(size) if isinstance(size, int) else _text(sympy.sympify(size), 1)


@functools.lru_cache(maxsize=4096)
def _text(e: sympy.Expr, level: int) -> str:
    """`level` 0: anything may stand here; 1: a factor, so sums need parentheses; 2: an operand of a division."""
    if (is_real(e) and not e.args) or e in (sympy.oo, -sympy.oo, sympy.nan):
        return _double(float(e))
    if e.is_Integer or e.is_Symbol:
        return str(e) if e.is_nonnegative or level == 0 else f"({e})"
    if e.is_Add:
        return _parenthesize(_sum(e), level > 0)
    if e.is_Mul:
        numerator, denominator = sympy.fraction(e)
        if denominator != 1:
            return f"floor_divide<i64>({_text(numerator, 0)}, {_text(denominator, 0)})"
        return _parenthesize(" * ".join(_text(f, 1) for f in _ordered_factors(e)), level > 1)
    if e.is_Pow and e.exp.is_Integer and e.exp > 0:
        return _parenthesize(" * ".join([_text(e.base, 1)] * int(e.exp)), level > 1)
    return _function(e)


def _sum(e: sympy.Expr) -> str:
    terms = sorted(e.args, key=lambda t: (t.is_Number, str(t)))
    text = _text(terms[0], 0)
    for term in terms[1:]:
        text += f" - {_text(-term, 1)}" if term.could_extract_minus_sign() else f" + {_text(term, 0)}"
    return text


def _ordered_factors(e: sympy.Expr) -> list[sympy.Expr]:
    return sorted(e.args, key=lambda f: (not f.is_Number, str(f)))


def _function(e: sympy.Expr) -> str:
    """A function of sizes: `effcc.ir.dims.dim` leaves floors, the one form of divisions, and extremes."""
    name = e.func.__name__
    if isinstance(e, SizeFunction):
        return f"size_{name}({', '.join(_text(a, 0) for a in e.args)})"
    if name == "floor":
        numerator, denominator = sympy.fraction(sympy.together(e.args[0]))
        return f"floor_divide<i64>({_text(numerator, 0)}, {_text(denominator, 0)})"
    if name in ("Max", "Min"):
        function = "maximum" if name == "Max" else "minimum"
        text = _text(e.args[0], 0)
        for other in e.args[1:]:
            text = f"{function}<i64>({text}, {_text(other, 0)})"
        return text
    raise UnsupportedError(
        f"the size expression {e} has no C++ spelling: expected sums, products, floor divisions, Max, Min and "
        f"effcc.ir.size_functions of sizes, got {name}"
    )


def _double(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"


def _parenthesize(text: str, needed: bool) -> str:
    return f"({text})" if needed else text


def size_headers(sizes: Iterable[Dim]) -> frozenset[str]:
    """The headers that the text of some sizes needs."""
    return frozenset(h for size in sizes if not isinstance(size, int) for h in _headers(sympy.sympify(size)))


@functools.lru_cache(maxsize=4096)
def _headers(size: sympy.Expr) -> frozenset[str]:
    parts = list(sympy.preorder_traversal(size))
    divides = any(isinstance(p, sympy.floor) or (p.is_Mul and sympy.fraction(p)[1] != 1) for p in parts)
    calls = any(isinstance(p, SizeFunction) for p in parts)
    return frozenset((["pow.h"] if divides else []) + (["sizes.h"] if calls else []))
