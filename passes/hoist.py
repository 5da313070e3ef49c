"""Splits a graph into what depends on weights alone, run once, and the rest, run at every call.

What moves: every node whose operands are weights, constants or moved themselves, and which mentions no run-time size,
neither in its type nor in an attribute: what is prepared once holds for all sizes. What stays although it could move,
because moving it would only cost memory:

- views at the border (a transposed weight is read through the transpose; copying it gains nothing),
- cheap arithmetic on counters and constants (a causal mask is `i <= j` inside the kernel that uses it), unless it gives
  the places at which something is read: their kernel reads a table where it would compute one,
- decoding of stored weights, unless as a whole: the decoded copy is what storing them compactly avoids. Widening of
  integers, likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from effcc.ir.graph import Graph, Node, Value
from effcc.ir.ops import lookup
from effcc.passes.constant_folding import LARGEST_EVALUATED
from effcc.passes.recomputing import cost


@dataclass(frozen=True)
class Hoisted:
    """`prepare` takes weights and gives what `main` takes as further weights, by name; None if nothing moved."""

    prepare: Graph | None
    main: Graph


def hoist(graph: Graph) -> Hoisted:
    """`graph` split in two. `main` keeps the parameters in their order, with the prepared values after them."""
    moves = movable(graph)
    producers = graph.producers()
    places = _places(graph, producers)
    prepared: dict[Value, None] = {}
    stays: set[Node] = {n for n in graph.nodes if n not in moves}
    # A graph's result is computed at every call: its storage is handed out.
    pending = [v for n in stays for v in n.operands]
    for value in graph.results:
        node = producers.get(value)
        if node in moves:
            stays.add(node)
            pending.extend(node.operands)
    while pending:
        value = pending.pop()
        node = producers.get(value)
        if node is None or node in stays:
            continue
        if _worth_moving(node, moves, places) and not _widens_integers(node):
            prepared[value] = None
        else:
            stays.add(node)
            pending.extend(node.operands)
    if not prepared:
        return Hoisted(None, graph)
    outputs = tuple(r for n in graph.nodes for r in n.results if r in prepared)
    prepare = _closure(graph, outputs, producers)
    main = replace(
        graph,
        params=graph.params + outputs,
        nodes=tuple(n for n in graph.nodes if n in stays),
        weights=graph.weights | {v.name for v in outputs},
    )
    return Hoisted(_apart(prepare, main), main)


def _apart(prepare: Graph, main: Graph) -> Graph:
    """`prepare` with other names for what both compute: a result of `main` that `prepare` needs on its way."""
    again = {r for n in main.nodes for r in n.results}
    taken = {v.name for g in (prepare, main) for v in (*g.params, *(r for n in g.nodes for r in n.results))}
    own: dict[Value, Value] = {}
    for value in (r for n in prepare.nodes for r in n.results if r in again):
        name = f"{value.name}.prepared"
        while name in taken:
            name += "_"
        taken.add(name)
        own[value] = Value(name, value.type)
    if not own:
        return prepare

    def renamed(node: Node) -> Node:
        operands, results = (tuple(own.get(v, v) for v in side) for side in (node.operands, node.results))
        return replace(node, operands=operands, results=results)

    return prepare.with_nodes(tuple(renamed(n) for n in prepare.nodes))


def movable(graph: Graph) -> dict[Node, bool]:
    """The nodes that depend on weights and constants alone, with whether on any weight."""
    fixed = graph.fixed_weights
    constant = [p for p in graph.params if p.name in fixed and p.type.encoding is None]
    known = {p: True for p in constant if all(isinstance(d, int) for d in (*p.type.shape, *p.type.layout))}
    found: dict[Node, bool] = {}
    for node in graph.nodes:
        whole = node.op == "decode" and node.attrs.get("whole")
        pure = (whole or lookup(node.op).kind not in ("opaque", "control")) and not node.regions
        if pure and not node.has_sizes and all(o in known for o in node.operands):
            found[node] = any(known[o] for o in node.operands)
            known.update(dict.fromkeys(node.results, found[node]))
    return found


def _worth_moving(node: Node, moves: dict[Node, bool], places: set[Value]) -> bool:
    op = lookup(node.op)
    if op.strided or op.kind == "create":
        return False
    return moves[node] or cost(op) > 1 or not places.isdisjoint(node.results)


def _places(graph: Graph, producers: dict[Value, Node]) -> set[Value]:
    """Where gathers read, and what those places are views of: small tables."""
    found: set[Value] = set()
    pending = [i for n in graph.nodes if lookup(n.op).kind == "gather" for i in n.operands[1:]]
    while pending:
        value = pending.pop()
        size = prod(n for n in value.type.shape if isinstance(n, int))
        if value in found or not value.type.dtype.is_integer or size > LARGEST_EVALUATED:
            continue
        found.add(value)
        made = producers.get(value)
        if made is not None and lookup(made.op).strided:
            pending.append(made.operands[0])
    return found


def _widens_integers(node: Node) -> bool:
    """Whether all that a node does is to make i32 or i64 of smaller integers, as products do of what they read."""
    if node.op != "cast":
        return False
    held, wide = node.operands[0].type.dtype, node.result.type.dtype
    return held.is_integer and wide.is_integer and held.bits < wide.bits >= 32


def _closure(graph: Graph, outputs: tuple[Value, ...], producers: dict[Value, Node]) -> Graph:
    """The part of `graph` that computes `outputs`."""
    needed: set[Value] = set()
    pending = list(outputs)
    while pending:
        value = pending.pop()
        if value not in needed:
            needed.add(value)
            node = producers.get(value)
            pending.extend(node.operands if node is not None else ())
    params = tuple(p for p in graph.params if p in needed)
    return replace(
        graph,
        name=f"{graph.name}_prepare",
        params=params,
        weights=graph.weights & {p.name for p in params},
        nodes=tuple(n for n in graph.nodes if any(r in needed for r in n.results)),
        outputs=outputs,
        updates=(),
    )
