"""Importers of reductions, arg-reductions and running sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sympy
import torch

from effcc.frontend.aten_pointwise import as_bool
from effcc.frontend.importer import Import, Importer, NotNative, aten, dtype_of, imports
from effcc.ir.dims import Dim, dim, show
from effcc.ir.dtypes import f64, i64
from effcc.ir.graph import Value
from effcc.ir.op import normalize_axis


def _axes(x: Value, dims: Any) -> tuple[int, ...] | None:
    """An ATen `dim` argument as axes; an empty list is all of them. A 0-d tensor's one element may be dim 0 or -1."""
    if dims is None or x.type.rank == 0:
        return None
    listed = (dims,) if isinstance(dims, int) else tuple(dims)
    return tuple(normalize_axis(d, x.type.rank) for d in listed) or None


def reduce(m: Importer, op: str, x: Value, axes: Sequence[int] | None, keepdim: bool = False, **attrs: Any) -> Value:
    """A reduction; over no axes of a 0-d tensor it is still a reduction over its one element."""
    return m.emit(op, x, axes=None if axes is None else tuple(axes), keepdim=keepdim, **attrs)


def _widened(m: Importer, x: Value, dtype: Any) -> Value:
    return x if dtype is None else m.cast(x, dtype_of(dtype))


@imports(aten.sum.default)
def sum_all(m: Importer, x: Value, dtype: Any = None) -> Value:
    return reduce(m, "sum", _widened(m, x, dtype), None)


@imports(aten.sum.dim_IntList)
def sum_axes(m: Importer, x: Value, dims: Any, keepdim: bool = False, dtype: Any = None) -> Value:
    return reduce(m, "sum", _widened(m, x, dtype), _axes(x, dims), keepdim)


@imports(aten.prod.default)
def prod_all(m: Importer, x: Value, dtype: Any = None) -> Value:
    return reduce(m, "prod", _widened(m, x, dtype), None)


@imports(aten.prod.dim_int)
def prod_axis(m: Importer, x: Value, dim: int, keepdim: bool = False, dtype: Any = None) -> Value:
    return reduce(m, "prod", _widened(m, x, dtype), _axes(x, dim), keepdim)


@imports(aten.mean.default)
def mean_all(m: Importer, x: Value, dtype: Any = None) -> Value:
    return reduce(m, "mean", _widened(m, x, dtype), None)


@imports(aten.mean.dim)
def mean_axes(m: Importer, x: Value, dims: Any, keepdim: bool = False, dtype: Any = None) -> Value:
    return reduce(m, "mean", _widened(m, x, dtype), _axes(x, dims), keepdim)


def _extreme(op: str) -> Import:
    return lambda m, x, dims=(), keepdim=False: reduce(m, op, x, _axes(x, dims), keepdim)


def _extreme_of_all(op: str) -> Import:
    def importer(m: Importer, x: Value) -> Value:
        _require_elements(m, x.type.size)
        return reduce(m, op, x, None)

    return importer


def _require_elements(m: Importer, count: Dim) -> None:
    if not m.facts.not_negative(dim(count - 1)):
        raise NotNative("the extreme of what may have no elements, which eager refuses")


imports(aten.amax.default)(_extreme("max"))
imports(aten.amin.default)(_extreme("min"))
imports(aten.max.default)(_extreme_of_all("max"))
imports(aten.min.default)(_extreme_of_all("min"))


def _extreme_and_index(op: str, argument: str) -> Import:
    def importer(m: Importer, x: Value, axis: int, keepdim: bool = False) -> tuple[Value, Value]:
        axes = _axes(x, axis)
        for reduced in axes or ():
            _require_elements(m, x.type.shape[reduced])
        return reduce(m, op, x, axes, keepdim), reduce(m, argument, x, axes, keepdim)

    return importer


imports(aten.max.dim)(_extreme_and_index("max", "argmax"))
imports(aten.min.dim)(_extreme_and_index("min", "argmin"))


def _argument(op: str) -> Import:
    return lambda m, x, dim=None, keepdim=False: reduce(m, op, x, _axes(x, dim), keepdim)


imports(aten.argmax.default)(_argument("argmax"))
imports(aten.argmin.default)(_argument("argmin"))


def _truth(op: str) -> Import:
    return lambda m, x, dims=None, keepdim=False: reduce(m, op, as_bool(m, x), _axes(x, dims), keepdim)


imports(aten.any.default, aten.any.dim, aten.any.dims)(_truth("any"))
imports(aten.all.default, aten.all.dim, aten.all.dims)(_truth("all"))


@imports(aten.var.correction)
def var(m: Importer, x: Value, dims: Any = None, correction: Any = None, keepdim: bool = False) -> Value:
    return reduce(m, "var", x, _axes(x, dims), keepdim, correction=1 if correction is None else correction)


@imports(aten.std.correction)
def std(m: Importer, x: Value, dims: Any = None, correction: Any = None, keepdim: bool = False) -> Value:
    """The root of the variance, in float64 as in eager: a float32 need not hold what it holds the root of."""
    spread = var(m, m.cast(x, f64), dims, correction, keepdim)
    return m.cast(m.emit("sqrt", spread), x.type.dtype)


@imports(aten.std_mean.correction)
def std_mean(m: Importer, x: Value, dims: Any = None, correction: Any = None, keepdim: bool = False) -> Any:
    """Both in float64 as in eager: a float32 sum is off by more where the terms cancel."""
    mean = reduce(m, "mean", m.cast(x, f64), _axes(x, dims), keepdim)
    return std(m, x, dims, correction, keepdim), m.cast(mean, x.type.dtype)


@imports(torch.ops.prims.sum.default)
def prims_sum(m: Importer, x: Value, dims: Any, output_dtype: Any = None) -> Value:
    return sum_axes(m, x, dims, dtype=output_dtype)


@imports(torch.ops.prims.var.default)
def prims_var(m: Importer, x: Value, dims: Any, correction: Any = 1, output_dtype: Any = None) -> Value:
    return var(m, _widened(m, x, output_dtype), dims, correction)


@imports(aten.var.dim)
def var_dim(m: Importer, x: Value, dims: Any, unbiased: bool = True, keepdim: bool = False) -> Value:
    return var(m, x, dims, int(unbiased), keepdim)


@imports(aten.var_mean.correction)
def var_mean(m: Importer, x: Value, dims: Any = None, correction: Any = None, keepdim: bool = False) -> Any:
    return var(m, x, dims, correction, keepdim), reduce(m, "mean", x, _axes(x, dims), keepdim)


@imports(aten.linalg_vector_norm.default)
def vector_norm(
    m: Importer, x: Value, order: Any = 2, dims: Any = None, keepdim: bool = False, dtype: Any = None
) -> Value:
    """(sum |x|^p)^(1/p); the largest |x| for p = inf, the smallest for -inf, the count of nonzeros for 0."""
    if isinstance(order, sympy.Expr):
        raise NotNative(f"the norm's order is a run-time number, {show(order)}")
    x = _widened(m, x, dtype)
    return m.cast(_accurate_norm(m, m.accurate(x, x.type.dtype), order, _axes(x, dims), keepdim), x.type.dtype)


def _accurate_norm(m: Importer, x: Value, order: Any, axes: tuple[int, ...] | None, keepdim: bool) -> Value:
    """A norm in the type of `x`: of half types' squares, the sum need not be a half."""
    element = x.type.dtype
    if order == 2:
        return m.emit("sqrt", reduce(m, "sum", m.emit("mul", x, x), axes, keepdim))
    if order == 0:
        return reduce(m, "sum", m.cast(as_bool(m, x), element), axes, keepdim)
    size = m.emit("abs", x)
    if math.isinf(order):
        return reduce(m, "max" if order > 0 else "min", size, axes, keepdim)
    if order == 1:
        return reduce(m, "sum", size, axes, keepdim)
    total = reduce(m, "sum", m.elementwise("pow", size, float(order)), axes, keepdim)
    return m.elementwise("pow", total, 1.0 / float(order))


def _running(op: str) -> Import:
    def importer(m: Importer, x: Value, dim: int, dtype: Any = None) -> Value:
        x = _widened(m, x, dtype)
        x = x if x.type.dtype.is_float else m.cast(x, i64)
        if x.type.rank == 0:
            return x
        return m.emit(op, x, axis=normalize_axis(dim, x.type.rank))

    return importer


imports(aten.cumsum.default)(_running("cumsum"))
imports(aten.cumprod.default)(_running("cumprod"))


@imports(aten._cdist_forward.default)
def cdist(m: Importer, a: Value, b: Value, p: float, compute_mode: int | None) -> Value:
    """Distances in the p-norm between the rows of `a` and those of `b`."""
    dtype = a.type.dtype
    a, b = m.accurate(a, dtype), m.accurate(b, dtype)
    difference = m.emit("sub", m.unit(a, a.type.rank - 1), m.unit(b, b.type.rank - 2))
    return m.cast(vector_norm(m, difference, p, [-1]), dtype)
