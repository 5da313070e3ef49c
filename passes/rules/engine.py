"""Applies rules to a graph until none fires.

One sweep visits the nodes in order, so a node's operands are already rewritten when its own rules are tried, and what a
rule puts in a node's place is tried again at once. Sweeps follow each other until one changes nothing: the second is
needed only where a value lost its other readers. That this ends is `effcc.passes.rules.termination`'s to prove.

A rule fires only where

- the replacement has the dtype and the shape of what it replaces, sizes provably equal;
- nothing is computed twice: what the replacement costs is at most what becomes dead, where an inner result of the
  pattern that others read does not become dead, and what depends on weights alone costs nothing (it is hoisted);
- a graph's result keeps its layout and its own storage: it never becomes a parameter or another result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from effcc.errors import IRTypeError
from effcc.ir.dims import same_shape
from effcc.ir.dtypes import DType
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.op import Op
from effcc.ir.ops import lookup
from effcc.ir.types import TensorType
from effcc.passes.dead_code import remove_dead_code
from effcc.passes.rules.conditions import CONDITIONS
from effcc.passes.rules.constants import as_held, constant_attrs, neighbour, number_of
from effcc.passes.rules.functions import FUNCTIONS, UNDEFINED
from effcc.passes.rules.language import (
    Computed,
    Expression,
    Function,
    Literal,
    Name,
    Number,
    NumberVariable,
    Operation,
    Rule,
    RuleSet,
    Tensor,
    Term,
)
from effcc.passes.rules.termination import cost

COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum", "and", "or", "xor", "eq", "ne"})
_SWEEPS = 100


@dataclass(frozen=True)
class Match:
    """What a pattern's names stand for at one place, and the nodes of the pattern there, root first."""

    tensors: Mapping[str, Value]
    scalars: Mapping[str, Any]
    nodes: tuple[Node, ...]


@dataclass
class Rewritten:
    """A graph at the rules' fixpoint, and how often each rule fired on the way."""

    graph: Graph
    fired: Counter[str] = field(default_factory=Counter)


def rewrite(graph: Graph, rules: RuleSet) -> Rewritten:
    """`graph` rewritten by `rules` to a fixpoint, in its regions too, without what became dead."""
    index = _by_root(rules.rules)
    fired: Counter[str] = Counter()
    for _ in range(_SWEEPS):
        sweep = _Sweep(graph, index)
        graph = remove_dead_code(sweep.run())
        fired += sweep.fired
        if not sweep.fired:
            return Rewritten(graph, fired)
    raise AssertionError(f"rules still fire after {_SWEEPS} sweeps, though their measure says they end: {dict(sweep.fired)}")


@dataclass(frozen=True)
class Candidate:
    """A rule, and the ops that must be among the producers of its root's operands for it to match at all."""

    rule: Rule
    producers: frozenset[str]


@cache
def _by_root(rules: tuple[Rule, ...]) -> Mapping[str, tuple[Candidate, ...]]:
    index: dict[str, list[Candidate]] = {}
    for rule in rules:
        needed = {o.op for o in rule.pattern.operands if isinstance(o, Operation)}
        if any(isinstance(o, (Number, NumberVariable)) for o in rule.pattern.operands):
            needed.add(_NUMBER)
        index.setdefault(rule.pattern.op, []).append(Candidate(rule, frozenset(needed)))
    return {op: tuple(found) for op, found in index.items()}


_NUMBER = "a constant"


class Facts:
    """What conditions may ask of values: who computes them, and whether they depend on weights and constants alone."""

    def __init__(self, graph: Graph) -> None:
        self.producer: dict[Value, Node] = {}
        self.fixed: set[Value] = {p for p in graph.params if p.name in graph.weights}

    def learn(self, node: Node) -> None:
        for result in node.results:
            self.producer[result] = node
        if lookup(node.op).kind != "opaque" and all(o in self.fixed for o in node.operands):
            self.fixed.update(node.results)

    def made_by(self, value: Value) -> str:
        """The op that computes a value; constants are all alike."""
        node = self.producer.get(value)
        if node is None:
            return ""
        return _NUMBER if node.op in ("constant", "full") else node.op

    def number(self, value: Value) -> Any:
        """The one number that fills a constant, as it was written, or None."""
        node = self.producer.get(value)
        return None if node is None else number_of(node)


class _Sweep:
    def __init__(self, graph: Graph, index: Mapping[str, tuple[Candidate, ...]]) -> None:
        self.graph, self.index = graph, index
        self.facts = Facts(graph)
        self.fired: Counter[str] = Counter()
        self.nodes: list[Node] = []
        self.instead: dict[Value, Value] = {}
        self.results = set(graph.results)
        self.names = {v.name for v in graph.params} | {r.name for n in graph.nodes for r in n.results}
        self.numbers: Counter[str] = Counter()
        # Reads of each value. Never too low while the sweep goes on, so a count of one is to be trusted.
        self.reads: Counter[Value] = Counter(graph.results)
        for node in graph.nodes:
            self.reads.update(node.operands)

    def run(self) -> Graph:
        for node in self.graph.nodes:
            operands = tuple(self.instead.get(o, o) for o in node.operands)
            regions = tuple(self._region(r) for r in node.regions)
            if operands != node.operands or any(a is not b for a, b in zip(regions, node.regions, strict=True)):
                node = replace(node, operands=operands, regions=regions)
            self._place(node)
        updates = tuple((p, self.instead.get(v, v)) for p, v in self.graph.updates)
        outputs = tuple(self.instead.get(v, v) for v in self.graph.outputs)
        return replace(self.graph, nodes=tuple(self.nodes), outputs=outputs, updates=updates)

    def _region(self, region: Graph) -> Graph:
        inner = _Sweep(region, self.index)
        result = inner.run()
        self.fired += inner.fired
        return remove_dead_code(result) if inner.fired else region

    def _place(self, node: Node) -> Value | None:
        """Append `node`, or what the first rule that fires puts in its place. What stands for its only result."""
        if len(node.results) == 1 and not node.regions:
            near = {self.facts.made_by(o) for o in node.operands}
            for candidate in self.index.get(node.op, ()):
                if not candidate.producers <= near:
                    continue
                for match in matches(candidate.rule, node, self.facts):
                    placed = self._fire(candidate.rule, match)
                    if placed is not None:
                        return placed
        self.nodes.append(node)
        self.facts.learn(node)
        return node.results[0] if node.results else None

    def _fire(self, rule: Rule, match: Match) -> Value | None:
        root = match.nodes[0]
        plan = plan_replacement(rule, match, self.facts)
        if plan is None or not self._worthwhile(match, plan):
            return None
        if isinstance(plan.root, Value):
            found = plan.root
            if root.result in self.results:
                if found in self.results or found not in self.facts.producer or not _same_layout(found, root.result):
                    return None
                self.results.add(found)
        self.fired[rule.name] += 1
        placed: dict[int, Value] = {}
        for position, made in enumerate(plan.nodes):
            operands = tuple(o if isinstance(o, Value) else placed[o] for o in made.operands)
            self.reads.update(operands)
            result = root.result if made is plan.nodes[-1] and plan.root == position else self._fresh(root, made.type)
            node = Node(made.op, operands, made.attrs, (result,), location=root.location)
            value = self._place(node)
            assert value is not None
            placed[position] = value
        value = plan.root if isinstance(plan.root, Value) else placed[plan.root]
        if value is not root.result:
            self.instead[root.result] = value
            self.reads[value] += self.reads[root.result]
        return value

    def _worthwhile(self, match: Match, plan: Plan) -> bool:
        """Whether what is added costs at most what dies."""
        if len(match.nodes) == 1 and len(plan.nodes) <= 1:
            return True
        dead = {match.nodes[0]}
        inside = Counter(match.nodes[0].operands)
        dying: list[Node] = [match.nodes[0]]
        while dying:
            dead.update(dying)
            dying = [n for n in match.nodes if n not in dead and self.reads[n.result] <= inside[n.result]]
            for node in dict.fromkeys(dying):
                inside.update(node.operands)
        saved = sum(_cost(n.op) for n in dead if n.result not in self.facts.fixed)
        return sum(_cost(m.op) for m in plan.nodes if not m.fixed) <= saved

    def _fresh(self, root: Node, type: TensorType) -> Value:
        base = root.result.name.rstrip("_0123456789") or "v"
        while True:
            self.numbers[base] += 1
            name = f"{base}_{self.numbers[base]}"
            if name not in self.names:
                self.names.add(name)
                return Value(name, type)


@cache
def _cost(op: str) -> int:
    return cost(lookup(op))


def _same_layout(a: Value, b: Value) -> bool:
    return same_shape(a.type.layout, b.type.layout) and a.type.encoding == b.type.encoding


def matches(rule: Rule, node: Node, facts: Facts) -> Iterator[Match]:
    """Every way in which the pattern and the conditions hold at `node`."""
    start = Match({"result": node.result}, {}, ())
    for match in _matchoperation(rule.pattern, node, start, facts):
        if all(holds(c.name, tuple(value_of(a, match) for a in c.args), facts) != c.negated for c in rule.conditions):
            yield match


def holds(condition: str, arguments: tuple[Any, ...], facts: Facts) -> bool:
    """Whether a condition of `effcc.passes.rules.conditions` holds; not where a function found no value for it."""
    return all(a is not UNDEFINED for a in arguments) and CONDITIONS[condition].holds(facts, *arguments)


def _matchoperation(pattern: Operation, node: Node, match: Match, facts: Facts) -> Iterator[Match]:
    if node.op != pattern.op or len(node.operands) != len(pattern.operands) or len(node.results) != 1:
        return
    scalars = match.scalars
    for name, expected in pattern.attrs:
        actual = node.attrs[name]
        if isinstance(expected, Name):
            if expected.name not in scalars:
                scalars = {**scalars, expected.name: actual}
            elif not _equal(scalars[expected.name], actual):
                return
        elif isinstance(expected, Literal) and not _equal(expected.value, actual):
            return
    tensors = {**match.tensors, pattern.name: node.result} if pattern.name else match.tensors
    found = Match(tensors, scalars, (*match.nodes, node))
    yield from _matchoperands(pattern.operands, node.operands, found, facts)
    if node.op in COMMUTATIVE and pattern.operands[0] != pattern.operands[1]:
        yield from _matchoperands(pattern.operands, node.operands[::-1], found, facts)


def _matchoperands(patterns: Sequence[Term], values: Sequence[Value], match: Match, facts: Facts) -> Iterator[Match]:
    if not patterns:
        yield match
        return
    for found in _matchterm(patterns[0], values[0], match, facts):
        yield from _matchoperands(patterns[1:], values[1:], found, facts)


def _matchterm(pattern: Term, value: Value, match: Match, facts: Facts) -> Iterator[Match]:
    match pattern:
        case Tensor():
            bound = match.tensors.get(pattern.name)
            if bound is None:
                yield replace(match, tensors={**match.tensors, pattern.name: value})
            elif bound is value:
                yield match
        case Operation():
            node = facts.producer.get(value)
            if node is not None:
                yield from _matchoperation(pattern, node, match, facts)
        case Number():
            number = facts.number(value)
            if number is not None:
                expected, held = (as_held(v, value.type.dtype) for v in (pattern.value, number))
                if expected is not None and _equal(expected, held):
                    yield match
        case NumberVariable():
            number = facts.number(value)
            if number is None:
                return
            if pattern.name not in match.scalars:
                yield replace(match, scalars={**match.scalars, pattern.name: number})
            elif _equal(match.scalars[pattern.name], number):
                yield match


def _equal(a: Any, b: Any) -> bool:
    """Equality of attributes and numbers; 1 is not True, and 0.0 is not -0.0."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (str, DType)) or a is None:
        return bool(a == b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b) and (a != 0 or str(float(a))[0] == str(float(b))[0])


def value_of(e: Expression, match: Match) -> Any:
    """The value of an expression: an attribute, a number, for `%x` the tensor's Value; UNDEFINED where a function has none."""
    match e:
        case Literal():
            return e.value
        case Name():
            return match.scalars[e.name]
        case Tensor():
            return match.tensors[e.name]
        case Function():
            args = tuple(value_of(a, match) for a in e.args)
            return UNDEFINED if any(a is UNDEFINED for a in args) else FUNCTIONS[e.function](*args)


@dataclass(frozen=True)
class Planned:
    """A node to be made: operands are existing values, or positions of nodes planned before it."""

    op: str
    operands: tuple[Value | int, ...]
    attrs: Mapping[str, Any]
    type: TensorType
    fixed: bool


@dataclass(frozen=True)
class Plan:
    """The nodes of a replacement, operands first, and what replaces the root: the position of a node, or a value."""

    nodes: tuple[Planned, ...]
    root: Value | int


def _number(term: Number | NumberVariable | Computed, match: Match) -> Any:
    match term:
        case Number():
            return term.value
        case NumberVariable():
            return match.scalars[term.name]
        case Computed():
            return value_of(term.value, match)


class _Misfit(Exception):
    """The replacement cannot stand here."""


def plan_replacement(rule: Rule, match: Match, facts: Facts) -> Plan | None:
    """The replacement's nodes, typed; None where it does not have the dtype and shape of what it replaces."""
    nodes: list[Planned] = []
    wanted = match.nodes[0].result.type

    def add(op: Op | str, operands: tuple[Value | int, ...], attrs: Mapping[str, Any]) -> int:
        spec = lookup(op) if isinstance(op, str) else op
        types = tuple(map(typed, operands))
        complete = spec.complete_attrs(attrs)
        (type,) = spec.infer_types(types, complete)
        fixed = all(o in facts.fixed if isinstance(o, Value) else nodes[o].fixed for o in operands)
        nodes.append(Planned(spec.name, operands, complete, type, fixed))
        return len(nodes) - 1

    def typed(operand: Value | int) -> TensorType:
        return operand.type if isinstance(operand, Value) else nodes[operand].type

    def build(term: Term, like: TensorType) -> Value | int:
        if isinstance(term, Tensor):
            return match.tensors[term.name]
        if isinstance(term, Operation):
            # A constant takes its neighbour's dtype, so neighbours come first.
            built: dict[int, Value | int] = {
                i: build(t, like) for i, t in enumerate(term.operands) if isinstance(t, (Tensor, Operation))
            }
            like_operand = neighbour(term.op, [built.get(i) for i in range(len(term.operands))])
            near = like if like_operand is None else typed(like_operand)
            for i, operand in enumerate(term.operands):
                if i not in built:
                    built[i] = build(operand, TensorType(near.dtype, ()))
            attrs = {name: value_of(e, match) for name, e in term.attrs}
            if any(v is UNDEFINED for v in attrs.values()):
                raise _Misfit
            return add(term.op, tuple(built[i] for i in range(len(built))), attrs)
        number = _number(term, match)
        if number is UNDEFINED or as_held(number, like.dtype) is None:
            raise _Misfit
        op, attrs = constant_attrs(number, like)
        return add(op, (), attrs)

    try:
        root = build(rule.replacement, wanted)
    except (IRTypeError, _Misfit):
        return None
    made = typed(root)
    if made.dtype != wanted.dtype or made.encoding != wanted.encoding or not same_shape(made.shape, wanted.shape):
        return None
    return Plan(tuple(nodes), root)
