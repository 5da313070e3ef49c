"""The evolutionary search, after EvoPress (Sieberling et al. 2024): errors of layers do not add up, so whole choices
are measured.

One parent, the dynamic program's choice first. Each generation makes offspring by moving a few layers to other
candidates, and as many again until the limits that add up hold; the offspring are measured, and the best of them and
the parent is the next parent.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from effcc.budget.problem import Choice, Problem
from effcc.budget.solvers import dynamic

GENERATIONS = 12
OFFSPRING = 4
TRIES = 200
"""How often an offspring is drawn before the generation goes on with fewer."""

Measure = Callable[[Choice], float]


def solve(problem: Problem, measure: Measure, *, generations: int = GENERATIONS, seed: int = 0) -> Choice:
    """The best choice found within the limits, its error being what `measure` says. Raises BudgetError if none is.

    Limits of bytes and seconds hold of the sums; a limit of the error holds of the measured error, if a choice that
    was met has so little.
    """
    draw = random.Random(seed)
    rest = {q: limit for q, limit in problem.limits.items() if q != "error"}
    additive = replace(problem, limits=rest)
    known: dict[Choice, float] = {}

    def rank(choice: Choice) -> tuple[float, float]:
        """How far the error is above its limit, then the goal."""
        if choice not in known:
            known[choice] = measure(choice)
        error = known[choice]
        excess = max(error - problem.limits.get("error", float("inf")), 0.0)
        return excess, error if problem.goal == "error" else problem.total(problem.goal, choice)

    parent = dynamic.solve(problem)
    for _ in range(generations):
        offspring = {_moved(parent, additive, draw) for _ in range(OFFSPRING)}
        parent = min((parent, *sorted(offspring)), key=rank)
    return parent


def _moved(parent: Choice, problem: Problem, draw: random.Random) -> Choice:
    """The parent with a few layers moved, within the limits; the parent itself where no try keeps them."""
    movable = [n for n, count in enumerate(problem.candidates) if count > 1]
    for _ in range(TRIES if movable else 0):
        child = list(parent)
        for _ in range(2 * min(draw.randint(1, 3), draw.randint(1, 3))):
            layer = draw.choice(movable)
            child[layer] = draw.randrange(problem.candidates[layer])
        if tuple(child) != parent and problem.keeps_limits(tuple(child)):
            return tuple(child)
    return parent
