"""Sizes and integers that a rule accepts, where some are given.

Conditions of the kind `name == formula` are solved for the name; what is left is searched: numbers of a violated
condition are changed, as long as fewer conditions are violated afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

from effcc.fuzz.learned.formula import Undefined, holds, names, value
from effcc.fuzz.learned.rule import Rule

_SIZES = (1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 16, 17)
_INTEGERS = (-1, 0, 0, 1, 1, 1, 2, 2, 3, 4)
_STEPS = 120

Facts = Callable[[Mapping[str, int]], Mapping[str, object]]
"""From numbers by name to what formulas may name: those and shapes."""


def solve(
    rule: Rule, start: Mapping[str, int], sizes: frozenset[str], fixed: Mapping[str, int], facts: Facts, random: Random
) -> dict[str, int] | None:
    """Numbers that a rule accepts, `fixed` among them; None where none are found.

    start: every number by name, to begin with. sizes: those that are sizes of tensors.
    """
    found = {**start, **fixed}
    free = [n for n in found if n not in fixed]
    if not free:
        return found if not _violated(rule, facts(found)) else None
    best = len(_violated(rule, facts(found)))
    for _ in range(_STEPS):
        violated = _violated(rule, facts(found))
        if not violated:
            return found
        tried = _changed(found, random.choice(violated), free, sizes, random, facts)
        count = len(_violated(rule, facts(tried)))
        if count <= best or random.random() < 0.1:
            found, best = tried, count
    return found if not _violated(rule, facts(found)) else None


def vary(
    rule: Rule, found: Mapping[str, int], sizes: frozenset[str], fixed: Mapping[str, int], facts: Facts, random: Random
) -> dict[str, int]:
    """Other numbers that a rule accepts, from some that it accepts: one after the other is changed, equal ones together
    at times."""
    free = [n for n in found if n not in fixed]
    now = dict(found)
    for _ in range(2 * len(free)):
        name = random.choice(free)
        size = random.choice(_SIZES if name in sizes else _INTEGERS)
        alike = [n for n in free if now[n] == now[name] and (n in sizes) == (name in sizes)]
        changed = {**now, **dict.fromkeys(alike if random.random() < 0.6 else [name], size)}
        if not _violated(rule, facts(changed)):
            now = changed
    return now


def _violated(rule: Rule, given: Mapping[str, object]) -> list[str]:
    return [need for need in rule.needs if not holds(need, given)]  # type: ignore[arg-type]


def _changed(
    found: Mapping[str, int], need: str, free: Sequence[str], sizes: frozenset[str], random: Random, facts: Facts
) -> dict[str, int]:
    """Numbers of a condition changed: to what solves it where it is an equation, else to anything."""
    given = facts(found)
    left, equals, right = need.partition(" == ")
    if equals and " or " not in need and " and " not in need:
        for one, other in ((left, right), (right, left)):
            if one in free and random.random() < 0.8:
                try:
                    solved = value(other, given)  # type: ignore[arg-type]
                except Undefined:
                    continue
                if isinstance(solved, int) and (solved >= 0 or one not in sizes):
                    return {**found, one: solved}
    about = [n for n in free if n in names(need) or any(n.startswith(f"{t}_") for t in names(need))]
    name = random.choice(about or list(free))
    others = [found[n] for n in found if n in names(need) and (found[n] >= 0 or name not in sizes)]
    among = others if others and random.random() < 0.4 else _SIZES if name in sizes else _INTEGERS
    return {**found, name: random.choice(among)}
