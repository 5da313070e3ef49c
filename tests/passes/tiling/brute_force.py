"""Random problems and the plainest way to solve them, which the solver must agree with."""

from __future__ import annotations

import itertools
from random import Random

from effcc.passes.tiling.constraints import (
    AllOf,
    AnyOf,
    Compare,
    Constraint,
    Expr,
    Name,
    Number,
    Op,
    Problem,
    evaluate,
    holds,
)


def brute_force(problem: Problem) -> list[tuple[int, tuple[int, ...]]]:
    """Every solution as (cost, values in the order of the domains), best first."""
    found = []
    for values in itertools.product(*problem.domains.values()):
        names = dict(zip(problem.domains, values, strict=True)) | dict(problem.parameters)
        if all(holds(c, names) for c in problem.constraints):
            found.append((evaluate(problem.objective, names), values))
    return sorted(found)


def random_expr(random: Random, leaves: list[Expr], depth: int) -> Expr:
    """An expression whose divisors are leaves (which are positive)."""
    if depth == 0 or random.random() < 0.2:
        return random.choice(leaves)
    kind = random.choice(["+", "-", "*", "*", "/", "%", "ceil", "round_up", "min", "max"])
    first = random_expr(random, leaves, depth - 1)
    divides = kind in ("/", "%", "ceil", "round_up")
    second = random.choice(leaves) if divides else random_expr(random, leaves, depth - 1)
    return Op(kind, (first, second))


def random_constraint(random: Random, leaves: list[Expr], depth: int = 2) -> Constraint:
    """A comparison, a divisibility, or a combination of two."""
    roll = random.random()
    if depth > 0 and roll < 0.2:
        combine = AnyOf if roll < 0.13 else AllOf
        return combine(tuple(random_constraint(random, leaves, depth - 1) for _ in range(2)))
    if roll < 0.45:
        return Compare("==", Op("%", (random.choice(leaves), random.choice(leaves))), Number(0))
    relation = random.choice(["<=", "<=", ">=", "<", ">", "=="])
    return Compare(relation, random_expr(random, leaves, 2), random_expr(random, leaves, 1))


def random_problem(random: Random, variables: int, largest: int, constraints: int, negative: bool = False) -> Problem:
    """A problem with a few variables whose divisors are all positive; `negative` adds a variable that may be below
    zero."""
    domains = {}
    for i in range(variables):
        count = random.randint(1, largest)
        domains[f"x{i}"] = tuple(sorted(random.sample(range(1, 2 * largest + 1), count)))
    parameters = {"p": random.randint(1, 12), "q": random.randint(1, 40)}
    leaves: list[Expr] = [Name(n) for n in domains] * 2 + [Name(n) for n in parameters] + [Number(random.randint(1, 9))]
    conditions = tuple(random_constraint(random, leaves) for _ in range(constraints))
    objective = random_expr(random, leaves, 3)
    if negative:
        domains["s"] = tuple(range(-3, random.randint(-2, 4)))
        objective = Op("+", (objective, Op(random.choice(["*", "-", "min"]), (Name("s"), random.choice(leaves)))))
        signed = random_expr(random, [*leaves, Name("s")], 0)
        conditions += (Compare("<=", Op("*", (Name("s"), random.choice(leaves))), signed),)
    return Problem(domains, conditions, objective, parameters)
