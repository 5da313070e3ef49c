"""Divisions in index arithmetic that ranges decide: `(c*x + y) // c` is x, and `(c*x + y) % c` is y, where 0 <= y < c;
`(g*x + y) // (g*d)` is `x // d` where 0 <= y < g; and `(c*d*x + y) // d % c` is `y // d % c` whatever y is.

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
    >>> fold_division(modulo(merged, Const(8, i64)), {"y": 9}.get) == modulo(Axis("y"), Const(8, i64))
    True
    >>> inner = floor_div(add(multiply(Axis("x"), Const(32, i64)), Axis("y")), Const(4, i64))
    >>> left = modulo(floor_div(Axis("y"), Const(4, i64)), Const(8, i64))
    >>> fold_division(modulo(inner, Const(8, i64)), {}.get) == left
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
            return _in_two(e, dividend, c, extent) or _without_multiples(e, dividend, c, step)
    return e


def _without_multiples(e: Call, dividend: Expr, c: int, step: Callable[[str], int]) -> Expr:
    """`(c*x + y) % c` as `y % c`, and `(c*d*x + y) // d % c` as `y // d % c`, where y is surely not below 0."""
    if e.function != "mod":
        return e
    inside, d = dividend, 1
    match dividend:
        case Call("floordiv", (divided, Const(value=by))) if isinstance(by, int) and by > 0:
            inside, d = divided, by
    terms = summands(inside)
    rest = [t for t in terms if not _is_multiple(t, c * d, step)]
    if len(rest) == len(terms) or not all(map(_is_natural, rest)):
        return e
    kept: Expr = Const(0, i64)
    for term in rest:
        kept = add(kept, term)
    return modulo(kept if d == 1 else floor_div(kept, Const(d, i64)), Const(c, i64))


def _is_natural(e: Expr) -> bool:
    """Whether a term is at least 0, whatever its axes are."""
    match e:
        case Const(value=v):
            return bool(v >= 0)
        case Axis():
            return True
        case Call("add" | "mul", (a, b)):
            return _is_natural(a) and _is_natural(b)
        case Call("floordiv" | "mod", (a, Const(value=c))):
            return bool(c > 0) and _is_natural(a)
    return False


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
