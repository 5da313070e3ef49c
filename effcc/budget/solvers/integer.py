"""CP-SAT: a Boolean for each candidate, of which one a layer holds; sums are linear.

Costs become integers: parts of a limit, or of the goal's largest sum, so small that rounding is as that of floats. The
dynamic program's choice is where the search starts. One worker and a bound on deterministic time: the same problem
gives the same choice.
"""

from __future__ import annotations

import importlib
from typing import Any

from effcc.budget.problem import SLACK, Choice, Problem
from effcc.budget.solvers import dynamic
from effcc.errors import BudgetError, UnsupportedError

PARTS = 1 << 50
"""In how many parts a limit, and the goal's largest sum, are counted."""

EFFORT = 5.0
"""CP-SAT's deterministic time, about seconds, after which the best choice so far is taken."""

GAP = 1e-4
"""A choice is good enough that is proven to be this near the optimum."""


def solve(problem: Problem) -> Choice:
    """The choice of least goal within the limits. Raises BudgetError where there is none."""
    problem.require_possible()
    if not problem.limits:
        return problem.least(problem.goal)
    cp_model = _cp_sat()
    model = cp_model.CpModel()
    chosen = [[model.new_bool_var(f"{layer}:{c}") for c in range(n)] for layer, n in enumerate(problem.candidates)]
    for of_layer in chosen:
        model.add_exactly_one(of_layer)
    for quantity, limit in problem.limits.items():
        model.add(_sum(chosen, problem, quantity, limit * SLACK) <= PARTS)
    most = sum(map(max, problem.costs[problem.goal]))
    model.minimize(_sum(chosen, problem, problem.goal, most))
    _start(model, chosen, problem)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.relative_gap_limit = GAP
    solver.parameters.max_deterministic_time = EFFORT
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise problem.impossible_together()
    return tuple(next(c for c, v in enumerate(of_layer) if solver.boolean_value(v)) for of_layer in chosen)


def _sum(chosen: list[list[Any]], problem: Problem, quantity: str, whole: float) -> Any:
    """The sum of a quantity, in parts of `whole`; what alone is more than that is more by a part."""

    def parts(cost: float) -> int:
        return PARTS + 1 if cost > whole else round(cost / whole * PARTS) if whole else 0

    pairs = zip(chosen, problem.costs[quantity], strict=True)
    return sum(parts(c) * v for of_layer, costs in pairs for v, c in zip(of_layer, costs, strict=True))


def _start(model: Any, chosen: list[list[Any]], problem: Problem) -> None:
    """Tell CP-SAT the dynamic program's choice, if that found one."""
    try:
        known = dynamic.solve(problem)
    except BudgetError:  # with several limits merging may lose what keeps them
        return
    for of_layer, c in zip(chosen, known, strict=True):
        for n, variable in enumerate(of_layer):
            model.add_hint(variable, n == c)


def _cp_sat() -> Any:
    try:
        return importlib.import_module("ortools.sat.python.cp_model")
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"solver 'cp-sat' needs {error.name}: pip install 'effcc[budget]', or choose solver='dynamic'"
        ) from error
