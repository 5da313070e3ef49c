"""Where a rule's pattern matches, and what its names stand for there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from effcc.ir.dtypes import DType
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.ops import lookup
from effcc.ir.scalars import is_commutative
from effcc.passes.rules.conditions import CONDITIONS
from effcc.passes.rules.constants import as_held, number_of
from effcc.passes.rules.functions import FUNCTIONS, UNDEFINED
from effcc.passes.rules.language import (
    Expression,
    Function,
    Literal,
    Name,
    Number,
    NumberVariable,
    Operation,
    Rule,
    Tensor,
    Term,
)

A_NUMBER = "a constant"


@dataclass(frozen=True)
class Match:
    """What a pattern's names stand for at one place, and the nodes of the pattern there, root first."""

    tensors: Mapping[str, Value]
    scalars: Mapping[str, Any]
    nodes: tuple[Node, ...]


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
        return A_NUMBER if node.op in ("constant", "full") else node.op

    def number(self, value: Value) -> Any:
        """The one number that fills a constant, as it was written, or None."""
        node = self.producer.get(value)
        return None if node is None else number_of(node)


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
    if is_commutative(node.op) and pattern.operands[0] != pattern.operands[1]:
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
    """What an expression stands for; for `%x` the tensor's Value, UNDEFINED where a function has no value."""
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
