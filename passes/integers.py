"""Products of bytes in the form that a machine's dot products have; what it takes of the weights is prepared.

    y = linear(cast<i32>(x), cast<i32>(w))                                     x, w: i8, w made of weights

Where the machine multiplies unsigned with signed bytes (vpdpbusd), rows are moved up, and what that adds is taken away:

    y = linear(cast<i32>(u), cast<i32>(w), -128 * sum(w, k))                   u = cast<u8>(cast<i32>(x) + 128)

Where rows are known to differ by no more than 127 (`effcc.passes.ranges`), they are moved up to 0 to 127 likewise: two
products then fit in i16 (vpmaddubsw). Where they differ by no more than 254, they are moved to lie around 0: then two
products of |w| with rows that have w's sign do (vpsignb). Where weights lie from -64 to 63, rows are moved up to
unsigned bytes, two products of which with such fit in i16 likewise; and eight, where weights are light
(`effcc.ir.light`) and summed along the axis that makes them so. Else, where it multiplies pairs (vpmaddwd), both
are widened to i16, rows as they are written, weights once. What is taken away from all
bytes (a zero point) is taken from the sum likewise:

    linear(cast<i32>(x) - z, cast<i32>(w))  =  linear(cast<i32>(x), cast<i32>(w), -z * sum(w, k))

Sums are those of the integers modulo 2^32 in any form: exact while K * 2^14 < 2^31, and wrapped around as eager's
beyond. Convolutions are `effcc.passes.integer_convolutions`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import inf

from effcc.ir.contraction import PackedDot
from effcc.ir.dots import DOTS
from effcc.ir.dtypes import DType, b8, f32, i7, i8, i16, i32, i64, l8, u7, u8
from effcc.ir.graph import Graph, Node, Value
from effcc.passes.dead_code import remove_dead_code
from effcc.passes.hoist import movable
from effcc.passes.integer_convolutions import (
    Factors,
    has_channels_apart,
    has_form,
    has_neighbours,
    line_of,
    padding_of,
    write_by_dots,
    write_in_floats,
)  # fmt: skip
from effcc.passes.padded_codes import border_of
from effcc.passes.ranges import Range, range_of, zero_point
from effcc.passes.tiling.dots import dot_slots
from effcc.passes.writer import Writer
from effcc.target import Target

_BYTES = (i8, u8)
_OFFSET, _SMALL, _BYTE = 128, 127, 255
_REDUCED = (-64, 63)
"""Two products of such a weight with any unsigned byte fit in i16."""


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
            continue
        product = _shaped(writer, products[node])
        if node.op == "convolution":
            _write_convolution(writer, product, target, producers)
        else:
            _write(writer, product, target)
    return _as_summed(graph.with_nodes(tuple(writer.nodes)), products)


def _as_summed(graph: Graph, products: Collection[Node]) -> Graph:
    """The graph, with integers that were summed in floats, and are made floats again, read as they were summed: they
    are exact, and no sum that begins with 0 is -0."""
    integers, outputs = {n.result for n in products}, {*graph.results}
    sums = {n.result: n.operands[0] for n in graph.nodes if n.op == "cast" and n.operands[0].type.dtype == f32}
    summed: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if any(o in summed for o in node.operands):
            node = replace(node, operands=tuple(summed.get(o, o) for o in node.operands))
        if node.op == "cast" and node.result.type.dtype == f32 and node.result not in outputs:
            (whole,) = node.operands
            if whole in integers and whole in sums:
                summed[node.result] = sums[whole]
                continue
        nodes.append(node)
    return remove_dead_code(graph.with_nodes(tuple(nodes))) if summed else graph


@dataclass(frozen=True)
class _Product:
    """A product `node` of bytes: x[..., k] - zero times w, transposed where it is a `linear`'s; x lies in `rows`, w in
    `weights`.
    """

    node: Node
    x: Value
    w: Value
    zero: int
    rows: Range
    weights: Range


def _product(node: Node, producers: dict[Value, Node]) -> _Product | None:
    summed = {"linear": (i32,), "matmul": (i32,), "convolution": (i32, i64)}.get(node.op, ())
    if not summed or node.result.type.dtype not in summed:
        return None
    if node.op != "convolution" and node.operands[1].type.rank != 2:
        return None
    x, zero = _centred(node.operands[0], producers)
    w = _held(node.operands[1], producers, (*_BYTES, l8))
    found = (
        None if x is None or w is None else _Product(node, x, w, zero, range_of(x, producers), range_of(w, producers))
    )
    return found if found is None or node.op != "convolution" or has_form(node, found.x, found.w) else None


def _centred(value: Value, producers: dict[Value, Node]) -> tuple[Value | None, int]:
    """The bytes that a value is, widened and in another shape, and the zero point that is taken away from them."""
    node = producers.get(_unshaped(value, producers))
    if node is not None and node.op == "sub" and (x := _held(node.operands[0], producers)) is not None:
        number = zero_point(node.operands[1], x.type.dtype, producers)
        return (None, 0) if number is None else (x, number)
    return _held(value, producers), 0


def _unshaped(value: Value, producers: dict[Value, Node]) -> Value:
    """What a value is a reshape of."""
    while (node := producers.get(value)) is not None and node.op == "reshape":
        value = node.operands[0]
    return value


def _held(value: Value, producers: dict[Value, Node], dtypes: Collection[DType] = _BYTES) -> Value | None:
    """The bytes that a value is, widened and in another shape."""
    node = producers.get(_unshaped(value, producers))
    wide = node is not None and node.op == "cast" and node.operands[0].type.dtype in dtypes
    return node.operands[0] if node is not None and wide else None


def _shaped(writer: Writer, product: _Product) -> _Product:
    """The product of bytes in the shapes that the node's operands have."""
    pairs = zip((product.x, product.w), product.node.operands, strict=False)
    given = product.w
    x, w = (writer.reshape(held, operand.type.shape, held.name) for held, operand in pairs)
    one_axis = product.node.op == "linear" or (product.node.op == "convolution" and has_channels_apart(product.node))
    if w.type.dtype == l8 and not (one_axis and given.type.shape == w.type.shape):
        w = writer.emit("cast", w, name=w.name, dtype=i7)  # summed along other axes
    return replace(product, x=x, w=w)


def has_dots(a: DType, b: DType, target: Target) -> bool:
    """Whether `target` sums products of such elements, or would those of two such."""
    return dot_slots(PackedDot(a, b, DOTS[a, b, i32]), target) is not None


def _factors(writer: Writer, product: _Product, target: Target) -> Factors:
    """The factors as `target` multiplies them."""
    x, w, zero = product.x, product.w, product.zero
    is_light = w.type.dtype == l8
    if w.type.dtype in (i7, l8) and not (is_light and has_dots(u8, l8, target) and not has_dots(u8, i8, target)):
        w, is_light = writer.emit("cast", w, name=w.name, dtype=i8), False
    signed, mixed = x.type.dtype == w.type.dtype == i8, x.type.dtype != w.type.dtype
    if signed and has_dots(u8, i8, target):
        return Factors(moved_up(writer, x, _OFFSET, u8), w, zero + _OFFSET)
    least = min(int(product.rows[0]), zero, 0)  # a convolution's border is the zero point
    most = max(product.rows[1], zero)
    small = w.type.dtype == i8 and most - least <= _SMALL
    if small and has_dots(u7, i8, target) and not has_dots(u8, i8, target):
        return Factors(moved_up(writer, x, -least, u7), w, zero - least)
    reduced = _REDUCED[0] <= product.weights[0] and product.weights[1] <= _REDUCED[1]
    if reduced and most - least <= _BYTE and has_dots(u8, i7, target) and not has_dots(u8, i8, target):
        x = x if x.type.dtype == u8 else moved_up(writer, x, -least, u8)
        if is_light:
            return Factors(x, w, zero - least)
        return Factors(x, writer.emit("cast", w, name=f"{w.name}_reduced", dtype=i7), zero - least)
    if w.type.dtype == i8 and most - least <= 2 * _SMALL and has_dots(b8, i8, target):
        up = 0 if least >= -_SMALL and most <= _SMALL else -_SMALL - least
        moved = moved_up(writer, x, up, b8) if up else writer.emit("cast", x, name=f"{x.name}_even", dtype=b8)
        return Factors(moved, w, zero + up)
    if not (signed and has_dots(i8, i8, target)) and not (mixed and has_dots(u8, i8, target)):
        x, w = (writer.emit("cast", v, name=f"{v.name}_pairs", dtype=i16) for v in (x, w))
    return Factors(x, w, zero)


def _write(writer: Writer, product: _Product, target: Target) -> None:
    node = product.node
    name, bias = node.result.name, node.operands[2:]
    if node.op == "matmul":
        w = writer.emit("transpose", product.w, name=f"{product.w.name}_t", perm=(1, 0))
        product = replace(product, w=w)
    factors = _factors(writer, product, target)
    wide = factors.widened(writer)
    writer.emit("linear", *wide, *factors.bias(writer, bias), name=name, result=node.result)


def _write_convolution(writer: Writer, product: _Product, target: Target, producers: dict[Value, Node]) -> None:
    node, around = product.node, padding_of(product.node)
    border = border_of(product.x, product.zero, producers)
    if border is not None:
        product = replace(product, x=border.written(writer))
        (low, high), (more_low, more_high) = around, border.around
        around = _summed(low, more_low), _summed(high, more_high)
    if has_neighbours(node, product.w):
        write_by_dots(writer, node, _factors(writer, product, target), around)
        return
    before, line, given = len(writer.nodes), line_of(node, product.w), product.w
    if product.w.type.dtype == l8:  # along channels, of which a line has one
        product = replace(product, w=writer.emit("cast", product.w, name=product.w.name, dtype=i7))
    factors = None if line is None else _factors(writer, product, target)
    if line is not None and factors is not None and _slots(factors, target) * line.length < line.channels * line.taps:
        line.written(writer, factors, around)
    else:
        del writer.nodes[before:]
        write_in_floats(writer, node, Factors(product.x, given, product.zero), around)


def _slots(factors: Factors, target: Target) -> float:
    """What one product of a dot product takes, in multiply-adds."""
    form = (factors.x.type.dtype, factors.w.type.dtype)
    dot = PackedDot(*form, DOTS[(*form, i32)])
    return (dot_slots(dot, target) or inf) / dot.neighbours


def _summed(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def moved_up(writer: Writer, x: Value, offset: int, dtype: DType) -> Value:
    """x + offset, which `dtype` holds; of bytes made of floats, without making them: the sum has the same low bits."""
    made = next((n for n in reversed(writer.nodes) if x in n.results), None)
    of_floats = made is not None and made.op == "cast" and made.operands[0].type.dtype == f32
    wide = writer.emit("cast", made.operands[0] if made and of_floats else x, name=f"{x.name}_wide", dtype=i32)
    added = writer.emit("constant", name="offset", value=offset, dtype=i32, shape=())
    return writer.emit("cast", writer.emit("add", wide, added, name=f"{x.name}_up"), name=f"{x.name}_up", dtype=dtype)
