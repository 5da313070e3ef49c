"""Solvers of the choice: against every choice tried, within limits, and clear where there is none."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.budget.problem import Choice, Problem
from effcc.budget.solvers import dynamic, evolutionary, integer
from effcc.errors import BudgetError

SOLVERS: dict[str, Callable[[Problem], Choice]] = {"cp-sat": integer.solve, "dynamic": dynamic.solve}
every_solver = pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to four layers of up to four candidates, limits between the least and the most."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))

    def costs(numbers: st.SearchStrategy[float]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(draw(numbers) for _ in range(count)) for count in counts)

    found = {
        "bytes": costs(st.integers(0, 1000).map(float)),
        "seconds": costs(st.floats(1e-9, 1e-3)),
        "error": costs(st.floats(0, 1)),
    }
    limits = {}
    for quantity in draw(st.sampled_from((["bytes"], ["seconds"], ["bytes", "seconds"]))):
        low, high = (sum(f(of_layer) for of_layer in found[quantity]) for f in (min, max))
        limits[quantity] = low + draw(st.floats(0, 1)) * (high - low)
    return Problem(found, "error", limits)


def best(problem: Problem) -> float:
    """The least goal of all choices within the limits; infinite where there is none."""
    every = itertools.product(*map(range, problem.candidates))
    return min((problem.total(problem.goal, c) for c in every if problem.keeps_limits(c)), default=float("inf"))


@given(problem=problems())
@settings(max_examples=60, deadline=None)
def test_cp_sat_finds_the_optimum_or_proves_that_there_is_no_choice(problem: Problem) -> None:
    expected = best(problem)
    try:
        choice = integer.solve(problem)
    except BudgetError:
        assert expected == float("inf")
        return
    assert problem.keeps_limits(choice)
    assert problem.total("error", choice) <= expected * (1 + 2 * integer.GAP) + 1e-12


@given(problem=problems())
@settings(max_examples=60, deadline=None)
def test_the_dynamic_program_keeps_limits_and_with_one_limit_is_near_the_optimum(problem: Problem) -> None:
    expected = best(problem)
    try:
        choice = dynamic.solve(problem)
    except BudgetError:
        assert expected == float("inf") or len(problem.limits) > 1
        return
    assert problem.keeps_limits(choice)
    assert problem.total("error", choice) >= expected
    if len(problem.limits) == 1:
        # Merging loses at most a cell a layer: no worse than the optimum of a limit that much smaller.
        ((quantity, limit),) = problem.limits.items()
        smaller = limit * (1 - len(problem.candidates) / dynamic.CELLS)
        assert problem.total("error", choice) <= best(Problem(problem.costs, "error", {quantity: smaller}))


def test_the_front_holds_the_ends_and_nothing_that_is_dominated() -> None:
    problem = Problem({"bytes": ((8.0, 4.0, 5.0), (8.0, 1.0)), "error": ((0.0, 3.0, 4.0), (0.0, 1.0))}, "error")
    found = [(problem.total("bytes", c), problem.total("error", c)) for c in dynamic.front(problem, "bytes")]
    assert sorted(found) == [(5.0, 4.0), (9.0, 1.0), (16.0, 0.0)]


@every_solver
def test_an_impossible_budget_says_what_the_least_possible_is(solve: Callable[[Problem], Choice]) -> None:
    problem = Problem({"bytes": ((8.0, 4.0), (8.0, 1.0)), "error": ((0.0, 3.0), (0.0, 1.0))}, "error", {"bytes": 4.9})
    with pytest.raises(BudgetError, match=r"bytes <= 4\.9.* least possible is 5"):
        solve(problem)


@every_solver
def test_budgets_that_cannot_be_kept_together_say_what_each_costs(solve: Callable[[Problem], Choice]) -> None:
    costs = {"bytes": ((8.0, 4.0),), "seconds": ((1.0, 2.0),), "error": ((0.0, 1.0),)}
    with pytest.raises(BudgetError, match=r"least bytes \(4\) seconds is 2; with the least seconds \(1\) bytes is 8"):
        solve(Problem(costs, "error", {"bytes": 5.0, "seconds": 1.5}))


def test_the_evolutionary_search_finds_what_adding_up_misses() -> None:
    # Each layer's own error says: store the first. Together with the second, which must be stored, it is the worst.
    costs = {"bytes": ((4.0, 1.0),) * 3, "error": ((0.0, 1.0), (0.0, 0.5), (0.0, 2.0))}
    problem = Problem(costs, "error", {"bytes": 6.0})

    def measure(choice: Choice) -> float:
        return problem.total("error", choice) + 10 * (choice[0] and choice[1])

    assert dynamic.solve(problem) == (1, 1, 0)
    assert evolutionary.solve(problem, measure) == (0, 1, 1)


def test_the_evolutionary_search_keeps_a_limit_of_the_measured_error() -> None:
    costs = {"bytes": ((4.0, 1.0),) * 3, "error": ((0.0, 1.0),) * 3}
    problem = Problem(costs, "bytes", {"error": 2.0})
    choice = evolutionary.solve(problem, lambda c: 1.5 * sum(c))
    assert sum(choice) == 1
