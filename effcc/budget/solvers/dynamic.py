"""The dynamic program: layer after layer, the choices so far that may still become the best.

They lie on a Pareto front: one that has more of the limited quantity than another, and is no better by the goal, is
dropped. Of those within a cell of the limit only the best by the goal stays; sums themselves are exact, so a result
keeps the limit, and what merging loses is at most a cell a layer. With several limits, weighted means of the quantities
(each in parts of its limit) are bounded by 1 in turn, and of all fronts the best choice that keeps the limits is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.budget.problem import SLACK, Choice, Problem

CELLS = 1 << 12
"""How many cells a limit is cut into."""

WEIGHTS = 8
"""Of several limits, weights are multiples of 1 / WEIGHTS."""


def solve(problem: Problem) -> Choice:
    """The choice of least goal within the limits. Raises BudgetError where none was found."""
    problem.require_possible()
    if not problem.limits:
        return problem.least(problem.goal)
    costs = [_padded(problem.costs[q]) / (limit * SLACK or 1.0) for q, limit in problem.limits.items()]
    goals = _padded(problem.costs[problem.goal])
    found: list[Choice] = []
    for weights in itertools.product(range(WEIGHTS + 1), repeat=len(costs) - 1):
        if sum(weights) <= WEIGHTS:
            shares = (*weights, WEIGHTS - sum(weights))
            mean = sum(share / WEIGHTS * cost for share, cost in zip(shares, costs, strict=True) if share)
            keeping = (c for c in map(_as_choice, _front(mean, goals)) if problem.keeps_limits(c))
            found.extend(itertools.islice(keeping, 1))
    if not found:
        raise problem.impossible_together()
    return min(found, key=lambda c: problem.total(problem.goal, c))


def front(problem: Problem, across: str) -> list[Choice]:
    """The Pareto front of the goal across another quantity, from the most of that to the least; limits do not count."""
    costs = _padded(problem.costs[across])
    most = float(np.where(np.isinf(costs), 0, costs).max(1).sum())
    return [_as_choice(c) for c in _front(costs / (most * SLACK or 1.0), _padded(problem.costs[problem.goal]))]


def _as_choice(numbers: Sequence[int]) -> Choice:
    return tuple(int(c) for c in numbers)


def _padded(costs: Sequence[Sequence[float]]) -> Any:
    """Costs [layer, candidate]; infinite where a layer has no such candidate."""
    widest = max(map(len, costs))
    return np.array([[*of_layer, *[np.inf] * (widest - len(of_layer))] for of_layer in costs])


def _front(costs: Any, goals: Any) -> Any:
    """Choices [state, layer] on the front, from the best goal on, whose costs add up to 1 at most."""
    ahead = np.append(np.cumsum(costs.min(1)[::-1])[::-1], 0.0)
    choices, cost, goal = np.zeros((1, 0), np.int16), np.zeros(1), np.zeros(1)
    for layer, (more, worse) in enumerate(zip(costs, goals, strict=True)):
        cost, goal = (cost[:, None] + more).reshape(-1), (goal[:, None] + worse).reshape(-1)
        kept = np.flatnonzero(cost <= 1 - ahead[layer + 1] + 1e-12)
        kept = kept[np.lexsort((cost[kept], goal[kept]))]
        kept = kept[cost[kept] < np.append(np.inf, np.minimum.accumulate(cost[kept])[:-1])[: len(kept)]]
        cells = np.floor(cost[kept] * CELLS)
        kept = kept[np.append(True, cells[1:] != cells[:-1])[: len(kept)]]
        choices = np.column_stack((choices[kept // len(more)], (kept % len(more)).astype(np.int16)))
        cost, goal = cost[kept], goal[kept]
    return choices
