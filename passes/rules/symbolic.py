"""Instances with a symbolic size in place of a number, so that rules are held to their claims on dynamic shapes too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from effcc.errors import EffccError
from effcc.ir.dims import Dim, evaluate, symbol
from effcc.ir.graph import Attribute, Graph, GraphBuilder, Value

_SIZE_ATTRIBUTES = ("shape", "size", "start", "end")


def symbolic(graph: Graph) -> Graph | None:
    """`graph` with the largest size of its parameters as the symbol `s0` wherever it stands.

    Sizes that are the same number by chance become the same symbol; that is still a graph that a model might have. None
    where the graph does not type then, or not as before: slices need bounds that lie inside whatever the size is.
    """
    sizes = [d for p in graph.params for d in p.type.shape if isinstance(d, int) and d > 1]
    if not sizes:
        return None
    number, s0 = max(sizes), symbol("s0")

    def renamed(value: Attribute) -> Attribute:
        if isinstance(value, tuple):
            return tuple(map(renamed, value))
        return s0 if isinstance(value, int) and not isinstance(value, bool) and value == number else value

    def dims(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return tuple(s0 if d == number else d for d in shape)

    builder = GraphBuilder(graph.name)
    values: dict[Value, Value] = {}
    for p in graph.params:
        values[p] = builder.param(p.name, replace(p.type, shape=dims(p.type.shape)), weight=p.name in graph.weights)
    try:
        for node in graph.nodes:
            attrs: Mapping[str, Attribute] = {
                name: renamed(value) if name in _SIZE_ATTRIBUTES else value for name, value in node.attrs.items()
            }
            operands = (values[o] for o in node.operands)
            made = builder.node(node.op, *operands, name=node.result.name, **attrs).result  # type: ignore[arg-type]
            if [evaluate(d, {"s0": number}) for d in made.type.shape] != list(node.result.type.shape):
                return None
            values[node.result] = made
    except (EffccError, TypeError):
        return None
    return builder.build(tuple(values[v] for v in graph.outputs))
