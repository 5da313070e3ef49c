"""Divisions in index arithmetic that ranges decide: `(c*x + y) // c` is x, and `(c*x + y) % c` is y, where 0 <= y < c;
and `(g*x + y) // (g*d)` is `x // d` where 0 <= y < g.

Views that merge and split dimensions leave them behind. Whoever knows the ranges of axes (the axes' extents, or the
loops that stand around) folds them here, so that strides show where divisions stood.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

from effcc.ir.dtypes import i64
from effcc.ir.expr import Axis, Call, Const, Expr, add, floor_div, modulo, multiply, summands


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
    >>> fold_division(floor_div(merged, Const(32, i64)), {"y": 8}.get) == floor_div(Axis("x"), Const(4, i64))
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
            return _in_two(e, dividend, c, extent) or e
    return e


def _in_two(e: Call, dividend: Expr, c: int, extent: Callable[[str], int | None]) -> Expr | None:
    """`(g*x + y) // c` as `x // (c/g)`, `(g*x + y) % c` as `g * (x % (c/g)) + y`, where g divides c and 0 <= y < g."""
    terms = summands(dividend)
    for g in sorted({gcd(_factor(t), c) for t in terms}, reverse=True):
        small = [t for t in terms if _factor(t) % g]
        bounds = [_largest(t, extent) for t in small]
        if not 1 < g < c or not small or any(b is None for b in bounds) or sum(b or 0 for b in bounds) >= g:
            continue
        whole: Expr = Const(0, i64)
        for t in terms:
            whole = whole if t in small else add(whole, _exact_quotient(t, g))
        if e.function == "floordiv":
            return floor_div(whole, Const(c // g, i64))
        rest = multiply(modulo(whole, Const(c // g, i64)), Const(g, i64))
        for t in small:
            rest = add(rest, t)
        return rest
    return None


def _factor(e: Expr) -> int:
    """What a term is a multiple of for all values of its axes."""
    match e:
        case Const(value=v) | Call("mul", (_, Const(value=v))):
            return abs(int(v)) or 1
    return 1


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
