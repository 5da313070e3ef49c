"""Sizes (integers or sympy expressions over size symbols) as Python text that Triton and the launcher both read."""

from __future__ import annotations

import sympy

from effcc.errors import UnsupportedError
from effcc.ir.dims import Dim
from effcc.ir.dtypes import f64
from effcc.ir.expr import Call, Const, Expr, Size
from effcc.ir.scalars import FUNCTIONS
from effcc.ir.size_functions import SizeFunction

SUM, FACTOR, ATOM = 0, 1, 2
"""What may stand at a place without parentheses: anything, a product, or a name alone."""


def size_text(size: Dim, place: int = SUM) -> str:
    """`size` in Python; symbols are variables of their own names. Triton's `//` rounds towards zero, Python's down.

    >>> from effcc.ir.dims import symbol
    >>> size_text(2 * symbol("s0") + 1)
    '2 * s0 + 1'

    Raises UnsupportedError for a function of sizes that has no spelling.
    """
    return str(size) if isinstance(size, int) else _text(sympy.sympify(size), place)


def _text(e: sympy.Expr, place: int) -> str:
    if e.is_Integer or e.is_Symbol:
        return str(e) if e.is_Symbol or e >= 0 or place == SUM else f"({e})"
    if e.is_Add:
        terms = sorted(e.args, key=lambda t: (t.is_Number, str(t)))
        return _enclosed(" + ".join(_text(t, SUM) for t in terms).replace("+ -", "- "), place > SUM)
    if e.is_Mul:
        numerator, denominator = sympy.fraction(e)
        if denominator != 1:
            return _quotient(numerator, denominator, place)
        factors = sorted(e.args, key=lambda f: (not f.is_Number, str(f)))
        return _enclosed(" * ".join(_text(f, FACTOR) for f in factors), place > FACTOR)
    if e.is_Pow and e.exp.is_Integer and e.exp > 0:
        return _enclosed(" * ".join([_text(e.base, FACTOR)] * int(e.exp)), place > FACTOR)
    name = e.func.__name__
    if name == "floor":
        numerator, denominator = sympy.fraction(sympy.together(e.args[0]))
        return _quotient(numerator, denominator, place)
    if name in ("Max", "Min"):
        return f"{name.lower()}({', '.join(_text(a, SUM) for a in e.args)})"
    raise UnsupportedError(
        f"the size expression {e} has no Triton spelling: expected sums, products, floor divisions, Max and "
        f"Min of sizes, got {name}"
    )


def _quotient(numerator: sympy.Expr, denominator: sympy.Expr, place: int) -> str:
    n, d = _text(numerator, ATOM), _text(denominator, ATOM)
    if numerator.is_nonnegative:
        return _enclosed(f"{n} // {d}", place > SUM)
    # Without its remainder, which is brought to 0 .. d - 1, a dividend of either sign is divided without rounding.
    return _enclosed(f"({n} - ({n} % {d} + {d}) % {d}) // {d}", place > SUM)


_CALLS = {"fadd": "add", "fmul": "mul", "fdiv": "div", "ratio": "div", "fpow": "pow", "fmax": "maximum",
          "fmin": "minimum", "fabs": "abs", "ftrunc": "trunc"}  # fmt: skip


def calls(value: sympy.Expr) -> Expr:
    """A double made of sizes as calls of scalar functions. Raises UnsupportedError for one that is none of them."""
    if value.is_Float:
        return Const(float(value), f64)
    if not isinstance(value, SizeFunction):
        return Call("cast", (Size(value),), f64)
    name = value.entry.name
    if name == "real":
        return calls(value.args[0])
    found = _CALLS.get(name, name if value.entry.takes == "f" and value.entry.real else None)
    if found not in FUNCTIONS:
        raise UnsupportedError(f"the number {value} has no Triton spelling: expected sums, products, powers and roots")
    return Call(found, tuple(map(calls, value.args)), f64)


def _enclosed(text: str, needed: bool) -> str:
    return f"({text})" if needed else text
