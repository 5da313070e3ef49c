"""The functions of sizes beyond sums, products and floors: name, arguments, result, and Python's own computation.

`effcc.ir.size_functions` makes sympy's functions of them; packages, which load without sympy, compute by this table.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

Number = int | float
_MOST_BITS = 4096


@dataclass(frozen=True)
class Entry:
    """One function.

    takes: a letter for each argument, `i` for an integer, `f` for a double. real: its result is a double, else an
    integer, which is at least `least`.
    """

    name: str
    takes: str
    compute: Callable[..., Number]
    real: bool = False
    least: int | None = None

    @property
    def arity(self) -> int:
        return len(self.takes)


def _fpow(a: float, b: float) -> float:
    result = a**b
    if isinstance(result, complex):
        raise ValueError(f"{a} ** {b} is no real number")
    return result


def _ratio(a: int, b: int) -> float:
    return a / b


def _power(a: int, b: int) -> int:
    if b < 0:
        raise ValueError(f"{a} ** {b} is no integer")
    if b * a.bit_length() > _MOST_BITS:
        raise OverflowError(f"{a} ** {b} has more than {_MOST_BITS} bits")
    return int(a**b)


_UNARY = (
    "sqrt", "cos", "cosh", "sin", "sinh", "tan", "tanh", "asin", "acos", "atan", "exp", "log", "asinh", "log2",
)  # fmt: skip

TABLE: tuple[Entry, ...] = (
    # Integers of doubles, as int(x), math.floor(x), math.ceil(x) and round(x) give them.
    Entry("trunc", "f", math.trunc),
    Entry("lower", "f", math.floor),
    Entry("upper", "f", math.ceil),
    Entry("nearest", "f", lambda x: round(x)),
    # Integers of integers. `choose` takes one of two as its first argument is 1 or 0.
    Entry("power", "ii", _power),
    Entry("bitand", "ii", operator.and_),
    Entry("bitor", "ii", operator.or_),
    Entry("bitxor", "ii", operator.xor),
    Entry("choose", "iii", lambda c, a, b: a if c else b),
    # Comparisons give 1 or 0; of integers, or of doubles.
    Entry("lt", "ii", lambda a, b: int(a < b), least=0),
    Entry("le", "ii", lambda a, b: int(a <= b), least=0),
    Entry("eq", "ii", lambda a, b: int(a == b), least=0),
    Entry("flt", "ff", lambda a, b: int(a < b), least=0),
    Entry("fle", "ff", lambda a, b: int(a <= b), least=0),
    Entry("feq", "ff", lambda a, b: int(a == b), least=0),
    # Doubles of integers, and of doubles.
    Entry("real", "i", float, real=True),
    Entry("ratio", "ii", _ratio, real=True),
    Entry("fadd", "ff", operator.add, real=True),
    Entry("fmul", "ff", operator.mul, real=True),
    Entry("fdiv", "ff", operator.truediv, real=True),
    Entry("fpow", "ff", _fpow, real=True),
    Entry("fmod", "ff", operator.mod, real=True),
    Entry("fmax", "ff", max, real=True),
    Entry("fmin", "ff", min, real=True),
    Entry("fabs", "f", abs, real=True),
    Entry("ftrunc", "f", lambda x: float(math.trunc(x)), real=True),
    Entry("fround", "fi", lambda x, digits: round(x, digits), real=True),
    Entry("fchoose", "iff", lambda c, a, b: a if c else b, real=True),
    *(Entry(name, "f", getattr(math, name), real=True) for name in _UNARY),
)
