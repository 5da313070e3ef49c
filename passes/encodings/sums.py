"""Sums and products of encodings in the graph: products with them are distributed over their terms.

    linear(x, A + B)  ->  linear(x, A) + linear(x, B)           each term is read as it is stored
    linear(x, A . B)  ->  linear(linear(x, B), A)               2 r (n + k) instead of 2 n k operations a row

Whoever stores a weight so asks for this: what it changes is the order of sums, whose bound README gives, with the terms
of all parts. Where it is predicted to be slower than one dense product, and for readers other than products with rows,
the sum is decoded once, as a whole, before the first call. Half types keep one rounding: their sums are decoded, too.
"""

from __future__ import annotations

from dataclasses import replace

from effcc.ir.dims import dim, elements, product
from effcc.ir.dtypes import f32, f64
from effcc.ir.encodings import Storage
from effcc.ir.encodings.sums import Product, slices
from effcc.ir.encodings.values import Term
from effcc.ir.graph import Graph, GraphBuilder, Node, Value
from effcc.passes.encodings.choose import decoded_storage, dense_seconds, stored_seconds
from effcc.target import Target


def distribute(graph: Graph, target: Target) -> Graph:
    """The graph without weights that are decoded from sums; itself where there are none."""
    sums = {n.result: made for n in graph.nodes if n.op == "decode" and (made := decoded_storage(n)).values.terms}
    if not sums:
        return graph
    nodes = {n.result: n for n in graph.nodes if n.op == "decode"}
    spread = {n for n in graph.nodes if _distributes(n, sums, target)}
    whole = {v for n in graph.nodes if n not in spread for v in n.operands} | set(graph.results)
    b = GraphBuilder(graph.name)
    for value in (*graph.params, *(r for n in graph.nodes for r in n.results)):
        b.fresh(value.name)
    for param in graph.params:
        b.adopt(param, param.name in graph.weights)
    renamed: dict[Value, Value] = {}
    for given in graph.nodes:
        node = replace(given, operands=tuple(renamed.get(o, o) for o in given.operands))
        if given in spread:
            weight = given.operands[1]
            renamed[given.result] = _stored_like(b, _spread(b, node, nodes[weight], sums[weight]), given.result)
        elif given.op != "decode" or given.result not in sums:
            b.append(node)
        elif given.result in whole:
            renamed[given.result] = _stored_like(b, _decoded(b, node, sums[given.result]), given.result)
    outputs = tuple(renamed.get(v, v) for v in graph.outputs)
    updates = tuple((p, renamed.get(v, v)) for p, v in graph.updates)
    return replace(b.build(outputs, updates), ranges=graph.ranges)


def _distributes(node: Node, sums: dict[Value, Storage], target: Target) -> bool:
    """Whether a node multiplies rows with a sum, and that is predicted to be quicker part by part."""
    if node.op != "linear" or [o in sums for o in node.operands] not in ([False, True], [False, True, False]):
        return False
    made = sums[node.operands[1]]
    if made.dtype not in (f32, f64):
        return False
    rows = elements(node.operands[0].type.shape[:-1])
    return stored_seconds(made, rows, target) <= dense_seconds(made, rows, target)


def _stored_like(b: GraphBuilder, made: Value, wanted: Value) -> Value:
    """What the last node made, with the strides of what it stands for, which callers of an output go by."""
    value = replace(made, type=wanted.type)
    b.nodes[-1] = replace(b.nodes[-1], results=(value,))
    return value


def _decoded(b: GraphBuilder, node: Node, made: Storage) -> Value:
    """The dense matrix: what the terms are decoded to, added up."""
    parts = [_matrix(b, t, mine) for t, mine in slices(made.values.terms, node.operands)]
    total = parts[0]
    for part in parts[1:]:
        total = b.emit("add", total, part)
    return total


def _matrix(b: GraphBuilder, term: Term, arrays: list[Value]) -> Value:
    if isinstance(term, Product):
        left, right = (_matrix(b, f, mine) for f, mine in slices((term.left, term.right), arrays))
        return b.emit("reshape", b.emit("einsum", left, right, spec=term.plan.whole), shape=term.shape)
    return _decode(b, term, arrays, whole=True)


def _decode(b: GraphBuilder, term: Term, arrays: list[Value], whole: bool) -> Value:
    assert isinstance(term, Storage)
    return b.emit("decode", *arrays, encoding=term.encoding, dtype=term.dtype, shape=term.shape, whole=whole)


def _spread(b: GraphBuilder, node: Node, decode: Node, made: Storage) -> Value:
    """The product with each term, added up, and the bias."""
    x, _, *bias = node.operands
    parts = [_product(b, x, t, mine) for t, mine in slices(made.values.terms, decode.operands)]
    total = parts[0]
    for part in (*parts[1:], *bias):
        total = b.emit("add", total, part)
    return total


def _product(b: GraphBuilder, x: Value, term: Term, arrays: list[Value]) -> Value:
    """Rows times one term; a product's factors one after the other."""
    if not isinstance(term, Product):
        return b.emit("linear", x, _decode(b, term, arrays, whole=False))
    left, right = slices((term.left, term.right), arrays)
    lead = x.type.shape[:-1]
    rows = b.emit("reshape", x, shape=(dim(product(lead)), *term.plan.inputs))
    between = b.emit("einsum", rows, _decode(b, *right, whole=False), spec=term.plan.first)
    made = b.emit("einsum", between, _decode(b, *left, whole=False), spec=term.plan.second)
    return b.emit("reshape", made, shape=(*lead, term.shape[0]))
