"""Control flow that is decided already: a branch on a constant, a loop that never turns.

%c = constant {value=true};  %y = cond %c, %x graph @then {...} graph @else {...}     becomes the nodes of @then
%x = while %x0 {carried=1} graph @test { ... return %false } graph @body {...}       becomes %x0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from effcc.ir.graph import Attribute, Graph, Node, Value
from effcc.ir.ops import lookup
from effcc.passes.rules.constants import number_of


def decide_control(graph: Graph) -> Graph:
    """The graph with what is decided in the place of the control flow that would decide it."""
    numbers = _numbers(graph)
    if not any(_is_decided(node, numbers) for node in graph.nodes):
        return graph
    taken = {v.name for v in graph.params} | {r.name for n in graph.nodes for r in n.results}
    results = set(graph.results)
    instead: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = replace(node, operands=tuple(instead.get(o, o) for o in node.operands))
        if not _is_decided(node, numbers):
            nodes.append(node)
            continue
        found = node.operands
        if node.op == "cond":
            region = node.regions[0 if numbers[node.operands[0]] else 1]
            inside, found = _inlined(region, node.operands[1:], taken)
            nodes += inside
        for result, value in zip(node.results, found, strict=False):
            if result in results:  # what is returned keeps its strides, and memory of its own
                nodes.append(_copy(value, result))
            else:
                instead[result] = value
    return graph.with_nodes(tuple(nodes))


def _numbers(graph: Graph) -> dict[Value, object]:
    """The numbers that constants of a graph hold."""
    return {n.result: number for n in graph.nodes if (number := number_of(n)) is not None}


def _is_decided(node: Node, numbers: Mapping[Value, object]) -> bool:
    if node.op == "cond":
        return node.operands[0] in numbers
    if node.op == "while":
        (holds,) = node.regions[0].outputs
        return _numbers(node.regions[0]).get(holds) is False
    return False


def _inlined(region: Graph, operands: Sequence[Value], taken: set[str]) -> tuple[list[Node], tuple[Value, ...]]:
    """A region's nodes on a call's operands, under names that are free, and its results."""
    known = dict(zip(region.params, operands, strict=True))
    nodes = []
    for node in region.nodes:
        for result in node.results:
            name, n = result.name, 0
            while name in taken:
                n += 1
                name = f"{result.name}_{n}"
            taken.add(name)
            known[result] = Value(name, result.type)
        nodes.append(_on(node, known.__getitem__))
    return nodes, tuple(known[v] for v in region.outputs)


def _on(node: Node, known: Callable[[Value], Value]) -> Node:
    operands, results = (tuple(map(known, side)) for side in (node.operands, node.results))
    return replace(node, operands=operands, results=results)


def _copy(value: Value, result: Value) -> Node:
    attrs: dict[str, Attribute] = {"dtype": result.type.dtype}
    return Node("cast", (value,), lookup("cast").complete_attrs(attrs), (result,))
