"""Softmax and normalizations as cascades: each reduction is a statement of its own, accumulated in f32 for half types.

Variances are two-pass, `sum((x - mean)^2) / n`, which is as accurate as Welford's recurrence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effcc.ir.dims import Dim, dim, product, same, same_shape, show
from effcc.ir.expr import Axis, Call, Expr, Load, Size, add, cast, floor_div, integer, modulo, multiply, where
from effcc.ir.form import FormBuilder, call, constant
from effcc.ir.op import REQUIRED, Op, Types, normalize_axis, require
from effcc.ir.table.products import require_one_dtype, require_vector, wide
from effcc.ir.table.reductions import finite_variance
from effcc.ir.types import TensorType


def _require_float(x: TensorType) -> None:
    require(x.dtype.is_float, f"needs a floating dtype, got {x.dtype.name}")


def _count(size: Dim, like: Expr) -> Expr:
    return constant(size, like) if isinstance(size, int) else Call("cast", (Size(size),), like.dtype)


# --- softmax -------------------------------------------------------------------------------------------------------


def _infer_softmax(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    _require_float(x)
    normalize_axis(attrs["axis"], x.rank)
    return x.plain()


def _softmax_axes(b: FormBuilder) -> tuple[tuple[Axis, ...], tuple[Axis, ...], tuple[Axis, ...]]:
    """All axes, those of the row statistics, and the softmax axis alone."""
    shape = b.operands[0].type.shape
    position = normalize_axis(b.attrs["axis"], len(shape))
    axes = tuple(b.axis(size, "n" if i == position else "i") for i, size in enumerate(shape))
    return axes, tuple(a for i, a in enumerate(axes) if i != position), axes[position : position + 1]


def _softmax(b: FormBuilder) -> None:
    """`exp(x - max) / sum(exp(x - max))`; safe: where a row is all -inf, the maximum counts as 0 and the sum as 1."""
    axes, rows, reduced = _softmax_axes(b)
    x = b.load(0, axes)
    x_wide = cast(x, x.dtype.accumulator)
    peak: Expr = b.temporary(rows, b.reduce("max", reduced, x_wide))
    if b.attrs["safe"]:
        peak = where(call("eq", peak, constant(-math.inf, peak)), constant(0, peak), peak)
    power = b.temporary(axes, call("exp", call("sub", x_wide, peak)))
    total: Expr = b.temporary(rows, b.reduce("sum", reduced, power))
    if b.attrs["safe"]:
        total = where(call("eq", total, constant(0, total)), constant(1, total), total)
    b.define(axes, call("div", power, total))


def _log_softmax(b: FormBuilder) -> None:
    axes, rows, reduced = _softmax_axes(b)
    x = b.load(0, axes)
    x_wide = cast(x, x.dtype.accumulator)
    peak = b.temporary(rows, b.reduce("max", reduced, x_wide))
    shifted = b.temporary(axes, call("sub", x_wide, peak))
    total = b.temporary(rows, b.reduce("sum", reduced, call("exp", shifted)))
    b.define(axes, call("sub", shifted, call("log", total)))


def _shifted(x: Any, axis: int) -> Any:
    x = wide(x)
    return x - x.max(axis=axis, keepdims=True, initial=-math.inf)


def _softmax_reference(x: Any, axis: int, safe: bool) -> Any:
    with np.errstate(invalid="ignore"):
        power = np.exp(_shifted(x, axis))
        result = power / power.sum(axis=axis, keepdims=True)
    if safe:
        result = np.where(np.all(wide(x) == -math.inf, axis=axis, keepdims=True), 0.0, result)
    return result.astype(x.dtype)


def _log_softmax_reference(x: Any, axis: int) -> Any:
    with np.errstate(invalid="ignore"):
        shifted = _shifted(x, axis)
        return (shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))).astype(x.dtype)


# --- normalizations ------------------------------------------------------------------------------------------------


def _infer_trailing(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    """Layer and RMS norm: scale and shift have the shape of the last `axes` axes."""
    x = operands[0]
    require_one_dtype(operands)
    _require_float(x)
    axes = attrs["axes"]
    require(1 <= axes <= x.rank, f"cannot normalize the last {axes} axes of a tensor of rank {x.rank}")
    for operand in operands[1:]:
        require(
            same_shape(operand.shape, x.shape[-axes:]),
            f"scale and shift must have the normalized shape [{','.join(map(show, x.shape[-axes:]))}], got {operand}",
        )
    return x.plain()


def _affine(value: Expr, loads: Sequence[Load]) -> Expr:
    """`value * loads[0] + loads[1]`, as many as there are, in the type of `value`."""
    for name, load in zip(("mul", "add"), loads, strict=False):
        value = call(name, value, cast(load, value.dtype))
    return value


def _mean(b: FormBuilder, rows: Sequence[Axis], reduced: Sequence[Axis], value: Expr) -> Load:
    total = b.temporary(rows, b.reduce("sum", reduced, value))
    return b.temporary(rows, call("div", total, _count(product(b.extents[a.name] for a in reduced), total)))


def _inverse_root(b: FormBuilder, rows: Sequence[Axis], square: Expr) -> Load:
    return b.temporary(rows, call("rsqrt", call("add", square, constant(b.attrs["eps"], square))))


def _layer_norm(b: FormBuilder) -> None:
    """With `safe`, the variance is finite where squares sum to more than f32 holds, as eager's `var` is there; that of
    its layer norm is not."""
    rows, reduced, x = _rows(b)
    deviation = call("sub", x, _mean(b, rows, reduced, x))
    if b.attrs["safe"]:
        n = _count(product(b.extents[a.name] for a in reduced), deviation)
        square = b.temporary(rows, finite_variance(b, rows, reduced, deviation, n, b.operands[0].type.dtype))
    else:
        square = _mean(b, rows, reduced, call("mul", deviation, deviation))
    _scaled(b, rows, reduced, deviation, square)


def _rms_norm(b: FormBuilder) -> None:
    rows, reduced, x = _rows(b)
    _scaled(b, rows, reduced, x, _mean(b, rows, reduced, call("mul", x, x)))


def _rows(b: FormBuilder) -> tuple[tuple[Axis, ...], tuple[Axis, ...], Expr]:
    """Axes that are kept, the last `axes` ones, over which the norm runs, and the input, in its accumulator's type."""
    shape, n = b.operands[0].type.shape, b.attrs["axes"]
    rows, reduced = b.axes(shape[:-n], "i"), b.axes(shape[-n:], "n")
    x = b.load(0, (*rows, *reduced))
    return rows, reduced, cast(x, x.dtype.accumulator)


def _scaled(b: FormBuilder, rows: Sequence[Axis], reduced: Sequence[Axis], x: Expr, square: Expr) -> None:
    """Define the result: `x / sqrt(square + eps)`, times the weight, plus the bias."""
    scale = _inverse_root(b, rows, square)
    affine = [b.load(k, reduced) for k in range(1, len(b.operands))]
    b.define((*rows, *reduced), _affine(call("mul", x, scale), affine))


def _layer_norm_reference(x: Any, *affine: Any, axes: int, eps: float, safe: bool) -> Any:
    over = tuple(range(x.ndim - axes, x.ndim))
    a = wide(x)
    normal = (a - a.mean(axis=over, keepdims=True)) / np.sqrt(a.var(axis=over, keepdims=True) + eps)
    return _affine_reference(normal, affine).astype(x.dtype)


def _rms_norm_reference(x: Any, *affine: Any, axes: int, eps: float) -> Any:
    a = wide(x)
    square = (a * a).mean(axis=tuple(range(x.ndim - axes, x.ndim)), keepdims=True)
    return _affine_reference(a / np.sqrt(square + eps), affine).astype(x.dtype)


def _affine_reference(normal: Any, affine: Sequence[Any]) -> Any:
    if affine:
        normal = normal * wide(affine[0])
    return normal + wide(affine[1]) if len(affine) > 1 else normal


def _infer_group_norm(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, groups = operands[0], attrs["groups"]
    require_one_dtype(operands)
    _require_float(x)
    require(x.rank >= 2, f"needs x[n, c, ...], got rank {x.rank}")
    require(same(dim(x.shape[1] % groups), 0), f"{show(x.shape[1])} channels do not divide into {groups} groups")
    for operand in operands[1:]:
        require_vector(operand, x.shape[1], "scale and shift")
    return x.plain()


def _group_norm(b: FormBuilder) -> None:
    """With `by_channel`, sums are each channel's first (`effcc.passes.group_norms`)."""
    channels, groups = b.operands[0].type.shape[1], b.attrs["groups"]
    size = channels // groups if isinstance(channels, int) else dim(channels / groups)
    (_by_channel if b.attrs["by_channel"] else _by_group)(b, size)


def _by_group(b: FormBuilder, size: Dim) -> None:
    shape, groups = b.operands[0].type.shape, b.attrs["groups"]
    n, g = rows = (b.axis(shape[0], "n"), b.axis(groups, "g"))
    c, *rest = reduced = (b.axis(size, "c"), *b.axes(shape[2:], "r"))
    x = b.load(0, (n, add(multiply(g, integer(size)), c), *rest))
    x_wide = cast(x, x.dtype.accumulator)
    mean = _mean(b, rows, reduced, x_wide)
    deviation = call("sub", x_wide, mean)
    scale = _inverse_root(b, rows, _mean(b, rows, reduced, call("mul", deviation, deviation)))
    m, channel, *inner = axes = (b.axis(shape[0], "m"), b.axis(shape[1], "o"), *b.axes(shape[2:], "i"))
    group = (m, floor_div(channel, integer(size)))
    centred = call("sub", cast(b.load(0, (m, channel, *inner)), mean.dtype), Load(mean.buffer, group, mean.dtype))
    normal = call("mul", centred, Load(scale.buffer, group, scale.dtype))
    b.define(axes, _affine(normal, [b.load(k, (channel,)) for k in range(1, len(b.operands))]))


def _by_channel(b: FormBuilder, size: Dim) -> None:
    """A group's sums are added up for each of its channels, at `o - o % size + c`."""
    shape = b.operands[0].type.shape
    n, o = rows = (b.axis(shape[0], "n"), b.axis(shape[1], "o"))
    reduced, member = b.axes(shape[2:], "r"), b.axis(size, "c")
    x = cast(b.load(0, (*rows, *reduced)), b.operands[0].type.dtype.accumulator)
    first = call("sub", o, modulo(o, integer(size)))

    def group_mean(value: Expr) -> Load:
        alone = b.temporary(rows, b.reduce("sum", reduced, value))
        total = b.temporary(rows, b.reduce("sum", (member,), Load(alone.buffer, (n, add(first, member)), alone.dtype)))
        return b.temporary(rows, call("div", total, _count(product((size, *shape[2:])), total)))

    deviation = call("sub", x, group_mean(x))
    scale = _inverse_root(b, rows, group_mean(call("mul", deviation, deviation)))
    normal = call("mul", deviation, scale)
    b.define((*rows, *reduced), _affine(normal, [b.load(k, (o,)) for k in range(1, len(b.operands))]))


def _group_norm_reference(x: Any, *affine: Any, groups: int, eps: float, by_channel: bool) -> Any:
    a = wide(x).reshape(x.shape[0], groups, -1)
    normal = (a - a.mean(axis=2, keepdims=True)) / np.sqrt(a.var(axis=2, keepdims=True) + eps)
    scale_and_shift = [p.reshape(1, -1, *(1,) * (x.ndim - 2)) for p in affine]
    return _affine_reference(normal.reshape(x.shape), scale_and_shift).astype(x.dtype)


def _infer_batch_norm(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x = operands[0]
    _require_float(x)
    require(x.rank >= 2, f"needs x[n, c, ...], got rank {x.rank}")
    for operand in operands[1:]:
        require(operand.dtype.is_float, f"statistics, scale and shift must be floating, got {operand.dtype.name}")
        require_vector(operand, x.shape[1], "statistics, scale and shift")
    return x.plain()


def _batch_norm(b: FormBuilder) -> None:
    axes = b.axes(b.operands[0].type.shape)
    channel = axes[1:2]
    x = b.load(0, axes)
    accumulator = x.dtype.accumulator
    mean, variance = (cast(b.load(k, channel), accumulator) for k in (1, 2))
    scale = _inverse_root(b, channel, variance)
    normal = call("mul", call("sub", cast(x, accumulator), mean), scale)
    b.define(axes, _affine(normal, [b.load(k, channel) for k in range(3, len(b.operands))]))


def _batch_norm_reference(x: Any, mean: Any, variance: Any, *affine: Any, eps: float) -> Any:
    def by_channel(p: Any) -> Any:
        return wide(p).reshape(1, -1, *(1,) * (x.ndim - 2))

    normal = (wide(x) - by_channel(mean)) / np.sqrt(by_channel(variance) + eps)
    return _affine_reference(normal, [by_channel(p) for p in affine]).astype(x.dtype)


OPS: list[Op] = [
    Op("softmax", "norm", (1, 1), _infer_softmax, _softmax_reference,
       "exp(x - max) / sum(exp(x - max)) along `axis`; with `safe`, zeros where a row is all -inf",
       {"axis": REQUIRED, "safe": False}, _softmax),
    Op("log_softmax", "norm", (1, 1), _infer_softmax, _log_softmax_reference,
       "x - max - log(sum(exp(x - max))) along `axis`", {"axis": REQUIRED}, _log_softmax),
    Op("layer_norm", "norm", (1, 3), _infer_trailing, _layer_norm_reference,
       "(x - mean) / sqrt(var + eps) over the last `axes` axes, scaled and shifted (Ba et al., arXiv:1607.06450); with "
       "`safe`, var is finite where squares sum beyond f32", {"axes": 1, "eps": 1e-5, "safe": False}, _layer_norm),
    Op("rms_norm", "norm", (1, 2), _infer_trailing, _rms_norm_reference,
       "x / sqrt(mean(x^2) + eps) over the last `axes` axes, times a scale (Zhang and Sennrich, arXiv:1910.07467)",
       {"axes": 1, "eps": 1e-5}, _rms_norm),
    Op("group_norm", "norm", (1, 3), _infer_group_norm, _group_norm_reference,
       "layer norm over groups of channels of x[n, c, ...], scaled and shifted (Wu and He, arXiv:1803.08494)",
       {"groups": REQUIRED, "eps": 1e-5, "by_channel": False}, _group_norm),
    Op("batch_norm", "norm", (3, 5), _infer_batch_norm, _batch_norm_reference,
       "(x - mean) / sqrt(var + eps) with given statistics per channel of x[n, c, ...], times a scale, plus a shift",
       {"eps": 1e-5}, _batch_norm),
]  # fmt: skip
