"""Graph clean-up right after import: axes that PyTorch collapses around its products are kept apart again.

PyTorch runs `linear` on [b, s, k] as view to [b*s, k], product, view to [b, s, n], and batched attention products
likewise. Collapsed axes hide from fusion which axis is which, so the views are moved to the operands, where they
cancel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from effcc.frontend.extern import reading_row_major
from effcc.frontend.importer import Importer
from effcc.ir.dims import Dim, product, same, same_shape
from effcc.ir.graph import Graph, GraphBuilder, Node, Value, has_effect
from effcc.ir.types import TensorType


def separate_axes(graph: Graph) -> Graph:
    """`graph` with `reshape(product(x, ...))` as `product(reshape(x), ...)` where only that reshape reads it."""
    uses, producers = graph.uses(), graph.producers()
    kept = set(graph.results)
    builder = GraphBuilder(graph.name)
    builder.ranges = dict(graph.ranges)
    importer = Importer(builder)
    new: dict[Value, Value] = {}
    for param in graph.params:
        new[param] = builder.adopt(param, param.name in graph.weights)
    for node in graph.nodes:
        source = producers.get(node.operands[0]) if node.op == "reshape" else None
        moved = None
        if source is not None and len(uses[source.results[0]]) == 1 and source.results[0] not in kept:
            importer.name, builder.location = node.result.name, source.location
            moved = _move(importer, source, tuple(new[o] for o in source.operands), node.result.type.shape)
        if moved is not None:
            new[node.result] = moved
            continue
        operands = tuple(new[o] for o in node.operands)
        importer.name, builder.location = (node.results[0].name if node.results else ""), node.location
        if node.op == "reshape":
            new[node.result] = importer.reshape(operands[0], node.result.type.shape)
            continue
        same_operands = all(a is b for a, b in zip(operands, node.operands, strict=True))
        copied = node if same_operands else dataclasses.replace(node, operands=operands)
        importer.append(copied)
        new.update((result, result) for result in node.results)
    return builder.build(
        tuple(new[o] for o in graph.outputs), tuple((new[p], new[value]) for p, value in graph.updates)
    )


def _move(importer: Importer, node: Node, operands: Sequence[Value], target: Sequence[Dim]) -> Value | None:
    """`reshape(node(operands), target)` with the first axes of `target` brought to the operands; None if of no use."""
    if node.op == "linear":
        x, *weights = operands
        lead = _leading(x.type.shape[:-1], target)
        if lead is None:
            return None
        made = importer.emit("linear", importer.reshape(x, (*lead, x.type.shape[-1])), *weights)
        return importer.reshape(made, target)
    if node.op == "matmul":
        a, b = operands
        lead = _leading(node.result.type.shape[:-2], target)
        if lead is None or not same_shape(a.type.shape[:-2], b.type.shape[:-2]):
            return None
        left, right = (importer.reshape(o, (*lead, *o.type.shape[-2:])) for o in (a, b))
        return importer.reshape(importer.emit("matmul", left, right), target)
    return None


def _leading(collapsed: Sequence[Dim], target: Sequence[Dim]) -> tuple[Dim, ...] | None:
    """The first axes of `target` that `collapsed` was collapsed from; None for none, or the same."""
    total = product(collapsed)
    for count in range(1, len(target)):
        lead = tuple(target[:count])
        if same(product(lead), total):
            return None if same_shape(lead, collapsed) else lead
    return None


def without_dead_nodes(graph: Graph) -> Graph:
    """`graph` without nodes that no result needs. Draws stay (later draws must be eager's), and so do checks."""
    needed = set(graph.results)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if has_effect(node) or any(r in needed for r in node.results):
            nodes.append(node)
            needed.update(node.operands)
    return graph.with_nodes(tuple(reversed(nodes)))


def with_output_strides(graph: Graph, layouts: Sequence[tuple[Dim, ...] | None]) -> Graph:
    """`graph` whose outputs are stored with the given strides (None: row-major); outputs that are parameters stay.

    PyTorch's calls that read such an output get a row-major copy: of what eager has in another order they were given
    that by `storage_order.laid_out`.
    """
    params = set(graph.params)
    laid_out: dict[Value, Value] = {}
    for value, strides in zip(graph.outputs, layouts, strict=True):
        if strides is not None and value not in params and value not in laid_out:
            laid_out[value] = Value(value.name, TensorType(value.type.dtype, value.type.shape, strides))
    return _renamed(graph, laid_out) if laid_out else graph


def _renamed(graph: Graph, new: Mapping[Value, Value]) -> Graph:
    def replace(values: Sequence[Value]) -> tuple[Value, ...]:
        return tuple(new.get(v, v) for v in values)

    def renamed(node: Node) -> Node:
        attrs: dict[str, Any] = dict(node.attrs)
        moved = {k: o.type.shape for k, o in enumerate(node.operands) if o in new} if node.op == "extern" else {}
        if moved:
            attrs["template"] = reading_row_major(attrs["template"], moved)
        return dataclasses.replace(node, operands=replace(node.operands), results=replace(node.results), attrs=attrs)

    nodes = tuple(map(renamed, graph.nodes))
    updates = tuple((p, new.get(value, value)) for p, value in graph.updates)
    return dataclasses.replace(graph, nodes=nodes, outputs=replace(graph.outputs), updates=updates)
