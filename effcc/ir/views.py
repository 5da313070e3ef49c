"""One piece of memory in two shapes: which dimensions of one hold which of the other, and the strides of the view.

>>> from effcc.ir.dtypes import f32
>>> print(viewed(TensorType(f32, (2, 64, 32, 32), (65536, 1, 2048, 64)), (2, 8, 8, 1024)))
f32[2,8,8,1024]{65536,8,1,64}
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from effcc.ir.dims import Dim, Shape, dim, product, same
from effcc.ir.types import TensorType

Run = tuple[range, range]
"""Neighbouring dimensions of one shape and of the other that have as many elements."""


def runs(shape: Shape, other: Shape) -> list[Run] | None:
    """The shortest runs that two shapes with as many elements come apart in; None where that cannot be told."""
    found: list[Run] = []
    i = j = 0
    while i < len(shape) and j < len(other):
        first, second = i, j
        a, b = shape[i], other[j]
        i, j = i + 1, j + 1
        while not same(a, b):
            if not isinstance(a, int) or not isinstance(b, int):
                return None
            if a < b and i < len(shape):
                a, i = dim(a * shape[i]), i + 1
            elif a > b and j < len(other):
                b, j = dim(b * other[j]), j + 1
            else:
                return None
        found.append((range(first, i), range(second, j)))
    rest = (*shape[i:], *other[j:])
    if any(n != 1 for n in rest) or (rest and not found):
        return None
    if rest:
        own, theirs = found[-1]
        found[-1] = (range(own.start, len(shape)), range(theirs.start, len(other)))
    return found


def viewed(type: TensorType, shape: Shape) -> TensorType | None:
    """A tensor in memory as it is, in another shape; None where its strides do not allow that, or it cannot be told."""
    found = runs(type.shape, shape)
    if found is None:
        return None
    strides: list[Dim] = [1] * len(shape)
    for own, theirs in found:
        kept = [d for d in own if type.shape[d] != 1] or [own[-1]]
        if not all(_follow(type, a, b) for a, b in pairwise(kept)):
            return None
        step = type.layout[kept[-1]]
        for d in reversed(theirs):
            strides[d] = step
            step = dim(step * shape[d])
    return replace(type, shape=shape, strides=tuple(strides))


def _follow(type: TensorType, outer: int, inner: int) -> bool:
    """Whether one step along a dimension goes as far as all steps along the next."""
    return same(type.layout[outer], product((type.layout[inner], type.shape[inner])))


def holder(shape: Shape, other: Shape, position: int) -> int | None:
    """The dimension of `shape` that moves as a dimension of the view `other` does, step by step; None where none."""
    for own, theirs in runs(shape, other) or ():
        if position in theirs:
            inner = [d for d in own if shape[d] != 1]
            last = [d for d in theirs if other[d] != 1]
            return inner[-1] if inner and last and position == last[-1] else None
    return None


__all__ = ["holder", "runs", "viewed"]
