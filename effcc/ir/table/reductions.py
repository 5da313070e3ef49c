"""Reductions over axes, arg-max and arg-min, variance, running sums and products, and linear recurrences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from effcc.ir.dims import Dim, product, same_shape
from effcc.ir.dtypes import DType, boolean, f16, f32, f64, from_numpy, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Size, both, cast, compare, integer, where
from effcc.ir.form import Form, FormBuilder, call, constant
from effcc.ir.op import REQUIRED, Op, Types, normalize_axis, require
from effcc.ir.scalars import REDUCTIONS
from effcc.ir.types import TensorType


def reduced_axes(attrs: Mapping[str, Any], rank: int) -> tuple[int, ...]:
    """The axes that a reduction's `axes` attribute names (None: all of them), nonnegative and in order."""
    axes = attrs["axes"]
    return tuple(range(rank)) if axes is None else tuple(sorted({normalize_axis(a, rank) for a in axes}))


def reduced_shape(shape: Sequence[Dim], axes: Sequence[int], keepdim: bool) -> tuple[Dim, ...]:
    if keepdim:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _infer(result: Callable[[DType], DType]) -> Callable[[Types, Mapping[str, Any]], TensorType]:
    def infer(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
        (x,) = operands
        axes = reduced_axes(attrs, x.rank)
        return TensorType(result(x.dtype), reduced_shape(x.shape, axes, attrs["keepdim"]))

    return infer


def _infer_float(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    require(operands[0].dtype.is_float, f"needs a floating dtype, got {operands[0].dtype.name}")
    return _infer(lambda d: d)(operands, attrs)


def _infer_argument(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    axes = attrs["axes"]
    require(axes is None or len(axes) == 1, f"takes one axis, or null for the flattened tensor; got {axes}")
    return _infer(lambda d: i64)(operands, attrs)


def open_axes(b: FormBuilder) -> tuple[tuple[Axis, ...], tuple[Axis, ...], tuple[Axis, ...]]:
    """The axes of operand 0, those of the result, and the reduced ones, for a reduction with `axes` and `keepdim`."""
    shape = b.operands[0].type.shape
    reduced = reduced_axes(b.attrs, len(shape))
    inner = tuple(b.axis(d, "r" if i in reduced else "i") for i, d in enumerate(shape))
    kept = tuple(inner[i] for i in range(len(shape)) if i not in reduced)
    if not b.attrs["keepdim"]:
        return inner, kept, tuple(inner[i] for i in reduced)
    outer = tuple(b.axis(1, "u") if i in reduced else inner[i] for i in range(len(shape)))
    return inner, outer, tuple(inner[i] for i in reduced)


def _form(operator: str) -> Form:
    def form(b: FormBuilder) -> None:
        inner, outer, reduced = open_axes(b)
        value: Expr = b.load(0, inner)
        if operator in ("any", "all"):
            value = value if value.dtype == boolean else call("ne", value, constant(0, value))
        b.define(outer, b.reduce(operator, reduced, value))

    return form


def _mean(b: FormBuilder) -> None:
    inner, outer, reduced = open_axes(b)
    total = b.temporary(outer, b.reduce("sum", reduced, b.load(0, inner)))
    b.define(outer, call("div", total, count(b, reduced, total)))


def count(b: FormBuilder, reduced: Sequence[Axis], like: Expr) -> Expr:
    """The number of points of the reduced axes, in the dtype of `like`."""
    size = product(b.extents[a.name] for a in reduced)
    return constant(size, like) if isinstance(size, int) else Call("cast", (Size(size),), like.dtype)


def _var(b: FormBuilder) -> None:
    inner, outer, reduced = open_axes(b)
    x = b.load(0, inner)
    total = b.temporary(outer, b.reduce("sum", reduced, x))
    mean = b.temporary(outer, call("div", total, count(b, reduced, total)))
    deviation = call("sub", cast(x, x.dtype.accumulator), mean)
    n = call("sub", count(b, reduced, total), constant(b.attrs["correction"], total))
    n = call("maximum", n, constant(0, n))
    b.define(outer, finite_variance(b, outer, reduced, deviation, n, x.dtype))


def finite_variance(
    b: FormBuilder, outer: Sequence[Axis], reduced: Sequence[Axis], deviation: Expr, n: Expr, dtype: DType
) -> Expr:
    """The sum of squares of `deviation`, divided by `n`; `dtype` is what it is a deviation of.

    Of squares in f32, the sum may overflow where the variance, which eager computes in f64, does not: a second sum, of
    smaller ones, then takes its place. (One beside the other costs no time: each waits for itself.)
    """
    squares = b.temporary(outer, b.reduce("sum", reduced, call("mul", deviation, deviation)))
    variance = call("div", squares, n)
    if squares.dtype != f32 or dtype == f16:  # the sum of squares of f16 is far from f32's largest
        return variance
    size = product(b.extents[a.name] for a in reduced)
    factor = 2.0 ** -math.ceil(math.log2(size if isinstance(size, int) and size > 0 else 1 << 32) / 2)
    smaller = call("mul", deviation, constant(factor, deviation))
    rest = b.temporary(outer, b.reduce("sum", reduced, call("mul", smaller, smaller)))
    larger = call("mul", call("div", rest, n), constant(factor**-2, rest))
    return where(compare("lt", squares, constant(math.inf, squares)), variance, larger)


def _argument(operator: str) -> Form:
    """First index of the extreme; NaN counts as extreme, as in torch: min(r: X[r] is the extreme ? r : size)."""

    def form(b: FormBuilder) -> None:
        shape = b.operands[0].type.shape
        inner, outer, reduced = open_axes(b)
        x = b.load(0, inner)
        best = b.temporary(outer, b.reduce(operator, reduced, x))
        hit = call("eq", x, best)
        if x.dtype.is_float:
            hit = call("or", hit, both(call("isnan", x), call("isnan", best)))
        position: Expr = Const(0, i64)
        axes = reduced_axes(b.attrs, len(shape))
        for axis in axes:
            scaled = call("mul", position, integer(shape[axis]))
            position = inner[axis] if len(axes) == 1 else call("add", scaled, inner[axis])
        b.define(outer, b.reduce("min", reduced, where(hit, position, integer(product(shape[a] for a in axes)))))

    return form


def _argument_reference(f: Callable[..., Any]) -> Callable[..., Any]:
    def reference(x: Any, axes: Any, keepdim: bool) -> Any:
        if axes is None:
            result = np.asarray(f(x), np.int64)
            return result.reshape((1,) * x.ndim) if keepdim else result
        return np.asarray(f(x, axis=axes[0], keepdims=keepdim), np.int64)

    return reference


def _reduce_reference(operator: str) -> Callable[..., Any]:
    def reference(x: Any, axes: Any, keepdim: bool) -> Any:
        where_ = tuple(range(x.ndim)) if axes is None else tuple(axes)
        if operator in ("any", "all"):
            x = x.astype(bool)
        if operator in ("sum", "prod"):
            wide = np.float64 if np.issubdtype(x.dtype, np.inexact) or x.dtype.kind == "V" else np.int64
            result = REDUCTIONS[operator].reference(x.astype(wide), axis=where_, keepdims=keepdim)
            return np.asarray(result).astype(x.dtype if wide is np.float64 else np.int64)
        return np.asarray(REDUCTIONS[operator].reference(x, axis=where_, keepdims=keepdim))

    return reference


def _wide(f: Callable[..., Any]) -> Callable[..., Any]:
    def reference(x: Any, axes: Any, keepdim: bool, **attrs: Any) -> Any:
        where_ = tuple(range(x.ndim)) if axes is None else tuple(axes)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(f(np.asarray(x, np.float64), axis=where_, keepdims=keepdim, **attrs)).astype(x.dtype)

    return reference


def _variance(x: Any, axis: Any, keepdims: bool, correction: float) -> Any:
    n = np.prod([x.shape[a] for a in axis])
    return x.var(axis=axis, keepdims=keepdims) * n / max(n - correction, 0)


def _recurrence(b: FormBuilder, state: str, dtype: DType) -> tuple[tuple[Axis, ...], int, Expr, Load]:
    """Make the axis t that the attribute `axis` names a scan: all axes, t's position, t > 0, and `state` at t-1."""
    axes = b.axes(b.results[0].type.shape)
    position = normalize_axis(b.attrs["axis"], len(axes))
    t = axes[position]
    b.scans.append(t.name)
    before: tuple[Expr, ...] = (*axes[:position], call("add", t, Const(-1, i64)), *axes[position + 1 :])
    return axes, position, compare("gt", t, Const(0, i64)), Load(state, before, dtype)


def _running(operator: str, identity: float) -> Form:
    """C[.., t] = combine(t > 0 ? C[.., t-1] : identity, X[.., t]); t is a scan axis. Floats run in f64, as in eager."""

    def form(b: FormBuilder) -> None:
        result = b.results[0]
        wide = f64 if result.type.dtype.is_float else result.type.dtype
        state = result.name if wide == result.type.dtype else b.fresh()
        axes, _, later, previous = _recurrence(b, state, wide)
        x = cast(b.load(0, axes), wide)
        value = call(operator, where(later, previous, constant(identity, x)), x)
        b.define(axes, value if state == result.name else b.temporary(axes, value, state))

    return form


def _running_reference(f: Callable[..., Any]) -> Callable[..., Any]:
    def reference(x: Any, axis: int) -> Any:
        if not from_numpy(x.dtype).is_float:
            return f(x, axis=axis, dtype=np.int64)
        return f(x, axis=axis, dtype=np.float64).astype(x.dtype)

    return reference


def _linear_recurrence(b: FormBuilder) -> None:
    """H[.., t] = A[.., t] * (t > 0 ? H[.., t-1] : H0[..]) + B[.., t], or B[.., 0] at first; t is a scan axis."""
    axes, position, later, previous = _recurrence(b, b.results[0].name, b.results[0].type.dtype)
    factor, summand = b.load(0, axes), b.load(1, axes)
    if len(b.operands) == 2:
        b.define(axes, where(later, call("add", call("mul", factor, previous), summand), summand))
        return
    state = where(later, previous, b.load(2, [*axes[:position], *axes[position + 1 :]]))
    b.define(axes, call("add", call("mul", factor, state), summand))


def _linear_recurrence_reference(a: Any, b: Any, start: Any = None, *, axis: int) -> Any:
    state, states = start, []
    for factor, summand in zip(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0), strict=True):
        state = summand if state is None else factor * state + summand
        states.append(state)
    return np.moveaxis(np.stack(states), 0, axis) if states else np.zeros_like(a)


def _linear_recurrence_type(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    a, b, *starts = operands
    for x in operands:
        require(x.dtype.is_float and x.dtype == a.dtype, "operands must have one floating dtype")
    require(a.rank > 0 and same_shape(a.shape, b.shape), f"factors and summands must have one shape, got {a} and {b}")
    axis = normalize_axis(attrs["axis"], a.rank)
    expected = (*a.shape[:axis], *a.shape[axis + 1 :])
    require(all(same_shape(s.shape, expected) for s in starts), "the start must have the shape of one step")
    return a.plain()


def _running_type(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    normalize_axis(attrs["axis"], x.rank)
    require(x.rank > 0, "needs a tensor of rank at least 1")
    return TensorType(x.dtype if x.dtype.is_float else i64, x.shape)


_AXES = {"axes": None, "keepdim": False}


def _reduction(name: str, operator: str, result: Callable[[DType], DType], summary: str) -> Op:
    return Op(name, "reduction", (1, 1), _infer(result), _reduce_reference(operator), summary, _AXES, _form(operator))


def _sum_type(d: DType) -> DType:
    return d if d.is_float else i64


OPS: list[Op] = [
    _reduction("sum", "sum", _sum_type, "sum over `axes` (all, if null)"),
    _reduction("prod", "prod", _sum_type, "product over `axes`"),
    _reduction("max", "max", lambda d: d, "maximum over `axes`; NaN wins"),
    _reduction("min", "min", lambda d: d, "minimum over `axes`; NaN wins"),
    _reduction("any", "any", lambda d: boolean, "whether any element over `axes` is nonzero"),
    _reduction("all", "all", lambda d: boolean, "whether all elements over `axes` are nonzero"),
    Op("mean", "reduction", (1, 1), _infer_float, _wide(np.mean), "sum / count over `axes`", _AXES, _mean),
    Op("var", "reduction", (1, 1), _infer_float, _wide(_variance),
       "sum((x - mean)^2) / max(count - correction, 0) over `axes`", {**_AXES, "correction": 1}, _var),
    Op("argmax", "reduction", (1, 1), _infer_argument, _argument_reference(np.argmax),
       "index of the first maximum along one axis, or of the flattened tensor; NaN counts as the maximum",
       _AXES, _argument("max")),
    Op("argmin", "reduction", (1, 1), _infer_argument, _argument_reference(np.argmin),
       "index of the first minimum along one axis, or of the flattened tensor; NaN counts as the minimum",
       _AXES, _argument("min")),
    Op("cumsum", "scan", (1, 1), _running_type, _running_reference(np.cumsum),
       "running sum along `axis`", {"axis": REQUIRED}, _running("add", 0)),
    Op("cumprod", "scan", (1, 1), _running_type, _running_reference(np.cumprod),
       "running product along `axis`", {"axis": REQUIRED}, _running("mul", 1)),
    Op("linear_recurrence", "scan", (2, 3), _linear_recurrence_type, _linear_recurrence_reference,
       "h[t] = a[t] * h[t-1] + b[t] along `axis` of a and b, from h[-1] = start, or from h[0] = b[0] without one",
       {"axis": REQUIRED}, _linear_recurrence),
]  # fmt: skip
