"""The choice as an integer program: of each layer's candidates one, its sums within limits, one sum as small as can be.

    minimize    sum over layers l of  cost[goal][l][choice[l]]
    such that   sum over layers l of  cost[q][l][choice[l]]  <=  limits[q]     for each q that is limited

Costs are bytes, seconds and error. A choice is a tuple: the number of a candidate for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from effcc.errors import BudgetError

Choice = tuple[int, ...]
Costs = tuple[tuple[float, ...], ...]
"""A number for each candidate of each layer."""

SLACK = 1 + 1e-12
"""By what factor a sum of floats may exceed its limit: its own rounding."""


@dataclass(frozen=True)
class Problem:
    """What is to be chosen."""

    costs: Mapping[str, Costs]
    goal: str
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def candidates(self) -> tuple[int, ...]:
        """How many each layer has."""
        return tuple(map(len, self.costs[self.goal]))

    def total(self, quantity: str, choice: Choice) -> float:
        """The sum of one quantity."""
        return sum(of_layer[c] for of_layer, c in zip(self.costs[quantity], choice, strict=True))

    def keeps_limits(self, choice: Choice) -> bool:
        """Whether a choice's sums are within all limits."""
        return all(self.total(q, choice) <= limit * SLACK for q, limit in self.limits.items())

    def least(self, quantity: str) -> Choice:
        """The choice of least `quantity`, of equal ones the better by the goal."""
        pairs = zip(self.costs[quantity], self.costs[self.goal], strict=True)
        return tuple(min(range(len(own)), key=lambda c: (own[c], goal[c])) for own, goal in pairs)

    def require_possible(self) -> None:
        """Raise BudgetError for a limit that no choice keeps."""
        for quantity, limit in self.limits.items():
            least = self.total(quantity, self.least(quantity))
            if least > limit * SLACK:
                raise BudgetError(f"no choice has {quantity} <= {limit:.9g}: the least possible is {least:.9g}")

    def impossible_together(self) -> BudgetError:
        """The error for limits each of which can be kept, but not all."""
        ends = (
            f"with the least {q} ({self.total(q, self.least(q)):.9g}) "
            + ", ".join(f"{o} is {self.total(o, self.least(q)):.9g}" for o in self.limits if o != q)
            for q in self.limits
        )
        wanted = " and ".join(f"{q} <= {limit:.9g}" for q, limit in self.limits.items())
        return BudgetError(f"no choice was found that has {wanted}: {'; '.join(ends)}")
