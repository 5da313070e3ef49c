"""Graphs: a model as SSA over tensors.

    graph @mlp(%x: f32[s0,384], weight %w: f32[1536,384], weight %b: f32[1536]) {
      %h = linear %x, %w, %b : f32[s0,1536]
      %y = gelu %h {approximate="none"} : f32[s0,1536]
      return %y
    }

Graphs are immutable values; passes build new ones. A parameter marked `weight` does not change between most calls, so
what depends on weights alone is computed once (`effcc.passes.hoist`). `update %cache, %new` at the end says that the
buffer behind the parameter `%cache` holds `%new` after the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Union

import sympy

from effcc.ir.dims import Dim, symbols
from effcc.ir.dtypes import DType
from effcc.ir.encoding import Encoding
from effcc.ir.types import TensorType

Attribute = Union[None, bool, int, float, str, DType, Encoding, sympy.Expr, "tuple[Attribute, ...]"]


@dataclass(frozen=True, eq=False)
class Value:
    """One SSA value: a parameter or a node's result. Identity is the object's; names are unique in a graph."""

    name: str
    type: TensorType

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


@dataclass(frozen=True, eq=False)
class Node:
    """One operation of the op table (`effcc.ir.ops`), with its operands, attributes, results and regions.

    `location` is the line of the user's module, for messages; it has no meaning for the computation.
    """

    op: str
    operands: tuple[Value, ...]
    attrs: Mapping[str, Attribute]
    results: tuple[Value, ...]
    regions: tuple[Graph, ...] = ()
    location: str = ""

    @property
    def result(self) -> Value:
        """The only result."""
        (single,) = self.results
        return single

    @property
    def has_sizes(self) -> bool:
        """Whether its attributes, results or regions mention a run-time size: it then differs from call to call."""
        return bool(symbols(mentioned_sizes([self])))


@dataclass(frozen=True, eq=False)
class Graph:
    """Parameters, nodes in an order where definitions precede uses, and outputs.

    `weights` names the parameters that are weights; `updates` pairs a parameter with the value its buffer takes;
    `ranges` bounds each size symbol (inclusive; None: no upper bound).
    """

    name: str
    params: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    weights: frozenset[str] = frozenset()
    updates: tuple[tuple[Value, Value], ...] = ()
    ranges: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)

    def uses(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in order; a node that reads it twice stands once."""
        found: dict[Value, list[Node]] = {p: [] for p in self.params}
        for node in self.nodes:
            for result in node.results:
                found[result] = []
            for operand in dict.fromkeys(node.operands):
                found.setdefault(operand, []).append(node)
        return found

    def producers(self) -> dict[Value, Node]:
        """The node that defines each value; parameters are absent."""
        return {result: node for node in self.nodes for result in node.results}

    @property
    def results(self) -> tuple[Value, ...]:
        """Everything that must be computed: the outputs, then the values of the updates."""
        return self.outputs + tuple(value for _, value in self.updates)

    @property
    def fixed_weights(self) -> frozenset[str]:
        """The weights that no update changes: what is computed from them stays right from call to call."""
        return self.weights - {target.name for target, _ in self.updates}

    def size_symbols(self) -> list[str]:
        """The names of the size symbols in the parameters' types."""
        sizes: list[Dim] = [d for p in self.params for d in (*p.type.shape, *p.type.layout)]
        return [s.name for s in symbols(sizes)]

    def with_nodes(self, nodes: tuple[Node, ...], outputs: tuple[Value, ...] | None = None) -> Graph:
        return replace(self, nodes=nodes, outputs=self.outputs if outputs is None else outputs)


def mentioned_sizes(nodes: Iterable[Node]) -> Iterator[sympy.Expr]:
    """Everything made of run-time sizes that nodes mention, in attributes, results and regions."""
    for node in nodes:
        pending: list[Attribute] = [*node.attrs.values(), *(d for r in node.results for d in r.type.sizes)]
        while pending:
            value = pending.pop()
            if isinstance(value, tuple):
                pending.extend(value)
            elif isinstance(value, sympy.Expr):
                yield value
        for region in node.regions:
            yield from (d for p in region.params for d in p.type.sizes if isinstance(d, sympy.Expr))
            yield from mentioned_sizes(region.nodes)


def has_effect(node: Node) -> bool:
    """Whether a node must run even where nobody reads it, as often as it stands there, and after those before it.

    Draws of random numbers and checks must, and so must control flow with such a node in a region.
    """
    if node.op == "extern":
        return node.attrs.get("reason") in ("random", "effect")
    return any(has_effect(inner) for region in node.regions for inner in region.nodes)


class GraphBuilder:
    """Appends checked nodes: operand types go through the op's type rule, result names are made unique."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.params: list[Value] = []
        self.nodes: list[Node] = []
        self.weights: set[str] = set()
        self.ranges: dict[str, tuple[int, int | None]] = {}
        self.location = ""
        self._names: set[str] = set()

    def fresh(self, base: str) -> str:
        """A name not used so far: `base`, or `base_1`, `base_2`, ..."""
        name, n = base, 0
        while name in self._names:
            n += 1
            name = f"{base}_{n}"
        self._names.add(name)
        return name

    def param(self, name: str, type: TensorType, weight: bool = False) -> Value:
        value = Value(self.fresh(name), type)
        self.params.append(value)
        if weight:
            self.weights.add(value.name)
        return value

    def adopt(self, value: Value, weight: bool = False) -> Value:
        """Take an existing value as a parameter, keeping its identity."""
        self._names.add(value.name)
        self.params.append(value)
        if weight:
            self.weights.add(value.name)
        return value

    def append(self, node: Node) -> None:
        """Append an existing node unchanged, keeping its identity."""
        self._names.update(r.name for r in node.results)
        self.nodes.append(node)

    def node(
        self, op: str, *operands: Value, name: str = "", regions: tuple[Graph, ...] = (), **attrs: Attribute
    ) -> Node:
        """Append `op` with its results typed by the op table; raises IRTypeError where they do not fit."""
        from effcc.ir.ops import lookup

        spec = lookup(op)
        complete = spec.complete_attrs(attrs)
        types = spec.infer_types(tuple(o.type for o in operands), complete, regions)
        results = tuple(Value(self.fresh(name or op.replace("::", "_")), t) for t in types)
        made = Node(op, operands, complete, results, regions, self.location)
        self.nodes.append(made)
        return made

    def emit(self, op: str, *operands: Value, name: str = "", **attrs: Attribute) -> Value:
        """Like `node`, for an op with one result: that result."""
        return self.node(op, *operands, name=name, regions=(), **attrs).result

    def build(self, outputs: tuple[Value, ...], updates: tuple[tuple[Value, Value], ...] = ()) -> Graph:
        params, nodes = tuple(self.params), tuple(self.nodes)
        return Graph(self.name, params, nodes, outputs, frozenset(self.weights), updates, dict(self.ranges))
