"""Importers of tensors that come from no other tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch

from effcc.frontend.importer import Importer, Number, as_element, aten, dtype_of, imports, scalar_dtype
from effcc.ir.dims import dim
from effcc.ir.dtypes import DType
from effcc.ir.graph import Value
from effcc.ir.size_functions import is_real


def _dtype(dtype: Any, *values: Number) -> DType:
    """An explicit dtype, or the one torch gives a tensor of these numbers."""
    if dtype is not None:
        return dtype_of(dtype)
    if any(isinstance(v, float) or is_real(v) for v in values):
        return dtype_of(torch.get_default_dtype())
    return scalar_dtype(values[0])


def _filled(m: Importer, shape: Sequence[Any], value: Number, dtype: DType) -> Value:
    if len(shape) == 0:
        return m.constant(value, dtype)
    if not isinstance(value, sympy.Expr):
        value = as_element(value, dtype)
    return m.emit("full", shape=tuple(dim(n) for n in shape), value=value, dtype=dtype)


def _checked(m: Importer, shape: Sequence[Any], value: Number, dtype: DType) -> Value:
    m.checked(value, dtype)
    return _filled(m, shape, value, dtype)


@imports(aten.full.default)
def full(m: Importer, shape: Any, value: Number, dtype: Any = None, **_: Any) -> Value:
    return _checked(m, shape, value, _dtype(dtype, value))


@imports(aten.scalar_tensor.default)
def scalar_tensor(m: Importer, value: Number, dtype: Any = None, **_: Any) -> Value:
    """A number that stands for a tensor, as a branch of `where`: of a half type it may be an infinity."""
    found = _dtype(torch.get_default_dtype() if dtype is None else dtype, value)
    return _filled(m, (), value, found) if found.is_float else _checked(m, (), value, found)


@imports(aten.full_like.default)
def full_like(m: Importer, x: Value, value: Number, dtype: Any = None, **_: Any) -> Value:
    return _checked(m, x.type.shape, value, x.type.dtype if dtype is None else dtype_of(dtype))


@imports(aten.fill.Scalar)
def fill(m: Importer, x: Value, value: Number) -> Value:
    return _checked(m, x.type.shape, value, x.type.dtype)


@imports(aten.fill.Tensor)
def fill_tensor(m: Importer, x: Value, value: Value) -> Value:
    return m.broadcast(m.cast(value, x.type.dtype), x.type.shape)


@imports(aten.zeros.default, aten.empty.memory_format)
def zeros(m: Importer, shape: Any, dtype: Any = None, **_: Any) -> Value:
    """An `empty` tensor holds anything; zeros are as good."""
    return _filled(m, shape, 0, _dtype(torch.get_default_dtype() if dtype is None else dtype, 0))


@imports(aten.empty_permuted.default)
def empty_permuted(m: Importer, shape: Any, order: Any, dtype: Any = None, **_: Any) -> Value:
    """Axes come in the order of memory; a value has none, and a graph's outputs get their strides elsewhere."""
    return zeros(m, shape, dtype)


@imports(aten.empty_strided.default)
def empty_strided(m: Importer, shape: Any, strides: Any, dtype: Any = None, **_: Any) -> Value:
    return zeros(m, shape, dtype)


@imports(aten.ones.default)
def ones(m: Importer, shape: Any, dtype: Any = None, **_: Any) -> Value:
    return _filled(m, shape, 1, _dtype(torch.get_default_dtype() if dtype is None else dtype, 1))


@imports(aten.arange.start_step)
def arange(m: Importer, start: Any, end: Any, step: Any = 1, dtype: Any = None, **_: Any) -> Value:
    start, end, step = (int(n) if isinstance(n, bool) else n for n in (start, end, step))
    return m.emit("iota", size=m.result_size(0), start=start, step=step, dtype=_dtype(dtype, start, end, step))


@imports(torch.ops.prims.iota.default)
def iota(m: Importer, length: Any, start: Any, step: Any, dtype: Any, **_: Any) -> Value:
    return m.emit("iota", size=dim(length), start=start, step=step, dtype=dtype_of(dtype))


@imports(aten.eye.default)
def eye(m: Importer, n: Any, dtype: Any = None, **options: Any) -> Value:
    return eye_m(m, n, n, dtype, **options)


@imports(aten.eye.m)
def eye_m(m: Importer, rows: Any, columns: Any, dtype: Any = None, **_: Any) -> Value:
    equal = m.emit("eq", m.emit("iota", size=dim(columns)), m.unit(m.emit("iota", size=dim(rows)), 1))
    return m.cast(equal, _dtype(torch.get_default_dtype() if dtype is None else dtype, 0))
