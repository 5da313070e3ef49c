"""Index arithmetic as linear forms: sums of coefficients times atoms, plus a constant.

An atom is the name of an i64: a loop variable or a computed value. The current lane of a vector is the atom `LANE`;
an atom may itself be a vector of i64 lanes. What is known of an atom (its bounds, and what it is a multiple of) decides
floor divisions, remainders and comparisons at compile time wherever it can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from effcc.ir.dims import Dim, dim
from effcc.ir.vectors import Affine

LANE = "%lane"


@dataclass(frozen=True)
class Known:
    """What is known of an atom: bounds (both inclusive), and that it is `residue` modulo `modulus`."""

    low: int | None = None
    high: int | None = None
    modulus: int = 1
    residue: int = 0


@dataclass(frozen=True)
class Linear:
    """`sum(coefficient * atom) + constant`. `vectors` are the terms whose atoms are vectors of i64 lanes."""

    terms: tuple[tuple[str, Dim], ...] = ()
    constant: Dim = 0
    vectors: tuple[tuple[str, Dim], ...] = ()

    @property
    def lane(self) -> Dim:
        """The coefficient of the lane."""
        for atom, c in self.terms:
            if atom == LANE:
                return c
        return 0

    @property
    def is_uniform(self) -> bool:
        """Whether it is the same in every lane."""
        return self.lane == 0 and not self.vectors

    @property
    def base(self) -> Linear:
        """The part that is the same in every lane."""
        return Linear(tuple(t for t in self.terms if t[0] != LANE), self.constant)

    @property
    def value(self) -> int | None:
        """Its value, if it is a constant."""
        return self.constant if not self.terms and not self.vectors and isinstance(self.constant, int) else None


def plus(a: Linear, b: Linear) -> Linear:
    """a + b."""
    return Linear(_merge(a.terms, b.terms), add(a.constant, b.constant), _merge(a.vectors, b.vectors))


def times(a: Linear, factor: Dim) -> Linear:
    """a * factor."""
    if factor == 1:
        return a
    if factor == 0:
        return Linear()
    return Linear(_scaled(a.terms, factor), multiply(a.constant, factor), _scaled(a.vectors, factor))


def minus(a: Linear, b: Linear) -> Linear:
    """a - b."""
    return plus(a, times(b, -1))


def _merge(a: tuple[tuple[str, Dim], ...], b: tuple[tuple[str, Dim], ...]) -> tuple[tuple[str, Dim], ...]:
    if not a or not b:
        return a or b
    total = dict(a)
    for atom, coefficient in b:
        total[atom] = add(total.get(atom, 0), coefficient)
    return tuple((atom, c) for atom, c in total.items() if c != 0)


def _scaled(terms: tuple[tuple[str, Dim], ...], factor: Dim) -> tuple[tuple[str, Dim], ...]:
    return tuple([(atom, multiply(c, factor)) for atom, c in terms])


def add(a: Dim, b: Dim) -> Dim:
    """a + b."""
    return a + b if isinstance(a, int) and isinstance(b, int) else dim(a + b)


def multiply(a: Dim, b: Dim) -> Dim:
    """a * b."""
    return a * b if isinstance(a, int) and isinstance(b, int) else dim(a * b)


def combination(forms: Sequence[Linear], factors: Sequence[Dim]) -> Linear:
    """The sum of linear forms times factors."""
    terms: dict[str, Dim] = {}
    vectors: dict[str, Dim] = {}
    constant: Dim = 0
    for form, factor in zip(forms, factors, strict=True):
        constant = add(constant, multiply(form.constant, factor))
        for found, given in ((terms, form.terms), (vectors, form.vectors)):
            for atom, c in given:
                found[atom] = add(found.get(atom, 0), multiply(c, factor))
    left = [tuple([(atom, c) for atom, c in found.items() if c != 0]) for found in (terms, vectors)]
    return Linear(left[0], constant, left[1])


def bounds(a: Linear, known: Mapping[str, Known]) -> tuple[int | None, int | None]:
    """The lowest and highest value that `a` can take, None where unknown."""
    if a.vectors or not isinstance(a.constant, int):
        return None, None
    low: int | None = a.constant
    high: int | None = a.constant
    for atom, c in a.terms:
        k = known.get(atom)
        if k is None or not isinstance(c, int):
            return None, None
        least, most = (k.low, k.high) if c > 0 else (k.high, k.low)
        low = None if low is None or least is None else low + c * least
        high = None if high is None or most is None else high + c * most
    return low, high


def floor_division(a: Linear, divisor: int, known: Mapping[str, Known]) -> Linear | None:
    """floor(a / divisor) as a linear form, or None where that cannot be told."""
    split = _split(a, divisor)
    if split is None:
        return None
    quotient, rest = split
    low, high = bounds(rest, known)
    if low is None or high is None or low // divisor != high // divisor:
        return None
    return plus(quotient, Linear(constant=low // divisor))


def remainder(a: Linear, divisor: int, known: Mapping[str, Known]) -> Linear | None:
    """a - divisor * floor(a / divisor) as a linear form, or None where that cannot be told."""
    split = _split(a, divisor)
    if split is None:
        return None
    rest = split[1]
    low, high = bounds(rest, known)
    if low is None or high is None or low // divisor != high // divisor:
        return None
    return plus(rest, Linear(constant=-(low // divisor) * divisor))


def _split(a: Linear, divisor: int) -> tuple[Linear, Linear] | None:
    """a as divisor * quotient + rest: the terms that the divisor divides, and the others."""
    if a.vectors or not isinstance(a.constant, int) or not all(isinstance(c, int) for _, c in a.terms):
        return None
    whole = tuple((atom, int(c) // divisor) for atom, c in a.terms if int(c) % divisor == 0)
    rest = tuple((atom, c) for atom, c in a.terms if int(c) % divisor != 0)
    return Linear(whole, a.constant // divisor), Linear(rest, a.constant % divisor)


def fine_part(a: Linear, divisor: int, known: Mapping[str, Known]) -> tuple[Linear, Linear] | None:
    """a as coarse + fine, where floor(a / divisor) is floor(coarse / divisor) and fine holds the lane; None if not so.

    This is what makes a group index `(16*v + lane) // 32` the same for all lanes: the coarse part is a multiple of some
    g that divides the divisor, and the fine part lies in 0 .. g - 1.
    """
    if a.vectors or not isinstance(a.constant, int) or not all(isinstance(c, int) for _, c in a.terms):
        return None
    step, residue = divisor, 0
    coarse: list[tuple[str, Dim]] = []
    for atom, c in a.terms:
        if atom == LANE:
            continue
        k = known.get(atom, Known())
        step = math.gcd(step, int(c) * k.modulus)
        residue += int(c) * k.residue
        coarse.append((atom, c))
    start = (residue + a.constant) % step
    high = start + int(a.lane) * (known[LANE].high or 0)
    if a.lane == 0 or int(a.lane) < 0 or high >= step:
        return None
    fine = Linear(((LANE, a.lane),), start)
    return Linear(tuple(coarse), a.constant - start), fine


def multiple_part(a: Linear, divisor: int, known: Mapping[str, Known]) -> tuple[Linear, int] | None:
    """a as what is certainly a multiple of the divisor, plus a number; None if it is not so.

    With k in steps of 32, `(k + 3) // 2` is `k // 2 + 1`, whatever k, and `(k + 3) % 2` is 1.
    """
    if a.vectors or not isinstance(a.constant, int):
        return None
    for atom, c in a.terms:
        k = known.get(atom, Known())
        if atom == LANE or not isinstance(c, int) or c * k.modulus % divisor or c * k.residue % divisor:
            return None
    return Linear(a.terms), a.constant


def uniform(a: Linear) -> Affine:
    """The part of `a` that is the same in every lane."""
    for atom, _ in a.terms:
        if atom == LANE:
            return Affine(a.base.terms, a.constant)
    return Affine(a.terms, a.constant)


def of_atom(name: str) -> Linear:
    """The linear form that is one scalar atom."""
    return Linear(((name, 1),))


def of_vector(name: str) -> Linear:
    """The linear form that is one vector of i64 lanes."""
    return Linear(vectors=((name, 1),))


def shifted(a: Linear, constant: Dim) -> Linear:
    """a + constant."""
    return replace(a, constant=dim(a.constant + constant))
