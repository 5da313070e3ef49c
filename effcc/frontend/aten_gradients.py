"""Importers of gradients that core ATen keeps whole: convolutions and pooling, in terms of forward ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from effcc.frontend.aten_products import convolution
from effcc.frontend.aten_reductions import reduce
from effcc.frontend.importer import Importer, NotNative, aten, imports
from effcc.ir.dims import dim
from effcc.ir.graph import Value


def _known(sizes: Sequence[Any]) -> list[int]:
    if not all(isinstance(n, int) for n in sizes):
        raise NotNative("a gradient over axes of unknown size")
    return list(sizes)


def _spread(
    m: Importer, grad: Value, w: Value, sizes: Sequence[int], stride: Any, padding: Any, dilation: Any, groups: int
) -> Value:
    """The transposed convolution of `grad` whose result has the spatial `sizes`. With one tap, that is a product at
    every point of `grad`, and zeros between."""
    if all(taps == 1 for taps in w.type.shape[2:]) and not any(padding) and any(n > 1 for n in stride):
        one, none = (1,) * len(sizes), (0,) * len(sizes)
        return _apart(m, convolution(m, grad, w, None, one, none, one, True, none, groups), sizes, stride)
    extra = []
    for d, size in enumerate(sizes):
        reach = dilation[d] * (_known(w.type.shape)[2 + d] - 1) + 1
        extra.append(size - ((_known(grad.type.shape[2:])[d] - 1) * stride[d] - 2 * padding[d] + reach))
    return convolution(m, grad, w, None, stride, padding, dilation, True, tuple(extra), groups)


def _apart(m: Importer, x: Value, sizes: Sequence[int], stride: Sequence[int]) -> Value:
    """The spatial `sizes`, with the points of `x` at every `stride`th place and 0 between."""
    lead, points = x.type.shape[:2], _known(x.type.shape[2:])
    low = (0, 0, *(0 for _ in points for _ in range(2)))
    high = (0, 0, *(n for step in stride for n in (0, step - 1)))
    padded = m.emit("pad", m.reshape(x, (*lead, *(n for p in points for n in (p, 1)))), low=low, high=high, value=0)
    found = m.reshape(padded, (*lead, *(p * step for p, step in zip(points, stride, strict=True))))
    for d, size in enumerate(sizes):
        if found.type.shape[2 + d] != size:
            found = m.slice(found, 2 + d, 0, size)
    return found


def _weight_gradient(
    m: Importer, grad: Value, x: Value, w: Value, stride: Any, padding: Any, dilation: Any, groups: int
) -> Value:
    """`dw[o,c,k] = sum(n,y: grad[n,o,y] * x[n,c,y*stride + k*dilation - padding])`: a convolution summed over the
    batch.

    Channels of x become the batch, and the batch the channels, within each group; stride and dilation change places.
    x is padded before, to just what the taps reach: what is summed over all its points has no borders then.
    """
    rank = x.type.rank
    reached = [
        dilation[d] * (taps - 1) + stride[d] * (points - 1) + 1
        for d, (taps, points) in enumerate(zip(_known(w.type.shape[2:]), _known(grad.type.shape[2:]), strict=True))
    ]
    high = tuple(n - size - p for n, size, p in zip(reached, _known(x.type.shape[2:]), padding, strict=True))
    if any(padding) or any(high):  # made with channels innermost, along which lanes lie
        last = m.transpose(x, (*range(2, rank), 0, 1))
        last = m.emit("pad", last, low=(*padding, 0, 0), high=(*high, 0, 0), value=0)
        x = m.transpose(last, (rank - 2, rank - 1, *range(rank - 2)))
    batch, (channels, *area) = x.type.shape[0], _known(x.type.shape[1:])
    inner, none = channels // groups, (0,) * len(area)
    grouped = m.reshape(x, (batch, groups, inner, *area))
    swapped = m.transpose(grouped, (2, 1, 0, *range(3, rank + 1)))
    swapped = m.reshape(swapped, (inner, dim(groups * batch), *area))
    kernel = m.transpose(grad, (1, 0, *range(2, rank)))
    found = convolution(m, swapped, kernel, None, dilation, none, stride, False, none, groups)
    return m.transpose(found, (1, 0, *range(2, rank)))


@imports(aten.convolution_backward.default)
def convolution_backward(
    m: Importer, grad: Value, x: Value, w: Value, bias_sizes: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, wanted: Sequence[bool],
) -> tuple[Value | None, ...]:  # fmt: skip
    """Gradients of operand, weight and bias, each where it is wanted."""
    spatial = w.type.rank - 2
    stride, padding, dilation = (v * spatial if len(v) == 1 else v for v in (stride, padding, dilation))
    dx: Value | None = None
    dw: Value | None = None
    db: Value | None = None
    if wanted[0] and transposed:
        dx = convolution(m, grad, w, None, stride, padding, dilation, False, output_padding, groups)
        for d, size in enumerate(x.type.shape[2:]):  # more points where the result was padded by a stride or more
            if dx.type.shape[2 + d] != size:
                dx = m.slice(dx, 2 + d, 0, size)
    elif wanted[0]:
        dx = _spread(m, grad, w, _known(x.type.shape[2:]), stride, padding, dilation, groups)
    if wanted[1]:
        source, target = (x, grad) if transposed else (grad, x)
        dw = _weight_gradient(m, source, target, w, stride, padding, dilation, groups)
    if wanted[2]:
        db = reduce(m, "sum", grad, (0, *range(2, grad.type.rank)))
    return dx, dw, db


@imports(aten.max_pool2d_with_indices_backward.default)
def max_pool_backward(
    m: Importer, grad: Value, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, index: Value
) -> Value:
    """Each window's gradient, added where the window's maximum was."""
    lead = x.type.shape[:-2]
    height, width = _known(x.type.shape[-2:])
    windows = _known(grad.type.shape[-2:])
    zeros = m.emit("full", shape=(*lead, height * width), value=0.0, dtype=grad.type.dtype)
    flat = (*lead, windows[0] * windows[1])
    added = m.emit("scatter", zeros, m.reshape(index, flat), m.reshape(grad, flat), axis=len(lead), combine="add")
    return m.reshape(added, x.type.shape)


@imports(aten.avg_pool2d_backward.default)
def avg_pool_backward(
    m: Importer, grad: Value, x: Value, kernel: Any, stride: Any, padding: Any, ceil: bool, count_padding: bool,
    divisor: int | None,
) -> Value:  # fmt: skip
    """Each window's gradient, shared among its elements: a transposed convolution with ones, channel by channel."""
    if ceil or (any(padding) and not count_padding and divisor is None):
        raise NotNative("the gradient of a pooling whose windows count differently")
    kernel, padding = (tuple(v) * 2 if len(v) == 1 else tuple(v) for v in (kernel, padding))
    stride = kernel if not stride else tuple(stride) * 2 if len(stride) == 1 else tuple(stride)
    return _share(m, grad, x, kernel, stride, padding, divisor or kernel[0] * kernel[1])


@imports(aten._adaptive_avg_pool2d_backward.default)
def adaptive_avg_pool_backward(m: Importer, grad: Value, x: Value) -> Value:
    given, windows = _known(x.type.shape[-2:]), _known(grad.type.shape[-2:])
    if any(n % k for n, k in zip(given, windows, strict=True)):
        raise NotNative("the gradient of a pooling whose windows differ in width")
    kernel = (given[0] // windows[0], given[1] // windows[1])
    return _share(m, grad, x, kernel, kernel, (0, 0), kernel[0] * kernel[1])


def _share(m: Importer, grad: Value, x: Value, kernel: Any, stride: Any, padding: Any, count: int) -> Value:
    *lead, channels, _, _ = _known(x.type.shape)
    batched = grad if lead else m.unit(grad, 0)
    ones = m.emit("full", shape=(channels, 1, *kernel), value=1.0 / count, dtype=grad.type.dtype)
    spread = _spread(m, batched, ones, _known(x.type.shape[-2:]), stride, padding, (1, 1), channels)
    return m.reshape(spread, x.type.shape)
