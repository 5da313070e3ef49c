"""Tensors out of nothing: literals, fills and counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from effcc.ir.dims import Dim, dim, product, show
from effcc.ir.dtypes import DType, f32, f64, i64
from effcc.ir.expr import Axis, Const, cast, compare, where
from effcc.ir.form import FormBuilder, call, scalar
from effcc.ir.op import REQUIRED, Op, Types, require
from effcc.ir.size_functions import is_real
from effcc.ir.table.movement import flatten
from effcc.ir.types import TensorType

LARGEST_LITERAL = 64
"""Values that an IR text may spell out: tables of a kernel, not weights, which are parameters."""


def _infer_constant(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    shape, value = attrs["shape"], attrs["value"]
    if isinstance(value, tuple):
        require(product(shape) == len(value), f"{len(value)} values for a tensor of {show(product(shape))} elements")
        require(len(value) <= LARGEST_LITERAL, f"a literal has at most {LARGEST_LITERAL} values, got {len(value)}")
    else:
        require(shape == (), "a scalar value needs an empty shape; use `full` for a tensor of one value")
    return TensorType(attrs["dtype"], tuple(shape))


def _constant(b: FormBuilder) -> None:
    """A literal tensor is a chain of choices on the row-major position."""
    value, dtype = b.attrs["value"], b.attrs["dtype"]
    axes = b.axes(b.attrs["shape"])
    if not isinstance(value, tuple):
        b.define(axes, scalar(value, dtype))
        return
    position = flatten(axes, b.attrs["shape"])
    chain = scalar(value[-1] if value else 0, dtype)
    for k in range(len(value) - 2, -1, -1):
        chain = where(compare("eq", position, Const(k, i64)), scalar(value[k], dtype), chain)
    b.define(axes, chain)


def _infer_full(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    return TensorType(attrs["dtype"], tuple(dim(size) for size in attrs["shape"]))


def _full(b: FormBuilder) -> None:
    b.define(b.axes(b.results[0].type.shape), scalar(b.attrs["value"], b.attrs["dtype"]))


def _infer_iota(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    size: Dim = dim(attrs["size"])
    require(not isinstance(size, int) or size >= 0, f"size must not be negative, got {show(size)}")
    return TensorType(attrs["dtype"], (size,))


def _iota(b: FormBuilder) -> None:
    """`start + i * step`, in i64 where both are integers, else in f64 (f32 for half results)."""
    axis: Axis = b.axis(b.results[0].type.shape[0])
    start, step, dtype = b.attrs["start"], b.attrs["step"], b.attrs["dtype"]
    counter = i64
    if any(isinstance(n, float) or is_real(n) for n in (start, step)):
        counter = f64 if dtype in (f64, f32) or not dtype.is_float else f32
    value = call("mul", cast(axis, counter), scalar(step, counter)) if step != 1 else cast(axis, counter)
    b.define((axis,), cast(call("add", value, scalar(start, counter)) if start != 0 else value, dtype))


def _iota_reference(size: int, start: Any, step: Any, dtype: DType) -> Any:
    return (start + np.arange(size) * step).astype(dtype.numpy)


OPS: list[Op] = [
    Op("constant", "create", (0, 0), _infer_constant,
       lambda value, dtype, shape: np.asarray(value).astype(dtype.numpy).reshape(shape),
       "a number, or a small tensor given by its elements in row-major order",
       {"value": REQUIRED, "dtype": REQUIRED, "shape": ()}, _constant),
    Op("full", "create", (0, 0), _infer_full, lambda shape, value, dtype: np.full(shape, value, dtype.numpy),
       "a tensor of one value", {"shape": REQUIRED, "value": REQUIRED, "dtype": REQUIRED}, _full),
    Op("iota", "create", (0, 0), _infer_iota, _iota_reference, "start + i * step for i below `size`",
       {"size": REQUIRED, "start": 0, "step": 1, "dtype": i64}, _iota),
]  # fmt: skip
