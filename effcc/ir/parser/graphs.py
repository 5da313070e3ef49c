"""Graphs: values resolved, and every node's written types checked against the op table."""

from __future__ import annotations

from lark import Token, Tree

from effcc.errors import IRTypeError, UnknownNameError
from effcc.ir.dims import same_shape
from effcc.ir.encodings import canonical
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.ops import lookup
from effcc.ir.parser.limits import whole
from effcc.ir.parser.syntax import Source, Syntax, tokens, trees
from effcc.ir.parser.types import read_attributes, read_type
from effcc.ir.types import TensorType


def read_graph(source: Source, tree: Syntax) -> Graph:
    """The graph of a `graph` tree."""
    at, params, ranges, *body = tree.children
    assert isinstance(params, Tree) and isinstance(at, Token)
    scope: dict[str, Value] = {}
    weights = set()
    for param in trees(params):
        marker, token, type_tree = param.children
        assert isinstance(token, Token) and isinstance(type_tree, Tree)
        type = read_type(source, type_tree)
        if type.encoding is not None:
            with source.at(type_tree):
                canonical(type.encoding)
        value = _define(source, scope, token, type)
        if marker is not None:
            weights.add(value.name)
    parts = [part for part in body if isinstance(part, Tree)]
    nodes = tuple(_node(source, scope, part) for part in parts if part.data == "node")
    updates = []
    for update in (part for part in parts if part.data == "graph_update"):
        target, value = (_lookup(source, scope, token) for token in tokens(update))
        updates.append((target, value))
    outputs = tuple(_lookup(source, scope, token) for token in tokens(parts[-1]))
    bounds = read_ranges(source, ranges if isinstance(ranges, Tree) else None)
    inputs = tuple(scope[str(p.children[1])[1:]] for p in trees(params))
    return Graph(str(at)[1:], inputs, nodes, outputs, frozenset(weights), tuple(updates), bounds)


def read_ranges(source: Source, tree: Syntax | None) -> dict[str, tuple[int, int | None]]:
    """`where s0 in 1..512, s1 in 2..`."""
    found: dict[str, tuple[int, int | None]] = {}
    for part in trees(tree) if tree is not None else []:
        name, low, high = part.children
        with source.at(part):
            found[str(name)] = (whole(str(low)), None if high is None else whole(str(high)))
    return found


def read_op(tree: Syntax) -> str:
    """`linear` or `aten::sort.stable`."""
    return "::".join(str(t) for t in tokens(tree))


def _node(source: Source, scope: dict[str, Value], tree: Syntax) -> Node:
    results_tree, op_tree, operands_tree, attributes_tree, *rest = tree.children
    assert isinstance(op_tree, Tree) and isinstance(operands_tree, Tree)
    name = read_op(op_tree)
    with source.at(op_tree):
        spec = lookup(name)
    operands = tuple(_lookup(source, scope, token) for token in tokens(operands_tree))
    given = read_attributes(source, attributes_tree if isinstance(attributes_tree, Tree) else None)
    regions = tuple(read_graph(source, r) for r in rest if isinstance(r, Tree) and r.data == "graph")
    types_tree = rest[-1]
    assert isinstance(types_tree, Tree)
    names = tokens(results_tree) if isinstance(results_tree, Tree) else []
    written = [read_type(source, t) for t in trees(types_tree)]
    with source.at(attributes_tree if isinstance(attributes_tree, Tree) else op_tree):
        attrs = spec.complete_attrs(given)
    with source.at(tree):
        inferred = spec.infer_types(tuple(o.type for o in operands), attrs, regions)
    with source.at(types_tree):
        check_types(name, written, inferred, len(names))
    results = tuple(_define(source, scope, token, t) for token, t in zip(names, written, strict=True))
    return Node(name, operands, attrs, results, regions)


def check_types(op: str, written: list[TensorType], inferred: tuple[TensorType, ...], names: int) -> None:
    """Raise IRTypeError unless the written types are the inferred ones (strides and encodings are the writer's)."""
    if len(written) != len(inferred) or names != len(inferred):
        raise IRTypeError(f"op {op!r} has {len(inferred)} results, got {names} names and {len(written)} types")
    for result, expected in zip(written, inferred, strict=True):
        if result.dtype != expected.dtype or not same_shape(result.shape, expected.shape):
            raise IRTypeError(f"op {op!r} gives {expected}, but {result} is written")


def _define(source: Source, scope: dict[str, Value], token: Token, type: TensorType) -> Value:
    name = str(token)[1:]
    if name in scope:
        with source.at(token):
            raise IRTypeError(f"%{name} is defined twice")
    scope[name] = Value(name, type)
    return scope[name]


def _lookup(source: Source, scope: dict[str, Value], token: Token) -> Value:
    name = str(token)[1:]
    if name not in scope:
        with source.at(token):
            raise UnknownNameError("value", f"%{name}", (f"%{n}" for n in scope))
    return scope[name]
