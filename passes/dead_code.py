"""Removes what nobody reads, and computes equal expressions once.

    dead code:               a node none of whose results reaches an output, an update, or a node with an effect
    common subexpressions:   two nodes with equal op, operands, attributes and result types, without effects

A graph's results stay distinct: each output keeps storage of its own, so two equal outputs are computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from effcc.ir.graph import Graph, Node, Value, has_effect


def remove_dead_code(graph: Graph) -> Graph:
    """`graph` without the nodes that reach no result; nodes with effects stay."""
    live: set[Value] = set(graph.results)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if has_effect(node) or any(r in live for r in node.results):
            live.update(node.operands)
            kept.append(node)
    return graph if len(kept) == len(graph.nodes) else graph.with_nodes(tuple(reversed(kept)))


def share_common_subexpressions(graph: Graph) -> Graph:
    """`graph` with equal nodes computed once, in its regions too; the first of them stays."""
    instead: dict[Value, Value] = {}
    first: dict[Hashable, Node] = {}
    results = set(graph.results)
    nodes: list[Node] = []
    for node in graph.nodes:
        operands = tuple(instead.get(o, o) for o in node.operands)
        regions = tuple(share_common_subexpressions(r) for r in node.regions)
        if operands != node.operands or any(a is not b for a, b in zip(regions, node.regions, strict=True)):
            node = replace(node, operands=operands, regions=regions)
        if not node.regions and node.op != "extern":
            twin = first.setdefault(_key(node), node)
            if twin is not node and not any(r in results for r in node.results):
                instead.update(zip(node.results, twin.results, strict=True))
                continue
        nodes.append(node)
    return graph if not instead and nodes == list(graph.nodes) else graph.with_nodes(tuple(nodes))


def _key(node: Node) -> Hashable:
    attrs = tuple((name, _hashable(value)) for name, value in sorted(node.attrs.items()))
    return (node.op, node.operands, attrs, tuple(r.type for r in node.results))


def _hashable(value: Any) -> Hashable:
    """An attribute such that equal keys are interchangeable: 1, 1.0 and True differ, as do the two zeros."""
    if isinstance(value, tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else value.hex())
    return (type(value).__name__, value)
