"""The solver finds exactly what brute force finds, in the same order, and names what conflicts when there is
nothing.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import ScheduleError
from effcc.passes.tiling.constraints import Name, Problem, divisible
from effcc.passes.tiling.notation import parse_problem
from effcc.passes.tiling.solver import solutions, solve
from tests.passes.tiling.brute_force import brute_force, random_problem


def as_pairs(found):
    return [(s.cost, tuple(s.values.values())) for s in found]


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 10**9), variables=st.integers(1, 4), constraints=st.integers(0, 4), negative=st.booleans())
def test_every_solution_comes_out_in_order_of_cost_then_values(seed, variables, constraints, negative):
    problem = random_problem(Random(seed), variables, largest=5, constraints=constraints, negative=negative)
    expected = brute_force(problem)
    if not expected:
        with pytest.raises(ScheduleError, match="no schedule satisfies"):
            solve(problem)
    else:
        assert as_pairs(solve(problem, k=len(expected) + 1)) == expected


@pytest.mark.parametrize("seed", range(30))
def test_the_ten_best_equal_brute_force_on_wider_domains(seed):
    problem = random_problem(Random(seed), variables=3, largest=18, constraints=2)
    expected = brute_force(problem)
    if expected:
        assert as_pairs(solve(problem, k=10)) == expected[:10]
    else:
        with pytest.raises(ScheduleError):
            solve(problem)


def test_a_solution_needs_far_fewer_boxes_than_the_space_has_points():
    sizes = range(1, 61)
    problem = parse_problem(
        "a * b * c == 240; a + b + c <= 30; minimize a * a + b * b + c * c", {"a": sizes, "b": sizes, "c": sizes}
    )
    (best,) = solve(problem)
    assert (best.cost, dict(best.values)) == (5 * 5 + 6 * 6 + 8 * 8, {"a": 5, "b": 6, "c": 8})
    assert best.boxes < 200


def test_divisibility_between_variables_leaves_only_divisors():
    problem = Problem({"n": (7, 12), "k": tuple(range(2, 13))}, (divisible(Name("n"), Name("k")),))
    pairs = [tuple(s.values.values()) for s in solutions(problem)]
    assert pairs == [
        (7, 7),
        (12, 2),
        (12, 3),
        (12, 4),
        (12, 6),
        (12, 12),
    ]


def test_a_callable_cost_replaces_the_objective():
    problem = parse_problem("x * y <= 20", {"x": range(1, 10), "y": range(1, 10)})
    (best,) = solve(problem, cost_bound=lambda lo, hi: 1.0 / (hi[0] * hi[1]))
    assert dict(best.values) == {"x": 4, "y": 5}
    assert best.cost == 1 / 20


def test_infeasible_problems_name_a_set_of_constraints_that_conflicts_and_no_others():
    problem = parse_problem(
        "mr * nr / 16 <= registers; mr >= 9; nr >= 64; kc % 4 == 0",
        {"mr": range(1, 32), "nr": range(16, 97, 16), "kc": range(1, 65)},
        {"registers": 32},
    )
    with pytest.raises(ScheduleError) as error:
        solve(problem)
    message = str(error.value)
    assert "mr * nr / 16 <= registers" in message
    assert "mr >= 9" in message
    assert "nr >= 64" in message
    assert "registers = 32" in message
    assert "kc" not in message


def test_a_conflict_between_divisibilities_is_found():
    with pytest.raises(ScheduleError, match=r"x % 4 == 0\n  x % 2 == 1\nwhere"):
        solve(parse_problem("x % 4 == 0; x % 2 == 1; x >= 3", {"x": range(1, 60)}))


@pytest.mark.parametrize(
    ("text", "domains", "message"),
    [
        ("x <= y", {"x": range(3)}, "y in `x <= y` is neither a variable"),
        ("x / y <= 2", {"x": range(1, 3), "y": range(3)}, "divisor `y` in `x / y <= 2` may be zero"),
        ("x <= 2", {"x": ()}, "'x' has an empty domain"),
    ],
)
def test_problems_that_mean_nothing_are_refused(text, domains, message):
    with pytest.raises(ScheduleError) as error:
        solve(parse_problem(text, domains))
    assert message in str(error.value)


def test_the_work_is_bounded_and_says_so():
    problem = parse_problem("x * y * z % 97 == 1", {v: range(1, 90) for v in "xyz"})
    with pytest.raises(ScheduleError, match="after 5 boxes over the variables x, y, z"):
        list(solutions(problem, max_boxes=5))
