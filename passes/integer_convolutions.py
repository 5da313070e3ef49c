"""Convolutions of bytes: the border is laid around the input, as the byte that stands for 0, and taps are added up.

    y = convolution(cast<i32>(x) - z, cast<i32>(w)) {padding=p}
    becomes  convolution(cast<i32>(pad(x) {value=z}), cast<i32>(w), -z * sum(w))

so that taps are bytes as they lie in memory, and products are summed by dot products of packed channels. A depthwise
convolution, or one of few channels, has none: where its sums are below 2^24, f32 holds them all, and it is one of f32.
Of few channels (a picture's) a window's row is one of neighbours, where channels lie innermost:

    y[o,i,j] = sum(k, t: x[i * s + k, j * (s * C) + t] * w[o,k,t])              t = tap * C + channel
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from effcc.ir.dims import elements
from effcc.ir.dtypes import DType, f32, i8, i32, l8
from effcc.ir.graph import Node, Value
from effcc.passes.writer import Writer

Around = tuple[tuple[int, ...], tuple[int, ...]]
"""By how many elements each axis is padded, before and after."""
NEIGHBOURS = 4
"""Channels that a dot product of bytes takes at once."""
_EXACT = 1 << 24
"""f32 holds all integers up to here."""


@dataclass(frozen=True)
class Factors:
    """Of a sum of products (x - offset) * w, x and w being elements that are multiplied as they are stored."""

    x: Value
    w: Value
    offset: int

    def widened(self, writer: Writer) -> tuple[Value, Value]:
        x, w = (writer.emit("cast", v, name=f"{v.name}_wide", dtype=i32) for v in (self.x, self.w))
        return x, w

    def bias(self, writer: Writer, bias: Collection[Value]) -> tuple[Value, ...]:
        """-offset * sum(w), by output channel, plus the bias there was; nothing where there is neither."""
        if self.offset == 0:
            return tuple(bias)
        wide = writer.emit("cast", self.w, name=f"{self.w.name}_wide", dtype=i32)
        axes = tuple(range(1, self.w.type.rank))
        sums = writer.emit("sum", wide, name=f"{self.w.name}_sums", axes=axes, keepdim=False)
        sums = writer.emit("cast", sums, name=f"{self.w.name}_sums", dtype=i32)
        factor = writer.emit("constant", name="factor", value=-self.offset, dtype=i32, shape=())
        taken = writer.emit("mul", sums, factor, name=f"{self.w.name}_correction")
        for one in bias:
            taken = writer.emit("add", taken, one, name=f"{self.w.name}_bias")
        return (taken,)


def has_form(node: Node, x: Value, w: Value) -> bool:
    """Whether a convolution of bytes has one of these forms: then it gives the same."""
    if node.attrs["transposed"] or not all(isinstance(n, int) for n in w.type.shape):
        return False
    largest = _largest_sum(x, w)
    return largest < (1 << 31) if has_neighbours(node, w) else largest < _EXACT


def has_neighbours(node: Node, w: Value) -> bool:
    """Whether a dot product finds channels enough."""
    channels = w.type.shape[1]
    return node.attrs["groups"] == 1 and isinstance(channels, int) and channels >= NEIGHBOURS


@dataclass(frozen=True)
class Line:
    """A convolution whose windows' rows are neighbours: `taps` times `channels` elements, and so many `more` of weights
    that are 0, which make them whole dot products.
    """

    node: Node
    channels: int
    taps: int
    more: int

    @property
    def length(self) -> int:
        return self.channels * self.taps + self.more

    def written(self, writer: Writer, factors: Factors, around: Around) -> None:
        """The convolution of one channel that it is."""
        low, high = around
        channels, node = self.channels, self.node
        down, along = cast("tuple[int, int]", node.attrs["stride"])
        n, _, h, w = factors.x.type.shape
        columns = node.result.type.shape[3]
        assert isinstance(w, int) and isinstance(columns, int)
        length = (w + low[3] + high[3]) * channels
        short = max(along * channels * (columns - 1) + self.length - length, 0)
        last = (0, 2, 3, 1)
        x = writer.emit("transpose", factors.x, name=f"{factors.x.name}_last", perm=last)
        x = writer.reshape(x, (n, h, w * channels), f"{factors.x.name}_lines")
        border = (0, low[2], low[3] * channels), (0, high[2], high[3] * channels + short)
        x = _padded(writer, x, border, factors.offset)
        n, h, length = x.type.shape
        x = writer.reshape(x, (n, 1, h, length), f"{factors.x.name}_lines")
        taps = writer.emit("transpose", factors.w, name=f"{factors.w.name}_last", perm=last)
        o, k, _, _ = taps.type.shape
        taps = writer.reshape(taps, (o, 1, k, self.taps * channels), f"{factors.w.name}_lines")
        taps = _padded(writer, taps, ((0, 0, 0, 0), (0, 0, 0, self.more)), 0)
        bias = factors.bias(writer, tuple(_as_i32(writer, b) for b in node.operands[2:]))
        attrs = {**node.attrs, "stride": (down, along * channels), "padding": (0, 0)}
        _emit(writer, node, (*Factors(x, taps, 0).widened(writer), *bias), i32, attrs)


def line_of(node: Node, w: Value) -> Line | None:
    """A convolution of few channels as one of lines; None where its windows are not whole, or sizes are not known."""
    shape, moved = w.type.shape, node.result.type.shape[2:]
    known = all(isinstance(n, int) for n in (*shape, *node.operands[0].type.shape[1:], *moved))
    if not known or len(shape) != 4 or node.attrs["groups"] != 1 or node.attrs["dilation"] != (1, 1):
        return None
    _, channels, _, taps = cast("tuple[int, ...]", shape)
    return Line(node, channels, taps, -(channels * taps) % NEIGHBOURS) if channels < NEIGHBOURS else None


def _largest_sum(x: Value, w: Value) -> int:
    """A sum of products of bytes, less a zero point among them, does not exceed that."""
    return elements(w.type.shape[1:]) * 255 * (128 if w.type.dtype in (i8, l8) else 255)


def has_channels_apart(node: Node) -> bool:
    """Whether no axis of a convolution's windows is one with its channels: each has one tap, or is moved along."""
    taps, moved = node.operands[1].type.shape[2:], node.result.type.shape[2:]
    return all(k == 1 or n != 1 for k, n in zip(taps, moved, strict=True))


def padding_of(node: Node) -> Around:
    """By how many elements an axis a convolution pads its input, before and after."""
    sizes = (0, 0, *cast("tuple[int, ...]", node.attrs["padding"]))
    return sizes, sizes


def write_by_dots(writer: Writer, node: Node, factors: Factors, around: Around) -> None:
    """The convolution without padding of its own."""
    x = _padded(writer, factors.x, around, factors.offset)
    bias = tuple(_as_i32(writer, b) for b in node.operands[2:])
    operands = (*Factors(x, factors.w, 0).widened(writer), *factors.bias(writer, bias))
    _write(writer, node, operands, i32)


def write_in_floats(writer: Writer, node: Node, factors: Factors, around: Around) -> None:
    """The convolution of f32, whose sums are the same integers."""
    low, high = around
    apart = factors.offset != 0 or low != high
    given = _padded(writer, factors.x, around, factors.offset) if apart else factors.x
    operands = tuple(writer.emit("cast", v, name=f"{v.name}_f32", dtype=f32) for v in (given, factors.w))
    bias = tuple(writer.emit("cast", b, name=f"{b.name}_f32", dtype=f32) for b in factors.bias(writer, ()))
    _write(writer, node, (*operands, *bias), f32, padding=low[2:] if not apart else None)


def _padded(writer: Writer, x: Value, around: Around, value: int) -> Value:
    low, high = around
    return writer.emit("pad", x, name=f"{x.name}_padded", low=low, high=high, value=value) if any(low + high) else x


def _write(
    writer: Writer, node: Node, operands: tuple[Value, ...], dtype: DType, padding: tuple[int, ...] | None = None
) -> None:
    """The node with other operands and padding, by default none, and what it gives of another type, as it was."""
    unpadded = (0,) * len(cast("tuple[int, ...]", node.attrs["padding"]))
    _emit(writer, node, operands, dtype, {**node.attrs, "padding": padding or unpadded})


def _emit(writer: Writer, node: Node, operands: tuple[Value, ...], dtype: DType, attrs: dict[str, Any]) -> None:
    """The node with other operands and attributes, and what it gives as it was."""
    given = node.result.type.dtype
    if given == dtype:
        writer.emit(node.op, *operands, name=node.result.name, result=node.result, **attrs)
        return
    made = writer.emit(node.op, *operands, name=f"{node.result.name}_sums", **attrs)
    writer.emit("cast", made, name=node.result.name, result=node.result, dtype=given)


def _as_i32(writer: Writer, value: Value) -> Value:
    return value if value.type.dtype == i32 else writer.emit("cast", value, name=value.name, dtype=i32)
