"""Rewrite rules drawn one by one: instances of their own patterns, which random graphs match too seldom.

The rules' own checker (`effcc.passes.rules.check`) holds a rule to its claim on a hundred instances; here every rule
gets a few from another seed each time it comes round.
"""

from __future__ import annotations

from itertools import cycle, islice

from effcc.fuzz.generate import Case
from effcc.fuzz.oracles import Failure
from effcc.passes.rules.check import try_rule
from effcc.passes.rules.language import Tensor
from effcc.passes.rules.reader import load_all

INSTANCES = 2  # of each rule at a time; the rules come round again with other seeds
DRAWS = 40  # at most for them
BEYOND = 100  # drafts just beyond what conditions allow, of rules that have any
NEAR = 0.7
"""How often each condition of such a draft proposes nothing."""
ALIKE, ALIKE_DRAWS = 10, 60
"""Instances, and drafts at most, whose axes are all as long as each other."""
OF_DTYPES, OF_DTYPES_DRAWS = 40, 240
"""The same of rules that say something of dtypes, of which there are a hundred pairs."""


class RuleChecks:
    """Goes round all rules, some at a time."""

    def __init__(self, seed: int) -> None:
        rules = load_all().rules
        self._size = len(rules)
        self._rules = cycle(rules)
        self._done = 0
        self._seed = seed

    def some(self, count: int) -> list[Failure]:
        """The next rules, so many, checked on a few instances each: those that are wrong."""
        found = []
        for rule in islice(self._rules, count):
            seed = self._seed + 1 + self._done // self._size
            verdict = try_rule(rule, INSTANCES, seed, DRAWS)
            if verdict.witness is None and rule.conditions:
                verdict = try_rule(rule, INSTANCES, seed + 1_000_003, BEYOND, NEAR)
                if verdict.witness is None and any(isinstance(a, Tensor) for c in rule.conditions for a in c.args):
                    verdict = try_rule(rule, BEYOND, seed + 2_000_003, BEYOND, 1.0, strays=True)
            if verdict.witness is None:
                near = NEAR if seed % 2 else 0.0
                count, draws = (OF_DTYPES, OF_DTYPES_DRAWS) if "dtype" in str(rule) else (ALIKE, ALIKE_DRAWS)
                verdict = try_rule(rule, count, seed + 3_000_003, draws, near, size=2 + seed // 2 % 2)
            self._done += 1
            if verdict.witness is not None:
                graph, inputs = verdict.witness
                found.append(
                    Failure(Case(graph, inputs), "rules", f"rule {rule.name} is wrong", verdict.failure.strip())
                )
        return found
