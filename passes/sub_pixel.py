"""Transposed convolutions with a stride s, as plain ones that compute s results an axis side by side.

    y[n, o, i] = sum(c, k: x[n, c, p] w[c, o, k])    over the taps k with  i + pad - k = s p

With i + pad = s q + r and k = s t + r, every tap is one that is reached: x is read at p = q - t, whatever r is, so that
the sum over t is a plain convolution of x with s filters for each o, whose results interleave (Shi et al., "Is the
deconvolution layer the same as a convolutional layer?", 2016; arXiv:1609.07009). Written as the table's form, every
result asks of all taps whether they are reached, which one of s an axis is.

Where s does not divide the filter's size, some r have one tap less, and each has a convolution of its own: filters are
not padded, since 0 times an infinite input is not 0. (3 x 3 taps of stride 2 are 4, 2, 2 and 1.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import cast

from effcc.ir.dims import dim
from effcc.ir.graph import Graph, Node, Value
from effcc.passes.dead_code import remove_dead_code
from effcc.passes.writer import Writer

Sizes = tuple[int, ...]

_MOST = 8
"""Convolutions that one comes apart into at most."""


def sub_pixels(graph: Graph) -> Graph:
    """The graph with such convolutions written as plain ones."""
    if not any(map(_comes_apart, graph.nodes)):
        return graph
    writer = Writer(graph)
    for node in graph.nodes:
        if _comes_apart(node):
            _write(writer, node)
        else:
            writer.nodes.append(node)
    return remove_dead_code(graph.with_nodes(tuple(writer.nodes)))


def _comes_apart(node: Node) -> bool:
    if node.op != "convolution" or not node.attrs["transposed"] or node.attrs["groups"] != 1:
        return False
    stride, dilation, padding = (cast(Sizes, node.attrs[name]) for name in ("stride", "dilation", "padding"))
    weight = node.operands[1].type
    further = cast(Sizes, node.attrs["output_padding"] or (0,) * len(stride))
    plain = weight.encoding is None and set(dilation) == {1} and max(stride) > 1
    fits = all(isinstance(k, int) and k >= s for k, s in zip(weight.shape[2:], stride, strict=True))
    fits = fits and (_divides(node) or prod(stride) <= _MOST)
    return plain and fits and all(o <= p for o, p in zip(further, padding, strict=True))


def _divides(node: Node) -> bool:
    """Whether the stride divides the filter's size along every axis."""
    stride = cast(Sizes, node.attrs["stride"])
    return all(cast(int, k) % s == 0 for k, s in zip(node.operands[1].type.shape[2:], stride, strict=True))


def _write(writer: Writer, node: Node) -> None:
    w = node.operands[1]
    name, stride = node.result.name, cast(Sizes, node.attrs["stride"])
    spatial, places, outputs = len(stride), range(len(stride)), cast(int, w.type.shape[1])
    side_by_side = _at_once(writer, node) if _divides(node) else _one_by_one(writer, node)
    batch, _, *rows = side_by_side.type.shape
    found = writer.reshape(side_by_side, (batch, *stride, outputs, *rows), name)
    order = (0, 1 + spatial, *(n for d in places for n in (2 + spatial + d, 1 + d)))
    found = writer.emit("transpose", found, name=name, perm=order)
    found = writer.reshape(found, (batch, outputs, *(dim(n * s) for n, s in zip(rows, stride, strict=True))), name)
    cuts = list(zip(cast(Sizes, node.attrs["padding"]), node.result.type.shape[2:], strict=True))
    for axis, (pad, length) in enumerate(cuts, 2):
        last = axis == 1 + spatial
        found = writer.emit(
            "slice", found, name=name, axis=axis, start=pad, end=dim(length + pad), step=1,
            result=node.result if last else None,
        )  # fmt: skip


def _at_once(writer: Writer, node: Node) -> Value:
    """The convolution whose filters are those of all places r: [n, s.. o, q..]."""
    x, w, *bias = node.operands
    name, stride = node.result.name, cast(Sizes, node.attrs["stride"])
    spatial, places = len(stride), range(len(stride))
    inputs, outputs, *size = (cast(int, n) for n in w.type.shape)
    taps = [k // s for k, s in zip(size, stride, strict=True)]
    apart = writer.reshape(w, (inputs, outputs, *(n for pair in zip(taps, stride, strict=True) for n in pair)), name)
    turned = writer.emit("flip", apart, name=name, axes=tuple(2 + 2 * d for d in places))
    order = (*(3 + 2 * d for d in places), 1, 0, *(2 + 2 * d for d in places))
    filters = writer.emit("transpose", turned, name=name, perm=order)
    filters = writer.reshape(filters, (prod(stride) * outputs, inputs, *taps), name)
    if bias:
        repeated = writer.emit("broadcast", bias[0], name=name, shape=(prod(stride), outputs))
        bias = [writer.reshape(repeated, (prod(stride) * outputs,), name)]
    return writer.emit(
        "convolution", x, filters, *bias, name=name, groups=1,
        stride=(1,) * spatial, dilation=(1,) * spatial, padding=tuple(t - 1 for t in taps),
    )  # fmt: skip


def _unstrided(writer: Writer, x: Value, filters: Value, fewer: Sequence[int], name: str) -> Value:
    """A transposed convolution of stride 1, and as many zeros at the end of each axis as there are `fewer` taps."""
    ones, none = (1,) * len(fewer), (0,) * len(fewer)
    found = writer.emit(
        "convolution", x, filters, name=name, groups=1, transposed=True, stride=ones, dilation=ones, padding=none,
        output_padding=none,
    )  # fmt: skip
    return _longer(writer, found, fewer, name)


def _turned(writer: Writer, x: Value, filters: Value, bias: Sequence[Value], fewer: Sequence[int], name: str) -> Value:
    """The same with a bias, of run-time sizes, too: filters are turned and zeros are after x, so that no place asks for
    borders of its own."""
    ones, places = (1,) * len(fewer), tuple(range(2, 2 + len(fewer)))
    turned = writer.emit(
        "transpose", writer.emit("flip", filters, name=name, axes=places), name=name, perm=(1, 0, *places)
    )
    padding = tuple(cast(int, taps) - 1 for taps in filters.type.shape[2:])
    return writer.emit(
        "convolution", _longer(writer, x, fewer, name), turned, *bias, name=name, groups=1, stride=ones, dilation=ones,
        padding=padding,
    )  # fmt: skip


def _longer(writer: Writer, x: Value, by: Sequence[int], name: str) -> Value:
    low, high = (0,) * x.type.rank, (0, 0, *by)
    return writer.emit("pad", x, name=name, low=low, high=high) if any(by) else x


def _one_by_one(writer: Writer, node: Node) -> Value:
    """A convolution for each place r, with the taps that r has; what those with fewer taps do not reach is 0.

    A bias is added to all of them where zeros come after them, but for half types, whose results are rounded once.
    """
    x, w, *bias = node.operands
    name, stride = node.result.name, cast(Sizes, node.attrs["stride"])
    size = tuple(cast(int, k) for k in w.type.shape[2:])
    rounds = bool(bias) and x.type.dtype != x.type.dtype.accumulator
    ones, apart = (1,) * len(stride), not rounds and all(isinstance(n, int) for n in x.type.shape)
    parts = []
    for place in product(*map(range, stride)):
        filters, fewer = w, []
        for axis, (k, s, r) in enumerate(zip(size, stride, place, strict=True), 2):
            filters = writer.emit("slice", filters, name=name, axis=axis, start=r, end=k, step=s)
            fewer.append(-(-k // s) - -(-(k - r) // s))
        parts.append(
            _unstrided(writer, x, filters, fewer, name) if apart else _turned(writer, x, filters, bias, fewer, name)
        )
    together = writer.emit("concat", *parts, name=name, axis=1)
    if not bias or not apart:
        return together
    repeated = writer.emit("broadcast", bias[0], name=name, shape=(prod(stride), cast(int, w.type.shape[1])))
    each = writer.reshape(repeated, (prod(stride) * cast(int, w.type.shape[1]), *ones), name)
    return writer.emit("add", together, each, name=name)


__all__ = ["sub_pixels"]
