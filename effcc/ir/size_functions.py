"""Functions of sizes beyond sums, products and floors: what Python computes from a size, number for number.

    trunc(fmul(real(s0), 0.7))        int(n * 0.7)
    fdiv(1.0, fpow(real(s0), 0.5))    1 / n ** 0.5

Reals are IEEE doubles, operation by operation as a model wrote them: nothing is reordered, and no identity of the real
numbers is used. So they are functions that sympy knows nothing of; what it may know (a result is an integer, or is not
negative) is said here. One table: name, how many arguments, what the result is, and Python's own computation.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy

Number = int | float


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


@dataclass(frozen=True)
class Entry:
    """One function: `real` results are doubles, others integers; `least` bounds an integer result from below."""

    name: str
    arity: int
    compute: Callable[..., Number]
    real: bool = False
    least: int | None = None


def _fpow(a: float, b: float) -> float:
    result = a**b
    if isinstance(result, complex):
        raise ValueError(f"{a} ** {b} is no real number")
    return result


def _ratio(a: int, b: int) -> float:
    return a / b


_UNARY = (
    "sqrt", "cos", "cosh", "sin", "sinh", "tan", "tanh", "asin", "acos", "atan", "exp", "log", "asinh", "log2",
)  # fmt: skip

TABLE: tuple[Entry, ...] = (
    # Integers of doubles, as int(x), math.floor(x), math.ceil(x) and round(x) give them.
    Entry("trunc", 1, math.trunc),
    Entry("lower", 1, math.floor),
    Entry("upper", 1, math.ceil),
    Entry("nearest", 1, lambda x: round(x)),
    # Integers of integers. `choose` takes one of two as its first argument is 1 or 0.
    Entry("power", 2, lambda a, b: a**b),
    Entry("bitand", 2, operator.and_),
    Entry("bitor", 2, operator.or_),
    Entry("bitxor", 2, operator.xor),
    Entry("choose", 3, lambda c, a, b: a if c else b),
    # Comparisons give 1 or 0; of integers, or of doubles.
    Entry("lt", 2, lambda a, b: int(a < b), least=0),
    Entry("le", 2, lambda a, b: int(a <= b), least=0),
    Entry("eq", 2, lambda a, b: int(a == b), least=0),
    Entry("flt", 2, lambda a, b: int(a < b), least=0),
    Entry("fle", 2, lambda a, b: int(a <= b), least=0),
    Entry("feq", 2, lambda a, b: int(a == b), least=0),
    # Doubles of integers, and of doubles.
    Entry("real", 1, float, real=True),
    Entry("ratio", 2, _ratio, real=True),
    Entry("fadd", 2, operator.add, real=True),
    Entry("fmul", 2, operator.mul, real=True),
    Entry("fdiv", 2, operator.truediv, real=True),
    Entry("fpow", 2, _fpow, real=True),
    Entry("fmod", 2, operator.mod, real=True),
    Entry("fmax", 2, max, real=True),
    Entry("fmin", 2, min, real=True),
    Entry("fabs", 1, abs, real=True),
    Entry("ftrunc", 1, lambda x: float(math.trunc(x)), real=True),
    Entry("fround", 2, lambda x, digits: round(x, digits), real=True),
    Entry("fchoose", 3, lambda c, a, b: a if c else b, real=True),
    *(Entry(name, 1, getattr(math, name), real=True) for name in _UNARY),
)


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
