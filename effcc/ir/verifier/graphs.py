"""What holds in every graph: SSA, and result types that are those of the op table."""

from __future__ import annotations

from collections.abc import Iterable

from effcc.errors import EffccError, IRTypeError
from effcc.ir.dims import same_shape
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.op import require
from effcc.ir.ops import lookup
from effcc.ir.printer.graphs import show_node


def verify_graph(graph: Graph) -> None:
    """Raise IRTypeError, naming the graph and the node, unless the graph makes sense."""
    known: dict[str, Value] = {}
    try:
        _define(graph.params, known)
        for name in graph.weights:
            require(name in known, f"weight {name!r} is no parameter")
        for name, (low, high) in graph.ranges.items():
            require(low >= 0 and (high is None or low <= high), f"size {name!r} ranges over {low}..{high}")
    except IRTypeError as error:
        raise IRTypeError(f"graph @{graph.name}: {error}") from None
    for node in graph.nodes:
        try:
            _check_node(node, known)
        except EffccError as error:
            where = f" ({node.location})" if node.location else ""
            text = show_node(node, locations=False)
            raise IRTypeError(f"graph @{graph.name}{where}: {error}\n  in: {text}") from None
    try:
        _check_results(graph, known)
    except IRTypeError as error:
        raise IRTypeError(f"graph @{graph.name}: {error}") from None


def _define(values: Iterable[Value], known: dict[str, Value]) -> None:
    for value in values:
        require(value.name not in known, f"%{value.name} is defined twice")
        known[value.name] = value


def _check_use(value: Value, known: dict[str, Value]) -> None:
    require(value.name in known, f"%{value.name} is used, but not defined before")
    require(known[value.name] is value, f"%{value.name} is used, but its definition is another value of that name")


def _check_node(node: Node, known: dict[str, Value]) -> None:
    spec = lookup(node.op)
    for operand in node.operands:
        _check_use(operand, known)
    for region in node.regions:
        verify_graph(region)
    attrs = spec.complete_attrs(node.attrs)
    inferred = spec.infer_types(tuple(o.type for o in node.operands), attrs, node.regions)
    require(len(inferred) == len(node.results), f"op {node.op!r} has {len(inferred)} results, got {len(node.results)}")
    for result, expected in zip(node.results, inferred, strict=True):
        fits = result.type.dtype == expected.dtype and same_shape(result.type.shape, expected.shape)
        require(fits, f"op {node.op!r} gives {expected}, but %{result.name} is {result.type}")
    _define(node.results, known)


def _check_results(graph: Graph, known: dict[str, Value]) -> None:
    for value in graph.outputs:
        _check_use(value, known)
    for target, value in graph.updates:
        _check_use(target, known)
        _check_use(value, known)
        require(any(target is p for p in graph.params), f"update of %{target.name}, which is no parameter")
        fits = target.type.dtype == value.type.dtype and same_shape(target.type.shape, value.type.shape)
        require(fits, f"update of %{target.name}: {target.type} cannot take %{value.name}: {value.type}")
