"""Affine index arithmetic: what a step along an axis does to an index."""

from __future__ import annotations

from collections.abc import Mapping

from effcc.ir.dims import Dim, dim
from effcc.ir.expr import Axis, Call, Const, Expr, Size, walk


def coefficient(index: Expr, axis: str) -> Dim | None:
    """d(index)/d(axis) where `index` is affine in it; None where it is not (division, data-dependent)."""
    match index:
        case Axis():
            return 1 if index.name == axis else 0
        case Const() | Size():
            return 0
        case Call("add", (a, b)):
            left, right = coefficient(a, axis), coefficient(b, axis)
            return None if left is None or right is None else dim(left + right)
        case Call("sub", (a, b)):
            left, right = coefficient(a, axis), coefficient(b, axis)
            return None if left is None or right is None else dim(left - right)
        case Call("mul", (a, b)):
            for factor, rest in ((a, b), (b, a)):
                inner = coefficient(rest, axis)
                if isinstance(factor, Const | Size) and inner is not None:
                    return dim(inner * factor.value)
    return None if any(isinstance(e, Axis) and e.name == axis for e in walk(index)) else 0


def affine(index: Expr) -> tuple[Mapping[str, int], Dim] | None:
    """An index as coefficients by axis and a constant; None where it is not affine, or steps by a run-time size."""
    match index:
        case Axis(name):
            return {name: 1}, 0
        case Const(value) | Size(value):
            return {}, dim(value)
        case Call("add" | "sub", (a, b)):
            left, right = affine(a), affine(b)
            if left is None or right is None:
                return None
            sign = 1 if index.function == "add" else -1
            steps = dict(left[0])
            for axis, step in right[0].items():
                steps[axis] = steps.get(axis, 0) + sign * step
            return steps, dim(left[1] + sign * right[1])
        case Call("mul", (a, b)):
            for factor, rest in ((a, b), (b, a)):
                inner = affine(rest)
                if isinstance(factor, Const) and inner is not None:
                    times = int(factor.value)
                    return {axis: times * step for axis, step in inner[0].items()}, dim(times * inner[1])
    return None
