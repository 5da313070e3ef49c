"""Products of bytes in the form that a machine's dot products have; what it takes of the weights is prepared.

    y = linear(cast<i32>(x), cast<i32>(w))                                     x, w: i8, w made of weights

Where the machine multiplies unsigned with signed bytes (vpdpbusd), rows are moved up, and what that adds is taken away:

    y = linear(cast<i32>(u), cast<i32>(w), -128 * sum(w, k))                   u = cast<u8>(cast<i32>(x) + 128)

Where it multiplies pairs (vpmaddwd), both are widened to i16, rows as they are written, weights once. Sums are those of
the integers modulo 2^32 in any form: exact while K * 2^14 < 2^31, and wrapped around as eager's beyond.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from effcc.ir.contraction import PackedDot
from effcc.ir.dots import DOTS
from effcc.ir.dtypes import DType, i8, i16, i32, u8
from effcc.ir.graph import Graph, Node, Value
from effcc.passes.hoist import movable
from effcc.passes.tiling.dots import dot_slots
from effcc.passes.writer import Writer
from effcc.target import Target

_BYTES = (i8, u8)
_OFFSET = 128


def sum_by_dots(graph: Graph, target: Target) -> Graph:
    """The graph with products of bytes and weights as `target` sums them."""
    producers = graph.producers()
    found = [p for n in graph.nodes if (p := _product(n, producers)) is not None]
    if not found or not _has_dots(i16, i16, target):
        return graph
    constant = movable(graph)
    weights = {p.name for p in graph.params} & graph.fixed_weights

    def prepared(value: Value) -> bool:
        return value.name in weights or (value in producers and constant.get(producers[value], False))

    products = {p.node: p for p in found if prepared(p.w)}
    writer = Writer(graph)
    for node in graph.nodes:
        if node in products:
            _write(writer, products[node], target)
        else:
            writer.nodes.append(node)
    return graph.with_nodes(tuple(writer.nodes))


@dataclass(frozen=True)
class _Product:
    """A product `node` of bytes: x[..., k] times w, transposed where it is a `linear`'s."""

    node: Node
    x: Value
    w: Value


def _product(node: Node, producers: dict[Value, Node]) -> _Product | None:
    if node.op not in ("linear", "matmul") or node.result.type.dtype != i32 or node.operands[1].type.rank != 2:
        return None
    held = [_held(o, producers) for o in node.operands[:2]]
    return None if held[0] is None or held[1] is None else _Product(node, held[0], held[1])


def _held(value: Value, producers: dict[Value, Node]) -> Value | None:
    """The bytes that a value is, widened."""
    node = producers.get(value)
    wide = node is not None and node.op == "cast" and node.operands[0].type.dtype in _BYTES
    return node.operands[0] if node is not None and wide else None


def _has_dots(a: DType, b: DType, target: Target) -> bool:
    return dot_slots(PackedDot(a, b, DOTS[a, b, i32]), target) is not None


def _write(writer: Writer, product: _Product, target: Target) -> None:
    node, x, w = product.node, product.x, product.w
    name, bias = node.result.name, node.operands[2:]
    if node.op == "matmul":
        w = writer.emit("transpose", w, name=f"{w.name}_t", perm=(1, 0))
    signed, mixed = x.type.dtype == w.type.dtype == i8, x.type.dtype != w.type.dtype
    if signed and _has_dots(u8, i8, target):
        bias = (_correction(writer, w, bias),)
        x = _moved_up(writer, x)
    elif not (signed and _has_dots(i8, i8, target)) and not (mixed and _has_dots(u8, i8, target)):
        x, w = (writer.emit("cast", v, name=f"{v.name}_pairs", dtype=i16) for v in (x, w))
    wide = [writer.emit("cast", v, name=f"{v.name}_wide", dtype=i32) for v in (x, w)]
    writer.emit("linear", *wide, *bias, name=name, result=node.result)


def _moved_up(writer: Writer, x: Value) -> Value:
    """x + 128, from 0 to 255."""
    wide = writer.emit("cast", x, name=f"{x.name}_wide", dtype=i32)
    offset = writer.emit("constant", name="offset", value=_OFFSET, dtype=i32, shape=())
    return writer.emit("cast", writer.emit("add", wide, offset, name=f"{x.name}_up"), name=f"{x.name}_up", dtype=u8)


def _correction(writer: Writer, w: Value, bias: Collection[Value]) -> Value:
    """What moving rows up adds, with the opposite sign: -128 * sum(w, k), plus the bias there was."""
    wide = writer.emit("cast", w, name=f"{w.name}_wide", dtype=i32)
    sums = writer.emit("sum", wide, name=f"{w.name}_sums", axes=(1,), keepdim=False)
    sums = writer.emit("cast", sums, name=f"{w.name}_sums", dtype=i32)
    factor = writer.emit("constant", name="factor", value=-_OFFSET, dtype=i32, shape=())
    taken = writer.emit("mul", sums, factor, name=f"{w.name}_correction")
    for one in bias:
        taken = writer.emit("add", taken, one, name=f"{w.name}_bias")
    return taken
