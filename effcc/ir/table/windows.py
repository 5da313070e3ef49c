"""Pooling: reductions over windows of the last axes. Positions outside the operand never count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from effcc.ir.dims import Dim, ceil_div, dim, product, show
from effcc.ir.dtypes import i64
from effcc.ir.expr import (
    Axis,
    Call,
    Expr,
    add,
    both,
    cast,
    compare,
    floor_div,
    integer,
    multiply,
    where,
)
from effcc.ir.form import FormBuilder, call, constant
from effcc.ir.op import REQUIRED, Op, Types, require
from effcc.ir.scalars import lowest
from effcc.ir.table.movement import flatten
from effcc.ir.table.products import inside, overhangs
from effcc.ir.types import TensorType

_WINDOW = {"kernel": REQUIRED, "stride": REQUIRED, "padding": REQUIRED, "ceil": False}


def _pooled(size: Dim, d: int, attrs: Mapping[str, Any]) -> Dim:
    """The number of windows along axis `d`; where that is rounded up, the last one must still begin before the end."""
    kernel, stride, pad = attrs["kernel"][d], attrs["stride"][d], attrs["padding"][d]
    reach = (attrs.get("dilation") or (1,) * len(attrs["kernel"]))[d] * (kernel - 1) + 1
    if not attrs["ceil"]:
        return ceil_div(dim(size + 2 * pad - reach + 1), stride)
    if pad + stride > reach:  # of ceil((size + 2 pad - reach) / stride) + 1 windows the last may begin behind the end
        return ceil_div(dim(size + pad), stride)
    return dim(ceil_div(dim(size + 2 * pad - reach), stride) + 1)


def _infer_pool(result: Callable[[TensorType], TensorType]) -> Callable[[Types, Mapping[str, Any]], TensorType]:
    def infer(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
        (x,) = operands
        spatial = len(attrs["kernel"])
        for name in ("stride", "padding"):
            require(len(attrs[name]) == spatial, f"{name} must have {spatial} entries, got {len(attrs[name])}")
        require(x.rank >= spatial, f"cannot take windows over {spatial} axes of a tensor of rank {x.rank}")
        for kernel, pad in zip(attrs["kernel"], attrs["padding"], strict=True):
            require(2 * pad <= kernel, f"padding {pad} is more than half of the window {kernel}")
        sizes = tuple(_pooled(n, d, attrs) for d, n in enumerate(x.shape[x.rank - spatial :]))
        require(all(not isinstance(n, int) or n > 0 for n in sizes), "the windows are larger than the tensor")
        return result(TensorType(x.dtype, (*x.shape[: x.rank - spatial], *sizes)))

    return infer


class _Windows:
    """The axes of a pooling form: those of the result, the taps inside a window, and where each tap lies."""

    def __init__(self, b: FormBuilder) -> None:
        x, y, attrs = b.operands[0].type.shape, b.results[0].type.shape, b.attrs
        spatial = len(attrs["kernel"])
        lead = len(x) - spatial
        self.sizes = x[lead:]
        self.axes = (*b.axes(y[:lead], "n"), *b.axes(y[lead:], "y"))
        self.outer = self.axes[lead:]
        self.taps = b.axes(attrs["kernel"], "k")
        self.positions: list[Expr] = []
        self.guards: list[Expr] = []
        for d, (i, tap) in enumerate(zip(self.outer, self.taps, strict=True)):
            stride, pad = attrs["stride"][d], attrs["padding"][d]
            dilation = (attrs.get("dilation") or (1,) * spatial)[d]
            reach = dilation * (attrs["kernel"][d] - 1) + 1
            position = add(add(multiply(i, integer(stride)), multiply(tap, integer(dilation))), integer(-pad))
            above = attrs["ceil"] or overhangs(x[lead + d], y[lead + d], stride, pad, reach)
            self.guards += inside(position, x[lead + d], pad > 0, above)
            self.positions.append(position)
        self.value = b.load(0, (*self.axes[:lead], *self.positions))

    def guarded(self, value: Expr, otherwise: Expr) -> Expr:
        return where(both(*self.guards), value, otherwise) if self.guards else value


def _largest(b: FormBuilder, windows: _Windows) -> Expr:
    x = windows.value
    return b.reduce("max", windows.taps, windows.guarded(x, constant(lowest(x.dtype), x)))


def _max_pool(b: FormBuilder) -> None:
    windows = _Windows(b)
    b.define(windows.axes, _largest(b, windows))


def _argmax_pool(b: FormBuilder) -> None:
    """The first position whose element is the window's maximum: `min(k: x is the maximum ? position : size)`.

    Of NaN it is the last, as in torch: they go in as -1 - position, before all others and in opposite order.
    """
    windows = _Windows(b)
    best = b.temporary(windows.axes, _largest(b, windows))
    x = windows.value
    size = integer(product(windows.sizes))
    position = flatten(windows.positions, windows.sizes)
    found = where(call("eq", x, best), position, size)
    if x.dtype.is_float:
        found = where(call("isnan", x), _from_the_end(position), found)
    first = b.reduce("min", windows.taps, windows.guarded(found, size))
    if x.dtype.is_float:
        first = b.temporary(windows.axes, first)
        first = where(call("lt", first, integer(0)), _from_the_end(first), first)
    b.define(windows.axes, first)


def _from_the_end(position: Expr) -> Expr:
    return call("sub", integer(-1), position)


def _minimum(a: Expr, b: Expr) -> Expr:
    return Call("minimum", (a, b), i64)


def _maximum(a: Expr, b: Expr) -> Expr:
    return Call("maximum", (a, b), i64)


def _avg_pool(b: FormBuilder) -> None:
    windows = _Windows(b)
    value = windows.guarded(windows.value, _zero(windows.value))
    total = b.temporary(windows.axes, b.reduce("sum", windows.taps, value))
    b.define(windows.axes, call("div", total, _divisor(b, windows, total)))


def _zero(like: Expr) -> Expr:
    return constant(0, like)


def _divisor(b: FormBuilder, windows: _Windows, like: Expr) -> Expr:
    """How many positions of each window count."""
    attrs = b.attrs
    if attrs["divisor"] is not None:
        return constant(attrs["divisor"], like)
    if not windows.guards or (attrs["count_padding"] and not attrs["ceil"]):
        return constant(product(attrs["kernel"]), like)
    count: Expr = integer(1)
    for d, (i, size) in enumerate(zip(windows.outer, windows.sizes, strict=True)):
        pad = attrs["padding"][d]
        counted = pad if attrs["count_padding"] else 0
        start = add(multiply(i, integer(attrs["stride"][d])), integer(-pad))
        end = _minimum(add(start, integer(attrs["kernel"][d])), integer(dim(size + counted)))
        count = multiply(add(end, multiply(_maximum(start, integer(-counted)), integer(-1))), count)
    return cast(count, like.dtype)


# --- adaptive pooling ------------------------------------------------------------------------------------------------


def _infer_adaptive(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    (x,) = operands
    sizes = attrs["sizes"]
    require(x.rank >= len(sizes), f"cannot pool {len(sizes)} axes of a tensor of rank {x.rank}")
    for n, out in zip(x.shape[x.rank - len(sizes) :], sizes, strict=True):
        require(isinstance(n, int) and isinstance(out, int), f"needs known sizes, got {show(n)} to {show(out)}")
    return TensorType(x.dtype, (*x.shape[: x.rank - len(sizes)], *sizes))


def _adaptive_avg_pool(b: FormBuilder) -> None:
    """Window o of an axis is `[floor(o * n / m), ceil((o + 1) * n / m))` for n elements and m windows."""
    x, sizes = b.operands[0].type.shape, b.attrs["sizes"]
    lead = len(x) - len(sizes)
    axes = (*b.axes(x[:lead], "n"), *b.axes(sizes, "y"))
    taps: list[Axis] = []
    index: list[Expr] = list(axes[:lead])
    guards: list[Expr] = []
    count: Expr = integer(1)
    for o, n, m in zip(axes[lead:], x[lead:], sizes, strict=True):
        assert isinstance(n, int)
        start = floor_div(multiply(o, integer(n)), integer(m))
        end = floor_div(add(multiply(o, integer(n)), integer(n + m - 1)), integer(m))
        widest = max(-(-(k + 1) * n // m) - k * n // m for k in range(m)) if m else 1
        tap = b.axis(widest, "k")
        taps.append(tap)
        width = add(end, multiply(start, integer(-1)))
        if n % m:
            guards.append(compare("lt", tap, width))
        index.append(add(start, tap))
        count = multiply(width, count) if n % m else multiply(count, integer(widest))
    value: Expr = b.load(0, index)
    if guards:
        value = where(both(*guards), value, _zero(value))
    total = b.temporary(axes, b.reduce("sum", taps, value))
    b.define(axes, call("div", total, cast(count, total.dtype)))


# --- references ------------------------------------------------------------------------------------------------------


def _window_slices(attrs: Mapping[str, Any], index: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    """The part of the operand under the window at `index`."""
    found = []
    for d, i in enumerate(index):
        step = (attrs.get("dilation") or (1,) * len(index))[d]
        start = i * attrs["stride"][d] - attrs["padding"][d]
        end = min(start + step * (attrs["kernel"][d] - 1) + 1, sizes[d])
        found.append(slice(start if start >= 0 else start % step, max(end, 0), step))
    return tuple(found)


def _each_window(x: Any, attrs: Mapping[str, Any], dtype: Any, compute: Callable[..., Any]) -> Any:
    """`compute(window, slices)` for every window, over all leading axes at once."""
    spatial = len(attrs["kernel"])
    sizes = x.shape[x.ndim - spatial :]
    out = [int(_pooled(n, d, attrs)) for d, n in enumerate(sizes)]
    result = np.zeros((*x.shape[: x.ndim - spatial], *out), dtype)
    for index in np.ndindex(*out):
        slices = _window_slices(attrs, index, sizes)
        result[(..., *index)] = compute(x[(..., *slices)], slices, index)
    return result


def _max_pool_reference(x: Any, **attrs: Any) -> Any:
    over = tuple(range(-len(attrs["kernel"]), 0))
    return _each_window(x, attrs, x.dtype, lambda w, *_: w.max(axis=over))


def _argmax_pool_reference(x: Any, **attrs: Any) -> Any:
    spatial = len(attrs["kernel"])
    sizes = x.shape[x.ndim - spatial :]

    def compute(window: Any, slices: tuple[slice, ...], _: Any) -> Any:
        flattened = window.reshape(*window.shape[: window.ndim - spatial], -1)
        nan = np.isnan(flattened) if flattened.dtype.kind not in "iub" else np.zeros(flattened.shape, bool)
        last = flattened.shape[-1] - 1 - nan[..., ::-1].argmax(axis=-1)
        flat = np.where(nan.any(axis=-1), last, flattened.argmax(axis=-1))
        within = np.unravel_index(flat, window.shape[window.ndim - spatial :])
        return np.ravel_multi_index([s.start + s.step * k for s, k in zip(slices, within, strict=True)], sizes)

    return _each_window(x, attrs, np.int64, compute)


def _avg_pool_reference(x: Any, **attrs: Any) -> Any:
    spatial = len(attrs["kernel"])
    sizes = x.shape[x.ndim - spatial :]
    over = tuple(range(-spatial, 0))

    def compute(window: Any, _: Any, index: Sequence[int]) -> Any:
        count = attrs["divisor"]
        if count is None:
            count = 1
            for d, i in enumerate(index):
                pad = attrs["padding"][d]
                counted = pad if attrs["count_padding"] else 0
                start = i * attrs["stride"][d] - pad
                count *= min(start + attrs["kernel"][d], sizes[d] + counted) - max(start, -counted)
        return window.sum(axis=over) / count

    return _each_window(x.astype(np.float64), attrs, np.float64, compute).astype(x.dtype)


def _adaptive_reference(x: Any, sizes: Sequence[int]) -> Any:
    lead = x.ndim - len(sizes)
    result = np.zeros((*x.shape[:lead], *sizes))
    for index in np.ndindex(*sizes):
        cut = tuple(
            slice(o * n // m, -(-(o + 1) * n // m)) for o, n, m in zip(index, x.shape[lead:], sizes, strict=True)
        )
        result[(..., *index)] = x[(..., *cut)].astype(np.float64).mean(axis=tuple(range(-len(sizes), 0)))
    return result.astype(x.dtype)


def _floating(t: TensorType) -> TensorType:
    require(t.dtype.is_float, f"needs a floating dtype, got {t.dtype.name}")
    return t


OPS: list[Op] = [
    Op("max_pool", "reduction", (1, 1), _infer_pool(lambda t: t), _max_pool_reference,
       "maximum over windows of the last axes", {**_WINDOW, "dilation": None}, _max_pool),
    Op("argmax_pool", "reduction", (1, 1), _infer_pool(lambda t: TensorType(i64, t.shape)), _argmax_pool_reference,
       "where the maximum of each window lies first, in the flattened last axes", {**_WINDOW, "dilation": None},
       _argmax_pool),
    Op("avg_pool", "reduction", (1, 1), _infer_pool(_floating), _avg_pool_reference,
       "mean over windows of the last axes; `count_padding`: padding counts as zeros; `divisor` replaces the count",
       {**_WINDOW, "count_padding": True, "divisor": None}, _avg_pool),
    Op("adaptive_avg_pool", "reduction", (1, 1), lambda t, a: _floating(_infer_adaptive(t, a)), _adaptive_reference,
       "mean over `sizes` windows of nearly equal width along the last axes", {"sizes": REQUIRED}, _adaptive_avg_pool),
]  # fmt: skip
