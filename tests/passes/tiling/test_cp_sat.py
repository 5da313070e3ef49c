"""On larger problems, where brute force ends, the optimum equals that of OR-tools' CP-SAT."""

from __future__ import annotations

from random import Random

import pytest

from effcc.errors import ScheduleError
from effcc.passes.tiling.constraints import Problem, evaluate, holds
from effcc.passes.tiling.notation import parse_problem
from effcc.passes.tiling.solver import solve
from tests.passes.tiling.brute_force import random_problem

cp_sat = pytest.importorskip("tests.passes.tiling.cp_sat", reason="OR-tools is not installed")

GEMM = """
    mr * nr / lanes + nr / lanes + 1 <= registers
    kc % unroll == 0 ; k % kc == 0 ; mc % mr == 0
    4 * (mc * kc + kc * nr) <= l2
    n % nr == 0 or padded == 1
    tasks = ceil(m / mc) * ceil(n / nr)
    tasks >= threads
    step = max(mr * nr / lanes, mr + nr / lanes, 10)
    compute = ceil(tasks / threads) * ceil(mc / mr) * (k * step + ceil(k / kc) * (60 + mr) + k / unroll)
    traffic = ceil(m / mc) * n * k * 4 / 40 + m * k * ceil(n / nr) * 4 / 60
    minimize max(compute, traffic) + min(compute, traffic) / 8 + padded * (round_up(n, nr) - n)
"""


def optimum(problem: Problem) -> float | None:
    try:
        (best,) = solve(problem)
    except ScheduleError:
        return None
    values = {**problem.parameters, **best.values}
    assert all(holds(c, values) for c in problem.constraints)
    assert evaluate(problem.objective, values) == best.cost
    return best.cost


def gemm_problem(seed: int) -> Problem:
    random = Random(seed)
    m, n, k = (random.choice([24, 49, 64, 96, 100, 128, 192, 384]) for _ in range(3))
    lanes = random.choice([4, 8, 16])
    return parse_problem(
        GEMM,
        {
            "mr": range(1, 31),
            "nr": range(lanes, 6 * lanes + 1, lanes),
            "mc": [c for c in range(1, m + 1) if c <= 40 or m % c == 0],
            "kc": [d for d in range(1, k + 1) if k % d == 0],
            "unroll": (1, 2, 4, 8),
            "threads": (1, 2, 4),
            "padded": (0, 1),
        },
        {
            "m": m,
            "n": n,
            "k": k,
            "lanes": lanes,
            "registers": random.choice([16, 32]),
            "l2": 1 << random.randint(13, 18),
        },
    )


def assert_same_optimum(problem: Problem, seed: int) -> None:
    ours = optimum(problem)
    # CP-SAT proves its optimum in a fraction of the time when it may start from the cost of some solution.
    some_cost = None if ours is None else int(ours) + abs(int(ours)) // 20 + 1
    theirs = cp_sat.cp_sat_optimum(problem, at_most=some_cost)
    assert ours == theirs, f"seed {seed}"


@pytest.mark.parametrize("start", range(0, 120, 20))
def test_tiling_problems_have_the_optimum_that_cp_sat_finds(start):
    for seed in range(start, start + 20):
        assert_same_optimum(gemm_problem(seed), seed)


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_random_problems_have_the_optimum_that_cp_sat_finds(start):
    for seed in range(start, start + 50):
        assert_same_optimum(random_problem(Random(seed), variables=5, largest=30, constraints=3), seed)
