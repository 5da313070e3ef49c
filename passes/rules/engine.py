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
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from effcc.errors import noting
from effcc.ir.dims import same_shape
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.ops import lookup
from effcc.ir.types import TensorType
from effcc.passes.dead_code import remove_dead_code
from effcc.passes.recomputing import cost
from effcc.passes.rules.language import Number, NumberVariable, Operation, Rule, RuleSet
from effcc.passes.rules.matching import A_NUMBER, Facts, Match, matches
from effcc.passes.rules.replacement import Plan, plan_replacement

_SWEEPS = 100
"""Far more than any graph takes: to stop with an error, not hang, if the order that ends rewriting is wrong."""


@dataclass(frozen=True)
class Rewritten:
    """A graph at the rules' fixpoint, and how often each rule fired on the way."""

    graph: Graph
    fired: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Firing:
    """One application of a rule, to a node of these results."""

    rule: Rule
    results: tuple[Value, ...]
    location: str = ""


@dataclass
class Trace:
    """What rewriting did, in order; `effcc bisect` asks for it.

    most: after so many firings no rule fires any more, so that the first one at fault can be searched for: up to there
    all is as without a limit. graphs: what came out of each pass, by its name.
    """

    most: int | None = None
    firings: list[Firing] = field(default_factory=list)
    graphs: list[tuple[str, Graph]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether no rule may fire any more."""
        return self.most is not None and len(self.firings) >= self.most


def rewrite(graph: Graph, rules: RuleSet, trace: Trace | None = None) -> Rewritten:
    """`graph` rewritten by `rules` to a fixpoint, in its regions too, without what became dead. trace: where it is
    written down, and ended early."""
    index = _by_root(rules.rules)
    trace = Trace() if trace is None else trace
    fired: Counter[str] = Counter()
    for _ in range(_SWEEPS):
        sweep = _Sweep(graph, index, trace)
        swept = sweep.run()
        if not sweep.fired:
            return Rewritten(remove_dead_code(graph), fired)
        graph = remove_dead_code(swept)
        fired += sweep.fired
    raise AssertionError(
        f"rules still fire after {_SWEEPS} sweeps, though their measure says they end: {dict(sweep.fired)}"
    )


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
            needed.add(A_NUMBER)
        index.setdefault(rule.pattern.op, []).append(Candidate(rule, frozenset(needed)))
    return {op: tuple(found) for op, found in index.items()}


class _Sweep:
    def __init__(self, graph: Graph, index: Mapping[str, tuple[Candidate, ...]], trace: Trace) -> None:
        self.graph, self.index, self.trace = graph, index, trace
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
            with noting(location=node.location):
                self._place(node)
        updates = tuple((p, self.instead.get(v, v)) for p, v in self.graph.updates)
        outputs = tuple(self.instead.get(v, v) for v in self.graph.outputs)
        return replace(self.graph, nodes=tuple(self.nodes), outputs=outputs, updates=updates)

    def _region(self, region: Graph) -> Graph:
        inner = _Sweep(region, self.index, self.trace)
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
        plan = None if self.trace.is_over else plan_replacement(rule, match, self.facts)
        if plan is None:
            return None
        dead = self._dying(match)
        if not self._worthwhile(match, plan, dead):
            return None
        if isinstance(plan.root, Value):
            found = plan.root
            if root.result in self.results:
                if found in self.results or found not in self.facts.producer or not _same_layout(found, root.result):
                    return None
                self.results.add(found)
        self.fired[rule.name] += 1
        self.trace.firings.append(Firing(rule, root.results, root.location))
        for node in dead:
            self.reads.subtract(node.operands)
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

    def _dying(self, match: Match) -> set[Node]:
        """The pattern's nodes that nobody else reads: the root, and inner ones as far as all their readers die."""
        dead: set[Node] = set()
        inside: Counter[Value] = Counter()
        dying = [match.nodes[0]]
        while dying:
            for node in dict.fromkeys(dying):
                dead.add(node)
                inside.update(node.operands)
            dying = [n for n in match.nodes if n not in dead and self.reads[n.result] <= inside[n.result]]
        return dead

    def _worthwhile(self, match: Match, plan: Plan, dead: set[Node]) -> bool:
        """Whether what is added costs at most what dies. One op for another is the rule's own business."""
        if len(match.nodes) == 1 and len(plan.nodes) <= 1:
            return True
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
