"""Divisions in index arithmetic that ranges decide: `(c*x + y) // c` is x, and `(c*x + y) % c` is y, where 0 <= y < c.

Views that merge and split dimensions leave them behind. Whoever knows the ranges of axes (the axes' extents, or the
loops that stand around) folds them here, so that strides show where divisions stood.
"""

from __future__ import annotations

from collections.abc import Callable

from effcc.ir.dtypes import i64
from effcc.ir.expr import Axis, Call, Const, Expr, add, floor_div, multiply, summands


def _any_step(axis: str) -> int:
    return 1


def fold_division(e: Expr, extent: Callable[[str], int | None], step: Callable[[str], int] = _any_step) -> Expr:
    """`e` itself, or what it is equal to where it divides a sum by a constant and the ranges of axes decide that.

    extent: a bound for an axis, whose values are 0 to extent - 1; None where none is known. step: what an axis's values
    are multiples of.

    >>> from effcc.ir.expr import modulo
    >>> merged = add(multiply(Axis("x"), Const(8, i64)), Axis("y"))
    >>> fold_division(floor_div(merged, Const(8, i64)), {"y": 8}.get) == Axis("x")
    True
    >>> fold_division(modulo(merged, Const(8, i64)), {"y": 9}.get) == modulo(merged, Const(8, i64))
    True
    """
    match e:
        case Call("floordiv" | "mod", (dividend, Const(value=c))) if isinstance(c, int) and c > 0:
            quotient: Expr = Const(0, i64)
            rest: Expr = Const(0, i64)
            largest: int | None = 0
            for term in summands(dividend):
                if _is_multiple(term, c, step):
                    quotient = add(quotient, _exact_quotient(term, c))
                    continue
                rest = add(rest, term)
                bound = _largest(term, extent)
                largest = None if largest is None or bound is None else largest + bound
            if largest is not None and largest < c:
                return quotient if e.function == "floordiv" else rest
    return e


def _is_multiple(e: Expr, c: int, step: Callable[[str], int]) -> bool:
    match e:
        case Const(value=v):
            return int(v) % c == 0
        case Axis(name=name):
            return step(name) % c == 0
        case Call("mul", (a, b)):
            return _is_multiple(a, c, step) or _is_multiple(b, c, step)
    return False


def _exact_quotient(multiple: Expr, c: int) -> Expr:
    match multiple:
        case Call("mul", (a, Const(value=v))) if v % c == 0:
            return multiply(a, Const(v // c, i64))
    return floor_div(multiple, Const(c, i64))


def _largest(e: Expr, extent: Callable[[str], int | None]) -> int | None:
    """An upper bound of a term that is at least 0; None where none is known, or the term may be negative."""
    match e:
        case Const(value=v) if v >= 0:
            return int(v)
        case Axis(name=name):
            size = extent(name)
            return None if size is None else size - 1
        case Call("mul", (a, Const(value=v))) if v >= 0:
            factor = _largest(a, extent)
            return None if factor is None else factor * int(v)
        case Call("add", (a, b)):
            left, right = _largest(a, extent), _largest(b, extent)
            return None if left is None or right is None else left + right
        case Call("floordiv", (a, Const(value=c))) if c > 0:
            dividend = _largest(a, extent)
            return None if dividend is None else dividend // int(c)
        case Call("mod", (a, Const(value=c))) if c > 0:
            dividend = _largest(a, extent)
            return int(c) - 1 if dividend is None else min(dividend, int(c) - 1)
    return None
