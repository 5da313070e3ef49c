"""Why rewriting ends: every rule makes the term smaller in one multiset path order.

The order is that of Dershowitz ("Orderings for term-rewriting systems", 1982) over a precedence of ops that the rule
files state in `order:` lines. It is well-founded, and it only looks at ops, never at attributes or sizes; so any
mixture of checked rules, in any sequence, on any graph reaches a fixpoint. Operands are compared as multisets, so
commuted operands count as equal, and rules that merely shuffle operands or change attributes are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from effcc.passes.rules.language import Operation, Rule, RuleSet, Tensor, Term, operations

_CONSTANT = ""


class Precedence:
    """The transitive closure of `order:` chains; constants lie below every op."""

    def __init__(self, chains: Sequence[Sequence[str]]) -> None:
        below: dict[str, set[str]] = {}
        for chain in chains:
            for above, under in pairwise(chain):
                below.setdefault(above, set()).add(under)
        self._below: dict[str, frozenset[str]] = {}
        for op in below:
            seen: set[str] = set()
            pending = [*below[op]]
            while pending:
                under = pending.pop()
                if under not in seen:
                    seen.add(under)
                    pending.extend(below.get(under, ()))
            self._below[op] = frozenset(seen)
        self.cycle = sorted(op for op, under in self._below.items() if op in under)

    def above(self, a: str, b: str) -> bool:
        """Whether op `a` may be written in terms of op `b`."""
        return (b == _CONSTANT and a != _CONSTANT) or b in self._below.get(a, ())


def violations(rules: RuleSet) -> list[str]:
    """What is wrong with the measure: a circular order, rules that do not decrease. Empty if all is well."""
    precedence = Precedence(rules.order)
    if precedence.cycle:
        return [f"the order of {', '.join(precedence.cycle)} is circular"]
    return [
        f"{rule.theme}.rules:{rule.line}: rule {rule.name}: the replacement is not smaller than the pattern; "
        f"say in an `order:` line which op is written in terms of which"
        for rule in rules.rules
        if not decreases(rule, precedence)
    ]


def decreases(rule: Rule, precedence: Precedence) -> bool:
    """Whether the replacement is smaller than the pattern, whatever the variables stand for."""
    inside = {o.name: o for o in operations(rule.pattern) if o.name}
    return _greater(_unfold(rule.pattern, inside), _unfold(rule.replacement, inside), precedence)


_Tree = tuple[str, tuple["_Tree", ...]] | str  # an op (or the constant "") with its operands, or a variable's name


def _unfold(term: Term, inside: dict[str, Operation]) -> _Tree:
    """The term as a tree of op names, with names of inner results written out."""
    match term:
        case Tensor():
            return _unfold(inside[term.name], inside) if term.name in inside else term.name
        case Operation():
            return (term.op, tuple(_unfold(operand, inside) for operand in term.operands))
    return (_CONSTANT, ())


def _greater(s: _Tree, t: _Tree, p: Precedence) -> bool:
    """s > t in the multiset path order."""
    if isinstance(s, str):
        return False
    f, inner = s
    if any(operand == t or _greater(operand, t, p) for operand in inner):
        return True
    if isinstance(t, str):
        return False
    g, parts = t
    if p.above(f, g):
        return all(_greater(s, part, p) for part in parts)
    return f == g and _greater_multiset(list(inner), list(parts), p)


def _greater_multiset(left: list[_Tree], right: list[_Tree], p: Precedence) -> bool:
    """Left is greater when, common members aside, something remains and dominates all that remains on the right."""
    for member in list(left):
        if member in right:
            left.remove(member)
            right.remove(member)
    return bool(left) and all(any(_greater(a, b, p) for a in left) for b in right)
