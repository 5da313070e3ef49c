"""Rolls unrolled loops up again: recurrences into scans, and concatenations of equal steps into one batched step.

Tracing writes a loop over time out, one copy of its body per step. Kernels for each copy take long to compile and run
one short row each. Besides trees (`effcc.passes.scan_tree`), two shapes are recognised, of any length from `SHORTEST`:

    h_t = a[t] * h_{t-1} + b[t]                         linear_recurrence(a, b, h_{-1}), of which h_t is the slice t
    concat(f(x[0], c), f(x[1], c), ..., f(x[n-1], c))   f(x, c) with one more axis, moved to its place and merged

where x[t] are slices of length one at consecutive positions of a tensor, looked at through whatever views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from effcc.errors import IRTypeError
from effcc.ir.dims import same_shape
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.op import normalize_axis
from effcc.ir.ops import lookup
from effcc.ir.table.movement import slice_bounds
from effcc.passes.dead_code import remove_dead_code
from effcc.passes.scan_tree import roll_scan_trees
from effcc.passes.writer import Writer

SHORTEST = 4
"""Steps of the shortest chain that becomes a loop: fewer are as good written out."""


def reroll(graph: Graph) -> Graph:
    """`graph` with unrolled linear recurrences as scans and concatenations of equal steps as batched steps."""
    rolled = _roll_concatenations(_roll_recurrences(roll_scan_trees(graph)))
    return rolled if rolled is graph else remove_dead_code(rolled)


@dataclass(frozen=True)
class _Position:
    """The slice of length one at `start` on `axis` of `source`."""

    source: Value
    axis: int
    start: int

    def follows(self, other: _Position) -> bool:
        return self.source is other.source and self.axis == other.axis and self.start == other.start + 1


def _slice_position(value: Value, producers: Mapping[Value, Node]) -> _Position | None:
    """Where `value` is sliced from, if it is a slice of length one."""
    node = producers.get(value)
    if node is None or node.op != "slice" or node.attrs["step"] != 1:
        return None
    (source,) = node.operands
    given = node.attrs["axis"]
    assert isinstance(given, int)
    axis = normalize_axis(given, source.type.rank)
    start, length = slice_bounds(source.type.shape[axis], node.attrs["start"], node.attrs["end"], 1)
    return _Position(source, axis, start) if length == 1 and isinstance(start, int) else None


# --- recurrences -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """`result = factor * before + summand`; factor and summand are positions of tensors, without that axis."""

    result: Value
    before: Value
    factor: _Position
    summand: _Position

    def follows(self, other: _Step) -> bool:
        return self.before is other.result and self.factor.follows(other.factor) and self.summand.follows(other.summand)


def _roll_recurrences(graph: Graph) -> Graph:
    chains = {chain[0].result: chain for chain in _chains(graph)}
    if not chains:
        return graph
    rolled = {step.result for chain in chains.values() for step in chain}
    writer = Writer(graph)
    for node in graph.nodes:
        for result in node.results:
            # Sources and start are known before the first step, so the scan can stand in its place.
            if result in chains:
                _write_scan(writer, chains[result])
        if not rolled.intersection(node.results):
            writer.nodes.append(node)
    return graph.with_nodes(tuple(writer.nodes))


def _chains(graph: Graph) -> list[list[_Step]]:
    """Runs of steps, each following the one before; those too short to be worth a scan are left out."""
    producers = graph.producers()
    steps = {step.result: step for node in graph.nodes if (step := _step(node, producers)) is not None}
    following = {s.before: s for s in steps.values() if s.before in steps and s.follows(steps[s.before])}
    chains = []
    for head in steps.values():
        if head.before in following and following[head.before] is head:
            continue
        chain = [head]
        while chain[-1].result in following:
            chain.append(following[chain[-1].result])
        if len(chain) >= SHORTEST:
            chains.append(chain)
    return chains


def _step(node: Node, producers: Mapping[Value, Node]) -> _Step | None:
    if node.op != "add":
        return None
    for product, summand in (node.operands, node.operands[::-1]):
        multiply, added = producers.get(product), _dropped_position(summand, producers)
        if multiply is None or multiply.op != "mul" or added is None:
            continue
        for factor, before in (multiply.operands, multiply.operands[::-1]):
            scaled = _dropped_position(factor, producers)
            shapes = (factor.type.shape, before.type.shape, summand.type.shape)
            if scaled is None or not all(same_shape(s, node.result.type.shape) for s in shapes):
                continue
            if scaled.axis == added.axis and node.result.type.dtype.is_float:
                return _Step(node.result, before, scaled, added)
    return None


def _dropped_position(value: Value, producers: Mapping[Value, Node]) -> _Position | None:
    """Where `value` is sliced from, if it is a slice of length one without the axis it was sliced on."""
    node = producers.get(value)
    if node is None or node.op != "reshape":
        return None
    found = _slice_position(node.operands[0], producers)
    if found is None:
        return None
    shape = found.source.type.shape
    return found if same_shape(value.type.shape, shape[: found.axis] + shape[found.axis + 1 :]) else None


def _write_scan(writer: Writer, chain: Sequence[_Step]) -> None:
    """The scan, and each step's result as its slice, under the result's own name."""
    first, count, axis = chain[0], len(chain), chain[0].factor.axis
    name = first.result.name
    factors = writer.part(first.factor.source, axis, first.factor.start, count, name)
    summands = writer.part(first.summand.source, axis, first.summand.start, count, name)
    states = writer.emit("linear_recurrence", factors, summands, first.before, name=name, axis=axis)
    for t, step in enumerate(chain):
        state = writer.emit("slice", states, name=name, axis=axis, start=t, end=t + 1)
        writer.emit("reshape", state, name=name, result=step.result, shape=step.result.type.shape)


# --- concatenations --------------------------------------------------------------------------------------------------


def _roll_concatenations(graph: Graph) -> Graph:
    lifter = _Lifter(graph)
    changed = False
    for node in graph.nodes:
        if node.op == "concat" and len(node.operands) >= SHORTEST and lifter.replace(node):
            changed = True
        else:
            lifter.writer.nodes.append(node)
    return graph.with_nodes(tuple(lifter.writer.nodes)) if changed else graph


class _Lifter:
    """Writes one batched step for many equal ones. A lifted value has the steps as its first axis."""

    def __init__(self, graph: Graph) -> None:
        self.writer = Writer(graph)
        self.producers, self.uses = graph.producers(), graph.uses()
        self.results = set(graph.results)
        self.count = 0

    def replace(self, concat: Node) -> bool:
        """Write what `concat` joins as one batched step; False, and nothing written, where its operands differ."""
        first, axis = concat.operands[0].type.shape, concat.attrs["axis"]
        assert isinstance(axis, int)
        axis = normalize_axis(axis, len(first))
        if len(set(concat.operands)) != len(concat.operands):
            return False
        self.count = len(concat.operands)
        written = len(self.writer.nodes)
        try:
            lifted = self._lift(concat.operands)
        except IRTypeError:
            lifted = None
        if lifted is None or len(self.writer.nodes) == written:
            del self.writer.nodes[written:]
            return False
        order = (*range(1, axis + 1), 0, *range(axis + 1, len(first) + 1))
        moved = self.writer.emit("transpose", lifted, name=concat.result.name, perm=order)
        self.writer.emit("reshape", moved, name="", result=concat.result, shape=concat.result.type.shape)
        return True

    def _lift(self, values: Sequence[Value]) -> Value | None:
        """Values that differ from step to step as one value; None where they are not steps of one kind."""
        if not all(same_shape(v.type.shape, values[0].type.shape) for v in values):
            return None
        sliced = self._lift_slices(values)
        if sliced is not None:
            return sliced
        nodes = [self.producers[v] for v in values if v in self.producers]
        if len(nodes) != len(values) or not all(self._alike(n, nodes[0]) for n in nodes):
            return None
        operands: list[tuple[Value, bool]] = []
        for each in zip(*(n.operands for n in nodes), strict=True):
            if all(v is each[0] for v in each):
                operands.append((each[0], False))
                continue
            lifted = self._lift(each)
            if lifted is None:
                return None
            operands.append((lifted, True))
        return self._batched(nodes[0], operands) if any(stepped for _, stepped in operands) else None

    def _alike(self, node: Node, first: Node) -> bool:
        """Whether two nodes do the same, and nobody but the next node reads what would be computed twice."""
        lone = lookup(node.op).kind == "view" or (
            len(self.uses[node.results[0]]) == 1 and node.results[0] not in self.results
        )
        equal = node.op == first.op and node.attrs == first.attrs and len(node.operands) == len(first.operands)
        return lone and equal and len(node.results) == 1 and not node.regions

    def _lift_slices(self, values: Sequence[Value]) -> Value | None:
        found = [_slice_position(v, self.producers) for v in values]
        first = found[0]
        if first is None or any(a is None or b is None or not b.follows(a) for a, b in pairwise(found)):
            return None
        name = values[0].name
        whole = self.writer.part(first.source, first.axis, first.start, self.count, name)
        front = self.writer.to_front(whole, first.axis, name)
        return self.writer.reshape(front, (self.count, *values[0].type.shape), name)

    def _batched(self, node: Node, operands: Sequence[tuple[Value, bool]]) -> Value | None:
        """`node` on all steps at once."""
        name, shape = node.result.name, node.result.type.shape
        values = tuple(v for v, _ in operands)
        kind = lookup(node.op).kind
        if kind == "pointwise" or node.op == "matmul":
            aligned = (self._aligned(v, len(shape), name) if stepped else v for v, stepped in operands)
            return self.writer.copy(node, tuple(aligned), name)
        if node.op == "linear" and not any(stepped for _, stepped in operands[1:]):
            return self.writer.emit("linear", *values, name=name)
        if node.op == "reshape":
            return self.writer.reshape(values[0], (self.count, *shape), name)
        if node.op == "transpose":
            perm = node.attrs["perm"]
            assert isinstance(perm, tuple)
            return self.writer.emit("transpose", values[0], name=name, perm=(0, *(p + 1 for p in perm)))
        if node.op == "broadcast":
            aligned_value = self._aligned(values[0], len(shape), name)
            return self.writer.emit("broadcast", aligned_value, name=name, shape=(self.count, *shape))
        return None

    def _aligned(self, x: Value, rank: int, name: str) -> Value:
        """A lifted value with axes of size 1 after the steps, so that it broadcasts as the single step did."""
        _, *own = x.type.shape
        return self.writer.reshape(x, (self.count, *(1,) * (rank - len(own)), *own), name)
