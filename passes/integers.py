"""Products of bytes in the form that a machine's dot products have; what it takes of the weights is prepared.

    y = linear(cast<i32>(x), cast<i32>(w))                                     x, w: i8, w made of weights

Where the machine multiplies unsigned with signed bytes (vpdpbusd), rows are moved up, and what that adds is taken away:

    y = linear(cast<i32>(u), cast<i32>(w), -128 * sum(w, k))                   u = cast<u8>(cast<i32>(x) + 128)

Where it multiplies pairs (vpmaddwd), both are widened to i16, rows as they are written, weights once. What is taken
away from all bytes (a zero point) is taken from the sum likewise:

    linear(cast<i32>(x) - z, cast<i32>(w))  =  linear(cast<i32>(x), cast<i32>(w), -z * sum(w, k))

Sums are those of the integers modulo 2^32 in any form: exact while K * 2^14 < 2^31, and wrapped around as eager's
beyond. Convolutions are `effcc.passes.integer_convolutions`.
"""

from __future__ import annotations

from dataclasses import dataclass

from effcc.ir.contraction import PackedDot
from effcc.ir.dots import DOTS
from effcc.ir.dtypes import DType, i8, i16, i32, i64, u8
from effcc.ir.graph import Graph, Node, Value
from effcc.passes.hoist import movable
from effcc.passes.integer_convolutions import Factors, has_form, has_neighbours, write_by_dots, write_in_floats
from effcc.passes.tiling.dots import dot_slots
from effcc.passes.writer import Writer
from effcc.target import Target

_BYTES = (i8, u8)
_OFFSET = 128


def sum_by_dots(graph: Graph, target: Target) -> Graph:
    """The graph with products of bytes and weights as `target` sums them."""
    producers = graph.producers()
    found = [p for n in graph.nodes if (p := _product(n, producers)) is not None]
    if not found or not has_dots(i16, i16, target):
        return graph
    constant = movable(graph)
    weights = {p.name for p in graph.params} & graph.fixed_weights

    def prepared(value: Value) -> bool:
        return value.name in weights or (value in producers and constant.get(producers[value], False))

    products = {p.node: p for p in found if prepared(p.w)}
    writer = Writer(graph)
    for node in graph.nodes:
        if node not in products:
            writer.nodes.append(node)
        elif node.op == "convolution":
            _write_convolution(writer, products[node], target)
        else:
            _write(writer, products[node], target)
    return graph.with_nodes(tuple(writer.nodes))


@dataclass(frozen=True)
class _Product:
    """A product `node` of bytes: x[..., k] - zero times w, transposed where it is a `linear`'s."""

    node: Node
    x: Value
    w: Value
    zero: int = 0


def _product(node: Node, producers: dict[Value, Node]) -> _Product | None:
    summed = {"linear": (i32,), "matmul": (i32,), "convolution": (i32, i64)}.get(node.op, ())
    if node.result.type.dtype not in summed or (node.op != "convolution" and node.operands[1].type.rank != 2):
        return None
    rows, zero = _centred(node.operands[0], producers)
    x, w = _held(rows, producers), _held(node.operands[1], producers)
    found = None if x is None or w is None else _Product(node, x, w, zero)
    return found if found is None or node.op != "convolution" or has_form(node, found.x, found.w) else None


def _centred(value: Value, producers: dict[Value, Node]) -> tuple[Value, int]:
    """A value, and the zero point that is taken away from it."""
    node = producers.get(value)
    if node is not None and node.op == "sub" and (by := producers.get(node.operands[1])) is not None:
        number = by.attrs.get("value") if by.op == "constant" else None
        if type(number) is int and 0 <= number <= 255:
            return node.operands[0], number
    return value, 0


def _held(value: Value, producers: dict[Value, Node]) -> Value | None:
    """The bytes that a value is, widened."""
    node = producers.get(value)
    wide = node is not None and node.op == "cast" and node.operands[0].type.dtype in _BYTES
    return node.operands[0] if node is not None and wide else None


def has_dots(a: DType, b: DType, target: Target) -> bool:
    """Whether `target` sums products of such elements, or would those of two such."""
    return dot_slots(PackedDot(a, b, DOTS[a, b, i32]), target) is not None


def _factors(writer: Writer, product: _Product, target: Target) -> Factors:
    """The factors as `target` multiplies them."""
    x, w, zero = product.x, product.w, product.zero
    signed, mixed = x.type.dtype == w.type.dtype == i8, x.type.dtype != w.type.dtype
    if signed and has_dots(u8, i8, target):
        return Factors(_moved_up(writer, x), w, zero + _OFFSET)
    if not (signed and has_dots(i8, i8, target)) and not (mixed and has_dots(u8, i8, target)):
        x, w = (writer.emit("cast", v, name=f"{v.name}_pairs", dtype=i16) for v in (x, w))
    return Factors(x, w, zero)


def _write(writer: Writer, product: _Product, target: Target) -> None:
    node = product.node
    name, bias = node.result.name, node.operands[2:]
    if node.op == "matmul":
        w = writer.emit("transpose", product.w, name=f"{product.w.name}_t", perm=(1, 0))
        product = _Product(node, product.x, w, product.zero)
    factors = _factors(writer, product, target)
    wide = factors.widened(writer)
    writer.emit("linear", *wide, *factors.bias(writer, bias), name=name, result=node.result)


def _write_convolution(writer: Writer, product: _Product, target: Target) -> None:
    node, held = product.node, Factors(product.x, product.w, product.zero)
    if has_neighbours(node, product.w):
        write_by_dots(writer, node, _factors(writer, product, target))
    else:
        write_in_floats(writer, node, held)


def _moved_up(writer: Writer, x: Value) -> Value:
    """x + 128, from 0 to 255."""
    wide = writer.emit("cast", x, name=f"{x.name}_wide", dtype=i32)
    offset = writer.emit("constant", name="offset", value=_OFFSET, dtype=i32, shape=())
    return writer.emit("cast", writer.emit("add", wide, offset, name=f"{x.name}_up"), name=f"{x.name}_up", dtype=u8)
