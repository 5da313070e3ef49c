"""Convolutions of bytes: the border is laid around the input, as the byte that stands for 0, and taps are added up.

    y = convolution(cast<i32>(x) - z, cast<i32>(w)) {padding=p}
    becomes  convolution(cast<i32>(pad(x) {value=z}), cast<i32>(w), -z * sum(w))

so that taps are bytes as they lie in memory, and products are summed by dot products of packed channels. A depthwise
convolution, or one of few channels, has none: where its sums are below 2^24, f32 holds them all, and it is one of f32.
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
    attrs: dict[str, Any] = {**node.attrs, "padding": padding or unpadded}
    given = node.result.type.dtype
    if given == dtype:
        writer.emit(node.op, *operands, name=node.result.name, result=node.result, **attrs)
        return
    made = writer.emit(node.op, *operands, name=f"{node.result.name}_sums", **attrs)
    writer.emit("cast", made, name=node.result.name, result=node.result, dtype=given)


def _as_i32(writer: Writer, value: Value) -> Value:
    return value if value.type.dtype == i32 else writer.emit("cast", value, name=value.name, dtype=i32)
