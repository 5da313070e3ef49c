"""Computes arithmetic on weights one floating type wider, and rounds once: with `fast_math`.

    %s = rsqrt %v : f32[64]; %f = mul %w, %s : f32[64]
    becomes  %v.wide = cast %v {dtype=f64}; %s = rsqrt %v.wide : f64[64]; ...; %f = cast %f.wide {dtype=f32}

A weight's rounding error is the same at every use of the weight: unlike those of activations, such errors do not
average out over positions (a batch norm folded into filters in f32 shows in the pooled result). What is prepared is
computed once, so it can afford the precision. But a model may count on its roundings (`(w + 12582912.0) - 12582912.0`),
so weights are widened only where rules move factors into them, which is what needs it: with `fast_math`. Only
continuous arithmetic is widened, and only where no other kind of op reads it on the way: a rounding or comparison must
see the numbers that eager gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from effcc.ir.dtypes import DType, bf16, f16, f32, f64
from effcc.ir.graph import Graph, GraphBuilder, Node, Value
from effcc.ir.ops import lookup

_WIDER: Mapping[DType, DType] = {f32: f64, f16: f32, bf16: f32}
_ARITHMETIC = frozenset({"add", "sub", "mul", "div", "neg", "sqrt", "rsqrt", "reciprocal", "exp", "log"})


def widen(graph: Graph) -> Graph:
    """`graph` with its chains of arithmetic computed in the wider type; its parameters and outputs keep their types."""
    chosen = _chosen(graph)
    if not any(n.op in _ARITHMETIC for n in chosen):
        return graph
    builder = GraphBuilder(graph.name)
    for p in graph.params:
        builder.adopt(p, p.name in graph.weights)
    builder.ranges = dict(graph.ranges)
    for result in (r for node in graph.nodes for r in node.results):
        builder.fresh(result.name)
    wide: dict[Value, Value] = {}
    outputs = set(graph.results)
    for node in graph.nodes:
        if node not in chosen:
            builder.append(node)
            continue
        builder.location = node.location
        operands = [wide.get(o) or _cast(builder, o, _WIDER[o.type.dtype], wide) for o in node.operands]
        wide[node.result] = builder.emit(node.op, *operands, name=f"{node.result.name}.wide", **node.attrs)
        if node.result in outputs:
            attrs = {"dtype": node.result.type.dtype}
            builder.append(Node("cast", (wide[node.result],), attrs, node.results, location=node.location))
    return replace(graph, nodes=tuple(builder.nodes))


def _chosen(graph: Graph) -> set[Node]:
    """Arithmetic, and views of it, that only more of the same, or the graph's outside, reads."""
    chosen: set[Node] = set()
    uses = graph.uses()
    for node in reversed(graph.nodes):
        widens = node.op in _ARITHMETIC or lookup(node.op).strided
        if widens and node.result.type.dtype in _WIDER and all(user in chosen for user in uses[node.result]):
            chosen.add(node)
    return chosen


def _cast(builder: GraphBuilder, value: Value, to: DType, wide: dict[Value, Value]) -> Value:
    wide[value] = builder.emit("cast", value, name=f"{value.name}.wide", dtype=to)
    return wide[value]
