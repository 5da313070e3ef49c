"""Propagators: each removes values that its constraint rules out, given what is left of the other variables' domains.

A box holds, for every variable, a bit mask over its domain (what is left) and the least and greatest value left.
Propagators work on boxes in place and say which variables changed, or that nothing is left:

- `LessEqual` evaluates an interval bound of `lhs - rhs`. Where that bound reads only one end of a variable's interval
  it is monotone in the variable, and the first infeasible value is found by bisection; otherwise values are shaved off
  the ends, and the last open variable is filtered value by value.
- `Divides`, for `x % k == 0` between variables or numbers, keeps exactly the divisors and multiples that have a partner
  left.
- `Disjunction` enforces the last alternative that is still possible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from effcc.passes.tiling.constraints import AllOf, AnyOf, Compare, Constraint, Domain, Expr, Name, Number, Op
from effcc.passes.tiling.intervals import Bound, bound

_MOST_SHAVED = 2
"""With more open variables than this, trying the ends of each one costs more than it removes."""


class Box:
    """What is left of the domains. `masks[i]` has bit j set when `domains[i][j]` is left; `lo`, `hi` are the ends."""

    __slots__ = ("domains", "hi", "lo", "masks")

    def __init__(self, domains: Sequence[Domain], masks: list[int], lo: list[int], hi: list[int]) -> None:
        self.domains, self.masks, self.lo, self.hi = domains, masks, lo, hi

    @staticmethod
    def full(domains: Sequence[Domain]) -> Box:
        """The box in which nothing has been removed."""
        return Box(domains, [(1 << len(d)) - 1 for d in domains], [d[0] for d in domains], [d[-1] for d in domains])

    def restricted(self, i: int, mask: int) -> Box:
        """A copy with variable `i` restricted to a (non-empty) mask."""
        copy = Box(self.domains, self.masks.copy(), self.lo.copy(), self.hi.copy())
        copy.restrict(i, mask)
        return copy

    def restrict(self, i: int, mask: int) -> bool:
        """Set variable `i`'s mask and ends; False when the mask is empty."""
        if not mask:
            return False
        domain = self.domains[i]
        self.masks[i] = mask
        self.lo[i] = domain[(mask & -mask).bit_length() - 1]
        self.hi[i] = domain[mask.bit_length() - 1]
        return True


class Propagator(Protocol):
    """One constraint, compiled for one problem."""

    @property
    def variables(self) -> frozenset[int]:
        """The variables it depends on, by index."""
        ...

    def possible(self, box: Box) -> bool:
        """False only if no assignment in the box satisfies the constraint; exact when all its variables are fixed."""
        ...

    def narrow(self, box: Box) -> list[int] | None:
        """Remove impossible values; the variables changed, or None when nothing is left."""
        ...


def filter_values(propagator: Propagator, box: Box) -> bool:
    """Settle a constraint over one variable (or none) for good: keep just the values that satisfy it; False for
    none.
    """
    if not propagator.variables:
        return propagator.possible(box)
    (i,) = propagator.variables
    domain, mask, lo, hi = box.domains[i], box.masks[i], box.lo, box.hi
    kept = 0
    for j in range(mask.bit_length()):
        if mask >> j & 1:
            lo[i] = hi[i] = domain[j]
            kept |= propagator.possible(box) << j
    return box.restrict(i, kept)


class LessEqual:
    """`difference <= 0`."""

    def __init__(self, lower: Bound, upper: Bound) -> None:
        self._least, self._most = lower.function, upper.function
        self._increasing = sorted(lower.reads_lower - lower.reads_upper)
        self._decreasing = sorted(lower.reads_upper - lower.reads_lower)
        self._mixed = sorted(lower.reads_lower & lower.reads_upper)
        self.variables = lower.reads_lower | lower.reads_upper

    def possible(self, box: Box) -> bool:
        return self._least(box.lo, box.hi) <= 0

    def narrow(self, box: Box) -> list[int] | None:
        lo, hi = box.lo, box.hi
        if self._least(lo, hi) > 0:
            return None
        if self._most(lo, hi) <= 0:
            return []
        changed = [i for i in self._increasing if lo[i] != hi[i] and self._cut_high(box, i)]
        changed += [i for i in self._decreasing if lo[i] != hi[i] and self._cut_low(box, i)]
        if len(open_mixed := [i for i in self._mixed if lo[i] != hi[i]]) <= _MOST_SHAVED:
            for i in open_mixed:
                before = box.masks[i]
                last = all(lo[j] == hi[j] for j in self.variables if j != i)
                if not (self._filter(box, i) if last else self._shave(box, i)):
                    return None
                if box.masks[i] != before:
                    changed.append(i)
        return changed

    def _with(self, box: Box, i: int, value: int) -> int:
        """The least difference when variable `i` is fixed to a value."""
        lo, hi = box.lo, box.hi
        old_lo, old_hi = lo[i], hi[i]
        lo[i] = hi[i] = value
        least = self._least(lo, hi)
        lo[i], hi[i] = old_lo, old_hi
        return least

    def _cut_high(self, box: Box, i: int) -> bool:
        if self._with(box, i, box.hi[i]) <= 0:
            return False
        mask = box.masks[i]
        _, beyond = self._bisect(box, i, (mask & -mask).bit_length() - 1, mask.bit_length() - 1)
        return box.restrict(i, mask & ((1 << beyond) - 1))

    def _cut_low(self, box: Box, i: int) -> bool:
        if self._with(box, i, box.lo[i]) <= 0:
            return False
        mask = box.masks[i]
        first, _ = self._bisect(box, i, mask.bit_length() - 1, (mask & -mask).bit_length() - 1)
        return box.restrict(i, mask >> first << first)

    def _bisect(self, box: Box, i: int, good: int, bad: int) -> tuple[int, int]:
        """The neighbours in the domain between `good` and `bad`, in this order, where a monotone constraint turns."""
        while abs(bad - good) > 1:
            middle = (good + bad) // 2
            if self._with(box, i, box.domains[i][middle]) <= 0:
                good = middle
            else:
                bad = middle
        return good, bad

    def _shave(self, box: Box, i: int) -> bool:
        while self._with(box, i, box.hi[i]) > 0:
            if not box.restrict(i, box.masks[i] ^ (1 << (box.masks[i].bit_length() - 1))):
                return False
        while self._with(box, i, box.lo[i]) > 0:
            if not box.restrict(i, box.masks[i] & (box.masks[i] - 1)):
                return False
        return True

    def _filter(self, box: Box, i: int) -> bool:
        domain, mask, kept = box.domains[i], box.masks[i], 0
        for j in range(mask.bit_length()):
            if mask >> j & 1 and self._with(box, i, domain[j]) <= 0:
                kept |= 1 << j
        return box.restrict(i, kept)


class Conjunction:
    """All of the parts hold."""

    def __init__(self, parts: Sequence[Propagator]) -> None:
        self._parts = parts
        self.variables = frozenset().union(*(p.variables for p in parts))

    def possible(self, box: Box) -> bool:
        return all(p.possible(box) for p in self._parts)

    def narrow(self, box: Box) -> list[int] | None:
        changed: list[int] = []
        for p in self._parts:
            more = p.narrow(box)
            if more is None:
                return None
            changed += more
        return changed


class Disjunction:
    """At least one of the parts holds."""

    def __init__(self, parts: Sequence[Propagator]) -> None:
        self._parts = parts
        self.variables = frozenset().union(*(p.variables for p in parts))

    def possible(self, box: Box) -> bool:
        return any(p.possible(box) for p in self._parts)

    def narrow(self, box: Box) -> list[int] | None:
        alive = [p for p in self._parts if p.possible(box)]
        if len(alive) == 1:
            return alive[0].narrow(box)
        return [] if alive else None


@dataclass(frozen=True, slots=True)
class Divides:
    """`x % k == 0` for two different variables: `divisors[j]` masks the k's that divide the j-th x, `multiples` the
    reverse."""

    x: int
    k: int
    divisors: tuple[int, ...]
    multiples: tuple[int, ...]

    @property
    def variables(self) -> frozenset[int]:
        return frozenset((self.x, self.k))

    def possible(self, box: Box) -> bool:
        return _partners(self.divisors, box.masks[self.x], box.masks[self.k]) != 0

    def narrow(self, box: Box) -> list[int] | None:
        changed = []
        xs = _partners(self.divisors, box.masks[self.x], box.masks[self.k])
        if xs != box.masks[self.x]:
            if not box.restrict(self.x, xs):
                return None
            changed.append(self.x)
        ks = _partners(self.multiples, box.masks[self.k], xs)
        if ks != box.masks[self.k]:
            box.restrict(self.k, ks)
            changed.append(self.k)
        return changed


def _partners(table: tuple[int, ...], mask: int, other: int) -> int:
    kept = 0
    for j in range(mask.bit_length()):
        if mask >> j & 1 and table[j] & other:
            kept |= 1 << j
    return kept


@lru_cache(maxsize=256)
def _divisor_tables(xs: Domain, ks: Domain) -> tuple[tuple[int, ...], tuple[int, ...]]:
    divisors = [sum(1 << j for j, k in enumerate(ks) if x % k == 0) for x in xs]
    multiples = [sum(1 << i for i, x in enumerate(xs) if x % k == 0) for k in ks]
    return tuple(divisors), tuple(multiples)


class Compiler:
    """Compiles the constraints of one problem into propagators."""

    def __init__(self, domains: Mapping[str, Domain], parameters: Mapping[str, int]) -> None:
        self._domains = domains
        self._parameters = parameters
        self._names = tuple(domains)
        self.signed = frozenset(n for n, d in domains.items() if d[0] < 0) | {n for n, v in parameters.items() if v < 0}

    def bound(self, e: Expr, side: str) -> Bound:
        """A bound of an expression over this problem's variables."""
        return bound(e, "lower" if side == "lower" else "upper", self._names, self._parameters, self.signed)

    def propagator(self, c: Constraint) -> Propagator:
        """The propagator of a constraint."""
        match c:
            case AllOf(parts):
                return Conjunction([self.propagator(p) for p in parts])
            case AnyOf(parts):
                return Disjunction([self.propagator(p) for p in parts])
            case Compare("<=", lhs, rhs):
                return self._less_equal(lhs, rhs)
            case Compare(">=", lhs, rhs):
                return self._less_equal(rhs, lhs)
            case Compare("<", lhs, rhs):
                return self._less_equal(lhs + 1, rhs)
            case Compare(">", lhs, rhs):
                return self._less_equal(rhs + 1, lhs)
            case Compare("==", Op("%", (Name(x), Name(k))), Number(0)) if x != k and {x, k} <= self._domains.keys():
                tables = _divisor_tables(self._domains[x], self._domains[k])
                return Divides(self._names.index(x), self._names.index(k), *tables)
            case Compare("==", lhs, rhs):
                both: list[Propagator] = [self._less_equal(lhs, rhs), self._less_equal(rhs, lhs)]
                return Conjunction(both + [self.propagator(d) for d in self._implied_divisors(lhs, rhs)])
        raise TypeError(f"not a constraint: {c!r}")

    def _less_equal(self, lhs: Expr, rhs: Expr) -> LessEqual:
        difference = lhs - rhs
        return LessEqual(self.bound(difference, "lower"), self.bound(difference, "upper"))

    def _implied_divisors(self, lhs: Expr, rhs: Expr) -> list[Constraint]:
        """`x * rest == e` implies `e % x == 0`, when x is a positive variable and e is a single name or number."""
        implied: list[Constraint] = []
        for one, other in ((lhs, rhs), (rhs, lhs)):
            if isinstance(other, Name | Number):
                for factor in _factors(one):
                    if isinstance(factor, Name) and self._domains.get(factor.name, (0,))[0] > 0 and factor != other:
                        implied.append((other % factor).equals(0))
        return implied


def _factors(e: Expr) -> list[Expr]:
    if isinstance(e, Op) and e.kind == "*":
        return [f for a in e.args for f in _factors(a)]
    return [e]
