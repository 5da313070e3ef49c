"""Best-first branch and bound over integer problems.

The frontier is a heap of boxes ordered by (lower bound of the objective, lexicographically least point). Popping a box
that is a single point yields the next best solution; any other box is split in two along its first open variable and
both halves are propagated. A box's key never exceeds the key of a solution inside it, so solutions come out exactly in
order of (cost, assignment): the second and third best cost little more than the best, and equal problems give equal
answers anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import islice, pairwise

from effcc.errors import ScheduleError
from effcc.passes.tiling.constraints import Constraint, Expr, Number, Problem, divisors_in, names_in
from effcc.passes.tiling.propagation import Box, Compiler, Propagator, filter_values

CostBound = Callable[[Sequence[int], Sequence[int]], float]
"""Of two lists, the variables' least and greatest values: a number that no solution between them costs less than, and
exactly the cost where both lists are equal."""

MAX_BOXES = 1_000_000
"""Boxes to look at before giving up with an error, instead of searching for minutes."""
_CONFLICT_BOXES = 2_000
"""Boxes to look at for each set of constraints that an error message would name."""


@dataclass(frozen=True, slots=True)
class Solution:
    """An assignment that satisfies every constraint, and what it costs."""

    values: Mapping[str, int]
    cost: float
    boxes: int
    """How many boxes had been opened when this solution came out."""


def solve(problem: Problem, k: int = 1, cost_bound: CostBound | None = None) -> list[Solution]:
    """The `k` best solutions, best first; fewer when there are no more.

    Args:
        problem: domains, constraints and objective.
        k: how many solutions to return.
        cost_bound: replaces the problem's objective by a callable cost.

    Raises:
        ScheduleError: no assignment satisfies all constraints; the message names a set of them that conflict.

    >>> from effcc.passes.tiling.notation import parse_problem
    >>> problem = parse_problem("a * b == 24; a <= b; minimize b - a", {"a": range(1, 25), "b": range(1, 25)})
    >>> [dict(s.values) for s in solve(problem, k=2)]
    [{'a': 4, 'b': 6}, {'a': 3, 'b': 8}]
    """
    return list(islice(solutions(problem, cost_bound), k))


def solutions(problem: Problem, cost_bound: CostBound | None = None, max_boxes: int = MAX_BOXES) -> Iterator[Solution]:
    """Solutions of a problem one by one, in order of (cost, assignment). Arguments and errors as in `solve`.

    `max_boxes` bounds the work: when that many boxes have been opened, ScheduleError says so.
    """
    found = False
    for solution in _search(problem, cost_bound, max_boxes):
        found = True
        yield solution
    if not found:
        raise ScheduleError(_explain_conflict(problem))


def _search(problem: Problem, cost_bound: CostBound | None, max_boxes: int) -> Iterator[Solution]:
    _check(problem)
    names, domains = tuple(problem.domains), tuple(problem.domains.values())
    compiler = Compiler(problem.domains, problem.parameters)
    bound: CostBound = cost_bound or compiler.bound(problem.objective, "lower").function
    frontier: list[tuple[float, list[int], Box]] = []
    root = Box.full(domains)
    propagators = [compiler.propagator(c) for c in problem.constraints]
    shared = [p for p in propagators if len(p.variables) > 1]
    propagate = _Propagation(shared, len(domains))
    if all(filter_values(p, root) for p in propagators if p not in shared) and propagate(root, propagate.all):
        heappush(frontier, (bound(root.lo, root.hi), root.lo, root))
    opened = 0
    while frontier:
        cost, _, box = heappop(frontier)
        opened += 1
        if opened > max_boxes:
            raise ScheduleError(
                f"tiling: no best schedule known after {max_boxes} boxes over the variables {', '.join(names)}; "
                "make the domains smaller or the constraints tighter"
            )
        branch = next((i for i, low in enumerate(box.lo) if low != box.hi[i]), None)
        if branch is None:
            yield Solution(dict(zip(names, box.lo, strict=True)), cost, opened)
            continue
        for mask in _halves(box.masks[branch]):
            half = box.restricted(branch, mask)
            if propagate(half, propagate.watchers[branch]):
                # A part never costs less than the whole: keeps the order even where a bound is not monotone.
                heappush(frontier, (max(cost, bound(half.lo, half.hi)), half.lo, half))


class _Propagation:
    """Runs propagators until none of them changes the box."""

    def __init__(self, propagators: Sequence[Propagator], variables: int) -> None:
        self._propagators = propagators
        self.all = range(len(propagators))
        self.watchers = [[j for j, p in enumerate(propagators) if i in p.variables] for i in range(variables)]

    def __call__(self, box: Box, wake: Sequence[int]) -> bool:
        """Narrow the box in place, starting from the propagators `wake`; False when nothing is left."""
        queue = deque(wake)
        waiting = set(wake)
        while queue:
            current = queue.popleft()
            waiting.discard(current)
            changed = self._propagators[current].narrow(box)
            if changed is None:
                return False
            for i in changed:
                for j in self.watchers[i]:
                    if j not in waiting:
                        waiting.add(j)
                        queue.append(j)
        return True


def _halves(mask: int) -> tuple[int, int]:
    """A mask with two or more bits as its lower and its upper half."""
    low, high = (mask & -mask).bit_length() - 1, mask.bit_length() - 1
    cut = (low + high + 1) // 2
    lower = mask & ((1 << cut) - 1)
    return lower, mask ^ lower


def _check(problem: Problem) -> None:
    """Refuse a problem that cannot be evaluated: empty or unsorted domains, unknown names, divisors that may be
    zero.
    """
    for name, domain in problem.domains.items():
        if not domain:
            raise ScheduleError(f"tiling: variable {name!r} has an empty domain")
        if any(a >= b for a, b in pairwise(domain)):
            raise ScheduleError(f"tiling: the domain of {name!r} must be ascending without repetitions, got {domain}")
        if name in problem.parameters:
            raise ScheduleError(f"tiling: {name!r} is both a variable and a parameter")
    known = problem.domains.keys() | problem.parameters.keys()
    compiler = Compiler(problem.domains, problem.parameters)
    root = Box.full(tuple(problem.domains.values()))
    nodes: tuple[Expr | Constraint, ...] = (*problem.constraints, problem.objective)
    for node in nodes:
        if unknown := sorted(names_in(node) - known):
            raise ScheduleError(
                f"tiling: {', '.join(unknown)} in `{node}` is neither a variable ({', '.join(problem.domains)}) "
                f"nor a parameter ({', '.join(sorted(problem.parameters))})"
            )
    for node in nodes:
        for divisor in divisors_in(node):
            if compiler.bound(divisor, "lower").function(root.lo, root.hi) < 1:
                raise ScheduleError(f"tiling: the divisor `{divisor}` in `{node}` may be zero or negative")


def _explain_conflict(problem: Problem) -> str:
    """Name constraints that cannot hold together: drop each in turn for as long as the rest provably still
    conflicts.
    """
    core: list[Constraint] = list(problem.constraints)
    for c in problem.constraints:
        rest = [other for other in core if other is not c]
        if _infeasible(replace(problem, constraints=tuple(rest), objective=Number(0))):
            core = rest
    used = {name for c in core for name in names_in(c)}
    lines = [f"  {problem.text(c)}" for c in core]
    ranges = [f"  {n} in {_range(d)}" for n, d in problem.domains.items() if n in used]
    numbers = [f"  {n} = {problem.parameters[n]}" for n in sorted(used & problem.parameters.keys())]
    return "\n".join(["tiling: no schedule satisfies these constraints together:", *lines, "where", *ranges, *numbers])


def _infeasible(problem: Problem) -> bool:
    """Whether a problem is found to have no solution within a small budget."""
    try:
        return next(_search(problem, None, _CONFLICT_BOXES), None) is None
    except ScheduleError:
        return False


def _range(domain: Sequence[int]) -> str:
    return str(list(domain)) if len(domain) <= 6 else f"[{domain[0]}, {domain[1]}, ..., {domain[-1]}]"
