"""A group's codes are summed before its scale: a sum over several vectors of elements is written out, vector by vector,
and what all of them are multiplied with is moved out of it. With 16 bytes to a group and lanes for 8 floats,

    O[n] = sum(j, i: f32(Q[n,16*j+i]) * X[j,i] * S[n,j])                                       over j=18, i=16

becomes

    O[n] = sum(j, i: (f32(Q[n,16*j+i+8]) * X[j,i+8] + f32(Q[n,16*j+i]) * X[j,i]) * S[n,j])     over j=18, i=8

which multiplies with the scale once for 16 elements, lane by lane: nothing is added up across lanes before the row
ends, and what takes the place of shifts or offsets stays beside what it corrects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce as fold

from effcc.ir.dtypes import i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, add, free_axes, loads, substitute_axes

VECTORS = 8
"""So many vectors of a group are written out at most: a group of 128 codes of four bits with AVX2."""


@dataclass(frozen=True)
class Vectors:
    """`count` vectors of `lanes` elements along an axis; `lane` names the axis that is left of it."""

    axis: str
    lane: str
    lanes: int
    count: int

    def at(self, e: Expr, vector: int) -> Expr:
        """An expression's vector: its axis is a constant and the lane."""
        return substitute_axes(e, {self.axis: add(Axis(self.lane), Const(vector * self.lanes, i64))})


def sum_vectors(
    body: Expr, vectors: Vectors, alike: Callable[[Expr], bool], stored: Callable[[Expr], Expr]
) -> Expr | None:
    """What a sum over an axis adds up, summed over its vectors; None where nothing could be moved out of that sum.

    alike: whether all rows compute an expression alike; their sum over vectors is an expression of that kind. stored:
    gives what takes the place of other expressions.
    """
    terms = _terms(body, vectors.axis)
    if not any(outside for _, outside in terms) or _looks_up(body):
        return None
    total: Expr | None = None
    for inside, outside in terms:
        made = _summed(inside, vectors, alike, stored)
        factors = [stored(f) for f in outside]
        total = _plus(fold(_times, factors, made), total)
    return total


def _terms(e: Expr, axis: str) -> list[tuple[Expr, tuple[Expr, ...]]]:
    """The terms of a sum, the innermost first: of each what depends on an axis, and the factors that do not."""
    match e:
        case Call("mul_add", (a, b, c)):
            return [*_terms(c, axis), _apart(Call("mul", (a, b), e.dtype), axis)]
        case Call("add", (a, b)):
            return [*_terms(a, axis), *_terms(b, axis)]
    return [_apart(e, axis)]


def _apart(e: Expr, axis: str) -> tuple[Expr, tuple[Expr, ...]]:
    match e:
        case Call("mul", (a, b)) if axis not in free_axes(b):
            inside, outside = _apart(a, axis)
            return inside, (*outside, b)
        case Call("mul", (a, b)) if axis not in free_axes(a):
            inside, outside = _apart(b, axis)
            return inside, (*outside, a)
    return e, ()


def _summed(e: Expr, vectors: Vectors, alike: Callable[[Expr], bool], stored: Callable[[Expr], Expr]) -> Expr:
    """The sum of an expression's vectors: first what all rows compute alike, then one vector after the other."""
    parts = [Call("mul", f, e.dtype) if len(f) == 2 else f[0] for f in _products(e)]
    points = [vectors.at(part, n) for n in range(vectors.count) for part in parts if alike(part)]
    total = stored(fold(lambda a, b: Call("add", (a, b), a.dtype), points)) if points else None
    own = [stored(p) for p in parts if not alike(p)]
    for vector in range(vectors.count):
        for part in own:
            total = _plus(vectors.at(part, vector), total)
    assert total is not None
    return total


def _products(e: Expr) -> list[tuple[Expr, ...]]:
    match e:
        case Call("mul_add", (a, b, c)):
            return [*_products(c), (a, b)]
        case Call("add", (a, b)):
            return [*_products(a), *_products(b)]
    return [(e,)]


def _plus(e: Expr, total: Expr | None) -> Expr:
    """A sum with one more term: a product and a sum are rounded once."""
    match e:
        case _ if total is None:
            return e
        case Call("mul", (a, b)):
            return Call("mul_add", (a, b, total), e.dtype)
    return Call("add", (total, e), e.dtype)


def _times(a: Expr, b: Expr) -> Expr:
    return Call("mul", (a, b), a.dtype)


def _looks_up(e: Expr) -> bool:
    """Whether something is read at a place that is read: codes of a table are looked up for a whole register."""
    return any(isinstance(x, Load) and any(loads(i) for i in x.index) for x in loads(e))


__all__ = ["VECTORS", "Vectors", "sum_vectors"]
