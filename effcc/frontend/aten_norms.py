"""Importers of softmax and normalizations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sympy

from effcc.frontend.aten_reductions import reduce
from effcc.frontend.importer import HALVES, Importer, NotNative, aten, imports
from effcc.ir.dims import number, product
from effcc.ir.dtypes import bf16, f32
from effcc.ir.graph import Value
from effcc.ir.op import normalize_axis
from effcc.ir.size_functions import FUNCTIONS


@imports(aten._softmax.default)
def softmax(m: Importer, x: Value, dim: int, half_to_float: bool = False) -> Value:
    x = m.cast(x, f32) if half_to_float else x
    return _along(m, "softmax", x, dim)


@imports(aten._safe_softmax.default)
def safe_softmax(m: Importer, x: Value, dim: int, dtype: Any = None) -> Value:
    if dtype is not None:
        raise NotNative("a masked softmax that converts its operand")
    return _along(m, "softmax", x, dim, safe=True)


@imports(aten._log_softmax.default)
def log_softmax(m: Importer, x: Value, dim: int, half_to_float: bool = False) -> Value:
    x = m.cast(x, f32) if half_to_float else x
    return _along(m, "log_softmax", x, dim)


def _along(m: Importer, op: str, x: Value, dim: int, **attrs: Any) -> Value:
    """An op along an axis; that of a 0-d tensor is its one element."""
    if x.type.rank:
        return m.emit(op, x, axis=normalize_axis(dim, x.type.rank), **attrs)
    return m.reshape(m.emit(op, m.reshape(x, (1,)), axis=0, **attrs), ())


def _affine(m: Importer, x: Value, weight: Value | None, bias: Value | None, shape: Any) -> list[Value]:
    """The operands after `x` of a normalization: none, a scale, or a scale and a shift."""
    if weight is None and bias is None:
        return []
    dtype = x.type.dtype
    scale = m.emit("full", shape=tuple(shape), value=1.0, dtype=dtype) if weight is None else m.cast(weight, dtype)
    return [scale] if bias is None else [scale, m.cast(bias, dtype)]


def _inverse_deviation(m: Importer, variance: Value, eps: float) -> Value:
    return m.emit("rsqrt", m.elementwise("add", variance, eps))


@imports(aten.native_layer_norm.default)
def layer_norm(m: Importer, x: Value, shape: Any, weight: Any, bias: Any, eps: float) -> tuple[Value, Value, Value]:
    """The normalized tensor, and the mean and reciprocal deviation that a backward pass wants."""
    axes = len(shape)
    affine = _affine(m, x, weight, bias, x.type.shape[-axes:])
    result = m.emit("layer_norm", x, *affine, axes=axes, eps=eps)
    over = range(x.type.rank - axes, x.type.rank)
    mean, variance = _moments(m, m.cast(x, x.type.dtype.accumulator), over, keepdim=True)
    return result, mean, _inverse_deviation(m, variance, eps)


def _moments(m: Importer, x: Value, axes: Iterable[int], keepdim: bool = False) -> tuple[Value, Value]:
    """Mean and (biased) variance in the type of `x`, as eager's norms compute them; its `var` is in f64."""
    axes = tuple(axes)
    mean = reduce(m, "mean", x, axes, keepdim=True)
    deviation = m.emit("sub", x, mean)
    variance = reduce(m, "mean", m.emit("mul", deviation, deviation), axes, keepdim)
    return (mean if keepdim else reduce(m, "mean", x, axes)), variance


@imports(aten._fused_rms_norm.default)
def rms_norm(m: Importer, x: Value, shape: Any, weight: Value | None, eps: float | None) -> tuple[Value, Value]:
    if eps is None:
        raise NotNative("an RMS norm whose epsilon depends on the dtype")
    axes = len(shape)
    result = m.emit("rms_norm", x, *_affine(m, x, weight, None, ()), axes=axes, eps=eps)
    wide = m.cast(x, x.type.dtype.accumulator)
    square = reduce(m, "mean", m.emit("mul", wide, wide), range(x.type.rank - axes, x.type.rank), keepdim=True)
    return result, _inverse_deviation(m, square, eps)


@imports(aten.native_group_norm.default)
def group_norm(
    m: Importer, x: Value, weight: Any, bias: Any, batch: Any, channels: Any, area: Any, groups: int, eps: float
) -> tuple[Value, Value, Value]:
    affine = _affine(m, x, weight, bias, x.type.shape[1:2])
    result = m.emit("group_norm", x, *affine, groups=groups, eps=eps)
    # Axes stay apart: of unknown sizes, one of all pixels would have to be divided again by each of them.
    pixels = x.type.shape[2:] if x.type.rank > 2 else (area,)
    grouped = m.reshape(m.cast(x, x.type.dtype.accumulator), (batch, groups, channels // groups, *pixels))
    mean, variance = _moments(m, grouped, range(2, grouped.type.rank))
    dtype = x.type.dtype
    return result, m.cast(mean, dtype), m.cast(_inverse_deviation(m, variance, eps), dtype)


@imports(aten._native_batch_norm_legit_no_training.default)
def batch_norm_inference(
    m: Importer, x: Value, weight: Any, bias: Any, mean: Value, variance: Value, momentum: float, eps: float
) -> tuple[Value, Value, Value]:
    """x * scale + shift, with both computed for each channel as eager computes them: of weights, so only once."""
    wide = x.type.dtype.accumulator
    result = _scaled_and_shifted(m, x, _inverse_deviation(m, m.cast(variance, wide), eps), mean, weight, bias)
    empty = m.emit("full", shape=(0,), value=0.0, dtype=x.type.dtype)
    return result, empty, empty


def _scaled_and_shifted(m: Importer, x: Value, inverse: Value, mean: Value, weight: Any, bias: Any) -> Value:
    """x * scale + shift, for a reciprocal deviation and a mean per channel."""
    wide = x.type.dtype.accumulator
    scale = m.cast(inverse, wide)
    if weight is not None:
        scale = m.emit("mul", scale, m.cast(weight, wide))
    shift = m.emit("mul", m.cast(mean, wide), scale)
    shift = m.emit("neg", shift) if bias is None else m.emit("sub", m.cast(bias, wide), shift)
    scaled = m.emit("mul", m.cast(x, wide), _by_channel(m, scale, x))
    return m.cast(m.emit("add", scaled, _by_channel(m, shift, x)), x.type.dtype)


def _by_channel(m: Importer, p: Value, x: Value) -> Value:
    """A number for each channel, in a shape that broadcasts to x[n, c, ...]."""
    return m.reshape(p, (x.type.shape[1], *(1,) * (x.type.rank - 2)))


def _batch_norm(
    m: Importer, x: Value, weight: Any, bias: Any, eps: float, parameters: Sequence[Value | None]
) -> tuple[Value, Value, Value, Value]:
    """The tensor normalized by its own statistics; then the mean, the reciprocal deviation and the (biased) variance.

    Where the parameters are of a half type, or there are none, eager rounds the mean and the reciprocal deviation of a
    half tensor to it.
    """
    over = (0, *range(2, x.type.rank))
    dtype = x.type.dtype
    wide = m.cast(x, dtype.accumulator)
    if dtype not in HALVES:
        mean, variance = _moments(m, wide, over)
        result = m.emit("batch_norm", x, mean, variance, *_affine(m, x, weight, bias, x.type.shape[1:2]), eps=eps)
        return result, mean, _inverse_deviation(m, variance, eps), variance
    given = next((p for p in (weight, bias, *parameters) if p is not None), None)
    kept = dtype if given is None or given.type.dtype == dtype else dtype.accumulator
    mean = m.cast(reduce(m, "mean", wide, over), kept)
    deviation = m.emit("sub", wide, _by_channel(m, m.cast(mean, dtype.accumulator), x))
    variance = reduce(m, "mean", m.emit("mul", deviation, deviation), over)
    inverse = m.cast(_inverse_deviation(m, variance, eps), kept)
    return _scaled_and_shifted(m, x, inverse, mean, weight, bias), mean, inverse, variance


@imports(aten._native_batch_norm_legit.no_stats)
def batch_norm_no_stats(
    m: Importer, x: Value, weight: Any, bias: Any, training: bool, momentum: float, eps: float
) -> tuple[Value, Value, Value]:
    return _batch_norm(m, x, weight, bias, eps, ())[:3]


@imports(aten._native_batch_norm_legit_functional.default)
def batch_norm_functional(
    m: Importer, x: Value, weight: Any, bias: Any, mean: Value, variance: Value, training: bool, momentum: float,
    eps: float,
) -> tuple[Value, ...]:  # fmt: skip
    """Batch norm that also gives the new running statistics, `(1 - momentum) * old + momentum * batch`."""
    if not training:
        return (*batch_norm_inference(m, x, weight, bias, mean, variance, momentum, eps), mean, variance)
    count = product((x.type.shape[0], *x.type.shape[2:]))
    correction = number(FUNCTIONS["ratio"](count, sympy.Max(count - 1, 1)))
    result, batch_mean, inverse, batch_variance = _batch_norm(m, x, weight, bias, eps, (mean, variance))
    unbiased = m.elementwise("mul", batch_variance, correction)
    return (
        result,
        batch_mean,
        inverse,
        _blend(m, mean, batch_mean, momentum),
        _blend(m, variance, unbiased, momentum),
    )


def _blend(m: Importer, old: Value, new: Value, momentum: float) -> Value:
    """Of half types the sum is rounded once; of bf16 also the two factors, as in eager."""
    dtype = old.type.dtype
    wide = dtype.accumulator
    kept, taken = (m.accurate(f, dtype) if dtype == bf16 else m.constant(f, wide) for f in (1 - momentum, momentum))
    return m.cast(m.emit("add", m.emit("mul", m.cast(old, wide), kept), m.emit("mul", m.cast(new, wide), taken)), dtype)
