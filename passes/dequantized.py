"""Products of dequantized integers are those of the integers, scaled once: what PT2E's programs say where they stand.

    linear((cast<f32>(q) - z) * s, decode(values, scale), b)                q, values: bytes

    =  cast<f32>(linear(cast<i32>(q) - z, cast<i32>(values))) * (s * scale) + b

and likewise for convolutions. The sum of integers is exact, where eager rounds each product and addition of floats;
what follows rounds thrice. A zero point that is no constant is taken from the sum: z * sum(values, k) of each channel.
How the integers are multiplied is `effcc.passes.integers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from effcc.ir.dims import elements
from effcc.ir.dtypes import f32, i8, i16, i32, u8
from effcc.ir.encodings import Storage
from effcc.ir.graph import Graph, Node, Value
from effcc.passes.dead_code import remove_dead_code
from effcc.passes.encodings.choose import decoded_storage
from effcc.passes.integer_convolutions import has_form
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


def _product(node: Node, graph: Graph, producers: Mapping[Value, Node]) -> _Product | None:
    if node.op not in ("linear", "convolution") or node.result.type.dtype != f32:
        return None
    weight = producers.get(node.operands[1])
    rows = _rows(node.operands[0], producers)
    if rows is None or weight is None or weight.op != "decode" or weight.attrs["part"]:
        return None
    if not _is_whole(decoded_storage(weight)) or not all(o.name in graph.fixed_weights for o in weight.operands):
        return None
    if node.op == "linear":
        fits = rows.step.type.rank == 0 or rows.step.type.shape[-1] == 1
        fits = fits and elements(node.operands[0].type.shape[:-1]) != 1
    else:
        fits = rows.step.type.rank == 0 and not isinstance(rows.zero, Value)
        fits = fits and has_form(node, rows.q, weight.operands[0])
    shape = node.operands[1].type.shape
    fits = fits and all(isinstance(n, int) for n in shape) and elements(shape[1:]) * _BYTE * 128 < _LARGEST_SUM
    return _Product(rows, *weight.operands) if fits else None


def _is_whole(stored: Storage) -> bool:
    """Whether a weight is stored as signed bytes times scales that whole sums share."""
    parts = stored.components
    if len(parts) != 2 or parts[0].type.dtype != i8 or parts[0].type.shape != stored.shape:
        return False
    return parts[1].type.dtype == f32 and parts[1].type.shape in ((1,), (stored.shape[0],))


def _rows(value: Value, producers: Mapping[Value, Node]) -> _Rows | None:
    node = producers.get(value)
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
    if node.op == "cast" and node.operands[0].type.dtype in (i8, u8):
        return node.operands[0], None
    if node.op != "sub":
        return None
    held, by = _centred(node.operands[0], producers), node.operands[1]
    if held is None or held[1] is not None or by.type.rank != 0:
        return None
    made = producers.get(by)
    if made is not None and made.op == "constant":
        number = zero_point(by, held[0].type.dtype, producers)
        return None if number is None else (held[0], number)
    least, most = range_of(by, producers)
    return (held[0], by) if _is_integral(by, producers) and -_BYTE <= least <= most <= _BYTE else None


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
    if isinstance(rows.zero, Value):
        each = writer.emit("sum", w, name=f"{values.name}_sums", axes=(1,), keepdim=False)
        each = writer.emit("cast", each, name=f"{values.name}_sums", dtype=i32)
        zero = writer.emit("cast", rows.zero, name="zero", dtype=i32)
        sums = writer.emit("sub", sums, writer.emit("mul", each, zero, name=f"{name}_taken"), name=f"{name}_sums")
    behind = (1,) * (node.result.type.rank - 2) if node.op == "convolution" else ()
    factor = writer.emit("mul", product.scale, rows.step, name=f"{name}_scale")
    if behind:
        factor = writer.reshape(factor, (*factor.type.shape, *behind), f"{name}_scale")
    floats = writer.emit("cast", sums, name=f"{name}_floats", dtype=f32)
    bias = node.operands[2:]
    scaled = writer.emit("mul", floats, factor, name=f"{name}_scaled", result=None if bias else node.result)
    for one in bias:
        shaped = writer.reshape(one, (*one.type.shape, *behind), f"{name}_bias")
        writer.emit("add", scaled, shaped, name=name, result=node.result)
