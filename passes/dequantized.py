"""Products of dequantized integers are those of the integers, scaled once: what PT2E's programs say where they stand.

    linear((cast<f32>(q) - z) * s, decode(values, scale), b)                q, values: bytes

    =  cast<f32>(linear(cast<i32>(q) - z, cast<i32>(values))) * (s * scale) + b

and likewise for convolutions. The sum of integers is exact, where eager rounds each product and addition of floats;
what follows rounds thrice. A zero point that is no constant is taken from the sum: z * sum(values, k) of each channel.

Under torch.compile nobody knows what a weight's zero points y hold, so no encoding says what the program writes:

    linear((cast<f32>(q) - z) * s, cast<f32>(values - y) * scale)

    =  (cast<f32>(sums - sum(q - z, k) * y') - sum(q - z, k) * (y - y')) * (s * scale),    y' = clamp(y, -255, 255)

which is exact where zero points are those of bytes, and else as far off as a sum of floats. (Where y is within 255 of
2^63, eager's difference of integers wraps; this one does not.) Of a convolution of all channels, the sum over k is one
over the window: over the channels first, and of these sums over its taps. (Of one in groups, where products have few
terms, it would take as long as these do.)

How the integers are multiplied is `effcc.passes.integers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from effcc.ir.dims import elements
from effcc.ir.dtypes import f32, f64, i8, i16, i32, i64, u8
from effcc.ir.encodings import Storage
from effcc.ir.graph import Graph, Node, Value
from effcc.passes.dead_code import remove_dead_code
from effcc.passes.encodings.choose import decoded_storage
from effcc.passes.integer_convolutions import has_form, has_neighbours
from effcc.passes.integers import has_dots
from effcc.passes.ranges import range_of, zero_point
from effcc.passes.writer import Writer
from effcc.target import Target

_LARGEST_SUM = 1 << 31
_BYTE = 255


def multiply_integers(graph: Graph, target: Target) -> Graph:
    """The graph with such products written as integers', where `target` sums these by dot products."""
    producers = graph.producers()
    found = {n: p for n in graph.nodes if (p := _product(n, graph, producers)) is not None}
    if not found or not has_dots(i16, i16, target):
        return graph
    writer = Writer(graph)
    for node in graph.nodes:
        if (product := found.get(node)) is not None:
            _write(writer, node, product)
        else:
            writer.nodes.append(node)
    return remove_dead_code(graph.with_nodes(tuple(writer.nodes)))


@dataclass(frozen=True)
class _Rows:
    """Floats that are (q - zero) * step; zero: a number, or an integral value of f32; None where there is none."""

    q: Value
    zero: int | Value | None
    step: Value


@dataclass(frozen=True)
class _Product:
    """Of `rows` with a weight of bytes times scales of its channels."""

    rows: _Rows
    values: Value
    scale: Value
    zero: Value | None = None
    """Zero points of the weight's channels, which may hold any integers."""


def _product(node: Node, graph: Graph, producers: Mapping[Value, Node]) -> _Product | None:
    if node.op not in ("linear", "convolution") or node.result.type.dtype != f32:
        return None
    weight = producers.get(node.operands[1])
    rows = _rows(node.operands[0], producers)
    parts = None if rows is None or weight is None else _weight(weight, producers)
    if rows is None or parts is None or not all(p.name in graph.fixed_weights for p in parts):
        return None
    if node.op == "linear":
        fits = elements(node.operands[0].type.shape[:-1]) != 1
    else:
        fits = rows.step.type.rank == 0 and not isinstance(rows.zero, Value)
        fits = fits and (len(parts) == 2 or has_neighbours(node, parts[0])) and has_form(node, rows.q, parts[0])
    shape = node.operands[1].type.shape
    largest = 128 if len(parts) == 2 else 2 * (128 + _BYTE)
    fits = fits and all(isinstance(n, int) for n in shape) and elements(shape[1:]) * _BYTE * largest < _LARGEST_SUM
    return _Product(rows, *parts) if fits else None


def _weight(node: Node, producers: Mapping[Value, Node]) -> tuple[Value, ...] | None:
    """The bytes, scales and, if there are any, zero points that a weight is made of."""
    if node.op == "decode":
        return node.operands if not node.attrs["part"] and _is_whole(decoded_storage(node)) else None
    if node.op != "mul" or node.result.type.rank < 2 or node.result.type.dtype != f32:
        return None
    values, zero = _wide(node.operands[0], producers), None
    difference = producers.get(values)
    if difference is not None and difference.op == "sub" and difference.result.type.dtype == i64:
        values, zero = _wide(difference.operands[0], producers), _of_channels(difference.operands[1], producers)
        if zero is None or not zero.type.dtype.is_integer:
            return None
    scale = _of_channels(node.operands[1], producers)
    if values.type.dtype != i8 or values.type.shape != node.result.type.shape or scale is None:
        return None
    return None if scale.type.dtype != f32 else (values, scale) if zero is None else (values, scale, zero)


def _wide(value: Value, producers: Mapping[Value, Node]) -> Value:
    """What was cast to a number that holds it exactly, where it is of few bits."""
    node = producers.get(value)
    cast = node is not None and node.op == "cast" and value.type.dtype in (f32, f64, i32, i64)
    return node.operands[0] if cast and node is not None else value


def _of_channels(value: Value, producers: Mapping[Value, Node]) -> Value | None:
    """Numbers of output channels, [N], that stand as [N, 1, ...]."""
    node = producers.get(value)
    if node is None or node.op != "reshape" or node.operands[0].type.rank != 1:
        return None
    behind = (1,) * (value.type.rank - 1)
    return node.operands[0] if value.type.shape == (*node.operands[0].type.shape, *behind) else None


def _is_whole(stored: Storage) -> bool:
    """Whether a weight is stored as signed bytes times scales that whole sums share."""
    parts = stored.components
    if len(parts) != 2 or parts[0].type.dtype != i8 or parts[0].type.shape != stored.shape:
        return False
    return parts[1].type.dtype == f32 and parts[1].type.shape in ((1,), (stored.shape[0],))


def _rows(value: Value, producers: Mapping[Value, Node]) -> _Rows | None:
    node = producers.get(value)
    if node is not None and node.op == "cast" and value.type.dtype == f32 and node.operands[0].type.dtype == f64:
        node = producers.get(node.operands[0])  # scales that are computed in double precision
    if node is None or node.op != "mul" or value.type.dtype != f32:
        return None
    for whole, step in (node.operands, node.operands[::-1]):
        shared = step.type.rank == 0 or step.type.shape[-1] == 1
        found = _centred(whole, producers) if shared and whole.type.shape == value.type.shape else None
        if found is not None:
            return _Rows(*found, step)
    return None


def _centred(value: Value, producers: Mapping[Value, Node]) -> tuple[Value, int | Value | None] | None:
    """The bytes that floats are, and what is taken away from them."""
    node = producers.get(value)
    if node is None:
        return None
    if node.op == "cast" and value.type.dtype in (f32, f64, i32, i64):
        (given,) = node.operands
        return (
            (given, None) if given.type.dtype in (i8, u8) else _centred(given, producers) if _is_wide(given) else None
        )
    if node.op != "sub":
        return None
    held, by = _centred(node.operands[0], producers), node.operands[1]
    if held is None or held[1] is not None or not (by.type.rank == 0 or by.type.shape[-1] == 1):
        return None
    made = producers.get(by)
    if made is not None and made.op == "constant":
        number = zero_point(by, held[0].type.dtype, producers)
        return None if number is None else (held[0], number)
    least, most = range_of(by, producers)
    return (held[0], by) if _is_integral(by, producers) and -_BYTE <= least <= most <= _BYTE else None


def _is_wide(value: Value) -> bool:
    """Whether it is of integers that hold the difference of two bytes."""
    return value.type.dtype in (i32, i64)


def _is_integral(value: Value, producers: Mapping[Value, Node]) -> bool:
    """Whether a number was an integer before it was made a float."""
    while not value.type.dtype.is_integer:
        node = producers.get(value)
        if node is None or node.op not in ("cast", "reshape"):
            return False
        (value,) = node.operands
    return True


def _write(writer: Writer, node: Node, product: _Product) -> None:
    """What stands for the node."""
    name, rows, values = node.result.name, product.rows, product.values
    x, w = (writer.emit("cast", v, name=f"{v.name}_wide", dtype=i32) for v in (rows.q, values))
    if isinstance(rows.zero, int) and rows.zero:
        zero = writer.emit("constant", name="zero", value=rows.zero, dtype=i32, shape=())
        x = writer.emit("sub", x, zero, name=f"{rows.q.name}_centred")
    sums = writer.copy(node, (x, w), f"{name}_sums")
    total = None
    if product.zero is not None:
        total = _window_sums(writer, node, x) if node.op == "convolution" else _row_sums(writer, x, x.type.rank - 1)
    if isinstance(rows.zero, Value):
        each = writer.emit("sum", w, name=f"{values.name}_sums", axes=(1,), keepdim=False)
        each = writer.emit("cast", each, name=f"{values.name}_sums", dtype=i32)
        zero = writer.emit("cast", rows.zero, name="zero", dtype=i32)
        sums = writer.emit("sub", sums, writer.emit("mul", each, zero, name=f"{name}_taken"), name=f"{name}_sums")
        if total is not None:
            count = writer.emit("constant", name="count", value=w.type.shape[1], dtype=i32, shape=())
            total = writer.emit("sub", total, writer.emit("mul", zero, count, name="zeros"), name=f"{name}_total")
    behind = (1,) * (node.result.type.rank - 2) if node.op == "convolution" else ()
    step = rows.step if rows.step.type.dtype == f32 else writer.emit("cast", rows.step, name="step", dtype=f32)
    factor = writer.emit("mul", product.scale, step, name=f"{name}_scale")
    if behind:
        factor = writer.reshape(factor, (*factor.type.shape, *behind), f"{name}_scale")
    if product.zero is not None and total is not None:
        zero = writer.reshape(product.zero, (*product.zero.type.shape, *behind), f"{name}_zero")
        floats = _without_zeros(writer, name, sums, total, zero)
    else:
        floats = writer.emit("cast", sums, name=f"{name}_floats", dtype=f32)
    bias = node.operands[2:]
    scaled = writer.emit("mul", floats, factor, name=f"{name}_scaled", result=None if bias else node.result)
    for one in bias:
        shaped = writer.reshape(one, (*one.type.shape, *behind), f"{name}_bias")
        writer.emit("add", scaled, shaped, name=name, result=node.result)


def _row_sums(writer: Writer, x: Value, axis: int) -> Value:
    total = writer.emit("sum", x, name="row_sums", axes=(axis,), keepdim=True)
    return writer.emit("cast", total, name="row_sums", dtype=i32)


def _window_sums(writer: Writer, node: Node, x: Value) -> Value:
    """The sum of what is in each window of a convolution, [N, 1, ...]: below 2^24 over its channels, f32 holds it."""
    sums = _row_sums(writer, x, 1)
    taps = node.operands[1].type.shape[2:]
    if sums.type.shape[2:] == node.result.type.shape[2:] and set(taps) == {1}:
        return sums
    ones = writer.emit("full", name="ones", shape=(1, 1, *taps), value=1.0, dtype=f32)
    wide = writer.emit("cast", sums, name="channel_sums", dtype=f32)
    made = writer.copy(node, (wide, ones), "window_sums")
    return writer.emit("cast", made, name="window_sums", dtype=i32)


def _without_zeros(writer: Writer, name: str, sums: Value, total: Value, zero: Value) -> Value:
    """Sums of products with bytes, less what the zero points of channels add to them: exact for those of bytes."""
    low, high = (
        writer.emit("constant", name="bound", value=v, dtype=zero.type.dtype, shape=()) for v in (-_BYTE, _BYTE)
    )
    near = writer.emit("minimum", writer.emit("maximum", zero, low, name="near"), high, name="near")
    small = writer.emit("cast", near, name="near_zero", dtype=i32)
    sums = writer.emit("sub", sums, writer.emit("mul", total, small, name=f"{name}_near"), name=f"{name}_sums")
    rest = writer.emit("cast", writer.emit("sub", zero, near, name="rest"), name="rest_of_zero", dtype=f32)
    wide = writer.emit("cast", total, name=f"{name}_total", dtype=f32)
    floats = writer.emit("cast", sums, name=f"{name}_floats", dtype=f32)
    return writer.emit("sub", floats, writer.emit("mul", wide, rest, name=f"{name}_far"), name=f"{name}_centred")
