"""Functions of sizes beyond sums, products and floors: what Python computes from a size, number for number.

    trunc(fmul(real(s0), 0.7))        int(n * 0.7)
    fdiv(1.0, fpow(real(s0), 0.5))    1 / n ** 0.5

Reals are IEEE doubles, operation by operation as a model wrote them: nothing is reordered, and no identity of the real
numbers is used. So they are functions that sympy knows nothing of; what it may know (a result is an integer, or is not
negative) is said here. One table: name, how many arguments, what the result is, and Python's own computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import sympy

from effcc.ir.size_table import TABLE, Entry, Number


class SizeFunction(sympy.Function):
    """The base of all functions here; `FUNCTIONS` has them by name."""

    entry: Entry

    @classmethod
    def eval(cls, *args: Any) -> Any:
        """Constants are folded, except where Python raises: that is left for the run."""
        if not all(a.is_Number for a in args):
            return None
        try:
            return constant(cls.entry.compute(*map(plain, args)))
        except (ArithmeticError, ValueError):
            return None

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """As the function's name and its arguments: the classes here are no module's attributes."""
        return _again, (self.entry.name, self.args)


def _again(name: str, args: tuple[Any, ...]) -> sympy.Expr:
    return FUNCTIONS[name](*args, evaluate=False)


def _made(entry: Entry) -> type[SizeFunction]:
    known = {
        "entry": entry,
        "nargs": entry.arity,
        "is_integer": None if entry.real else True,
        "is_real": True,
        "is_nonnegative": True if entry.least == 0 else None,
    }
    return type(entry.name, (SizeFunction,), known)


FUNCTIONS: Mapping[str, type[SizeFunction]] = {entry.name: _made(entry) for entry in TABLE}


def is_real(value: object) -> bool:
    """Whether a number made of sizes is a double; sizes themselves and what is an integer of them are not."""
    return isinstance(value, sympy.Float) or (isinstance(value, SizeFunction) and value.entry.real)


def constant(value: Number) -> sympy.Expr:
    """A Python number as sympy's, doubles with all their bits."""
    if isinstance(value, bool | int):
        return sympy.Integer(int(value))
    if math.isnan(value):
        return sympy.nan
    return sympy.Float(value) if math.isfinite(value) else sympy.oo if value > 0 else -sympy.oo


def plain(value: Any) -> Number:
    """A sympy number as Python's."""
    return int(value) if value.is_Integer else float(value)


def compute(e: sympy.Expr, bindings: Mapping[str, int]) -> Number:
    """The value of an expression of sizes, where each symbol has the value that `bindings` gives for its name.

    Raises what Python raises for the same arithmetic: ZeroDivisionError, OverflowError, ValueError.
    """
    found = _compute(e, bindings)
    return int(found) if isinstance(found, Fraction) else found


def _compute(e: Any, bindings: Mapping[str, int]) -> Any:
    if e.is_Symbol:
        return bindings[e.name]
    if e.is_Rational:
        return int(e) if e.is_Integer else Fraction(int(e.p), int(e.q))
    if not e.args:
        return float(e)
    parts = [_compute(a, bindings) for a in e.args]
    if isinstance(e, SizeFunction):
        return e.entry.compute(*parts)
    if e.is_Add:
        return sum(parts)
    if e.is_Mul:
        return math.prod(parts)
    if e.is_Pow:
        base, exponent = parts
        return base**exponent if exponent >= 0 else Fraction(1, base**-exponent)
    return _ROUNDED[e.func](*parts)


_ROUNDED: Mapping[Any, Callable[..., Any]] = {
    sympy.floor: math.floor,
    sympy.ceiling: math.ceil,
    sympy.Max: max,
    sympy.Min: min,
    sympy.Mod: lambda a, b: a % b,
    sympy.Abs: abs,
}
"""The functions of sympy's own that sizes are made of."""
