"""Conditions on attributes and numbers, some of them beside the tensor they are about."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from effcc.ir.dims import same
from effcc.ir.dims import same_shape as shapes_equal
from effcc.ir.dtypes import BOUNDED, DTYPES, DType, bf16, boolean, f16, f32, f64
from effcc.ir.graph import Value
from effcc.passes.rules.condition import Conditions, nothing
from effcc.passes.rules.constants import as_held
from effcc.passes.rules.functions import normalized
from effcc.passes.rules.language import Expression, Name, Tensor

if TYPE_CHECKING:
    from effcc.passes.rules.instances import Draft
    from effcc.passes.rules.matching import Facts

CONDITIONS = Conditions()


def _set_equal(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    a, b = args
    if isinstance(a, Name):
        draft.scalars[a.name] = draft.value(b)
    elif isinstance(b, Name):
        draft.scalars[b.name] = draft.value(a)


@CONDITIONS.enter(_set_equal)
def equal(facts: Facts, a: Any, b: Any) -> bool:
    """Two attributes or numbers are equal."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(
            same(x, y) if not isinstance(x, tuple) else x == y for x, y in zip(a, b, strict=True)
        )
    return bool(a == b)


def _identity(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    (p,) = args
    if isinstance(p, Name):
        draft.scalars[p.name] = tuple(range(len(draft.scalars[p.name])))


@CONDITIONS.enter(_identity)
def identity_permutation(facts: Facts, p: tuple[int, ...]) -> bool:
    """p leaves every axis where it is."""
    return p == tuple(range(len(p)))


def _zeros(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    for a in args:
        if isinstance(a, Name):
            draft.scalars[a.name] = (0,) * len(draft.scalars[a.name])


@CONDITIONS.enter(_zeros)
def all_zero(facts: Facts, entries: tuple[Any, ...]) -> bool:
    """Every entry is 0."""
    return all(e == 0 for e in entries)


def _all_ones(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    x, p = args
    if isinstance(x, Tensor) and isinstance(p, Name) and x.name in draft.tensors:
        t = draft.tensors[x.name]
        kept = random.randrange(t.rank) if t.rank else 0
        draft.tensors[x.name] = replace(t, shape=tuple(d if i == kept else 1 for i, d in enumerate(t.shape)))
        draft.keep(x.name)


@CONDITIONS.enter(_all_ones)
def moves_only_ones(facts: Facts, x: Value, p: tuple[int, ...]) -> bool:
    """The permutation keeps the axes of x that are not of size 1 in their order."""
    wide = [a for a in p if x.type.shape[a] != 1]
    return wide == sorted(wide)


def _reduced_ones(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    x, axes = args
    if isinstance(x, Tensor) and x.name in draft.tensors:
        t = draft.tensors[x.name]
        reduced = normalized(draft.value(axes), t.rank)
        draft.tensors[x.name] = replace(t, shape=tuple(1 if i in reduced else d for i, d in enumerate(t.shape)))
        draft.keep(x.name)


@CONDITIONS.enter(_reduced_ones)
def only_ones(facts: Facts, x: Value, axes: tuple[int, ...] | None) -> bool:
    """Every one of these axes of x has size 1."""
    return all(x.type.shape[a] == 1 for a in normalized(axes, x.type.rank))


def _trailing(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    x, axes = args
    if isinstance(axes, Name) and isinstance(x, Tensor) and draft.tensors[x.name].rank:
        rank = draft.tensors[x.name].rank
        draft.scalars[axes.name] = tuple(range(rank - random.randint(1, min(rank, 2)), rank))


@CONDITIONS.enter(_trailing)
def last_axes(facts: Facts, x: Value, axes: tuple[int, ...] | None) -> bool:
    """These are the last axes of x, at least one."""
    return (
        axes is not None
        and x.type.rank > 0
        and normalized(axes, x.type.rank) == tuple(range(x.type.rank - len(axes), x.type.rank))
        and len(axes) > 0
    )


def _added(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    x, shape, axes = args
    if isinstance(x, Tensor) and isinstance(shape, Name) and isinstance(axes, Name) and x.name in draft.tensors:
        more = tuple(random.randint(0, 3) for _ in range(random.randint(1, 2)))
        draft.scalars[shape.name] = more + draft.tensors[x.name].shape
        draft.scalars[axes.name] = tuple(range(len(more)))
        draft.keep(x.name)


@CONDITIONS.enter(_added)
def axes_added(facts: Facts, x: Value, shape: tuple[Any, ...], axes: tuple[int, ...] | None) -> bool:
    """Broadcasting x to `shape` adds exactly these axes before those of x, and repeats along no other."""
    more = len(shape) - x.type.rank
    return more >= 0 and shapes_equal(shape[more:], x.type.shape) and normalized(axes, len(shape)) == tuple(range(more))


def _one_axis(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    x, axes = args
    if isinstance(axes, Name) and isinstance(x, Tensor) and draft.tensors[x.name].rank:
        draft.scalars[axes.name] = (random.randrange(draft.tensors[x.name].rank),)


@CONDITIONS.enter(_one_axis)
def one_axis(facts: Facts, x: Value, axes: tuple[int, ...] | None) -> bool:
    """Exactly one axis of x is meant."""
    return axes is not None and len(axes) == 1


def _keep_leading(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    x, shape, count = args
    if not (isinstance(x, Tensor) and isinstance(shape, Name) and x.name in draft.tensors):
        return
    n, t = int(draft.value(count)), draft.tensors[x.name]
    batch = 1
    for d in t.shape[: t.rank - n]:
        batch = batch * d
    draft.scalars[shape.name] = (batch, *t.shape[t.rank - n :])
    draft.keep(x.name)


@CONDITIONS.enter(_keep_leading)
def keeps_last(facts: Facts, x: Value, shape: tuple[Any, ...], count: int) -> bool:
    """Reshaping x to `shape` leaves its last `count` axes as they are."""
    own = x.type.shape
    return (
        len(own) >= count and len(shape) >= count and shapes_equal(own[len(own) - count :], shape[len(shape) - count :])
    )


def _power_of_two(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    c, _ = args
    if isinstance(c, Name):
        draft.scalars[c.name] = random.choice([1.0, -1.0]) * 2.0 ** random.choice(
            [*range(-8, 9), -126, -100, 100, 126, 127]
        )


@CONDITIONS.enter(_power_of_two)
def inverse_is_exact(facts: Facts, c: float, x: Value) -> bool:
    """c and 1/c are both powers of two that the dtype of x holds."""
    dtype = x.type.dtype
    if not dtype.is_float or not math.isfinite(c) or abs(math.frexp(c)[0]) != 0.5:
        return False
    return as_held(c, dtype) == c and as_held(1 / c, dtype) == 1 / c


@CONDITIONS.enter(nothing)
def normal_in(facts: Facts, c: float, x: Value) -> bool:
    """The dtype of x holds c as a normal number, so that rounding c to it loses little."""
    if not x.type.dtype.is_float:
        return False
    _, exponent = _RANGES[x.type.dtype]
    return 2.0 ** (1 - exponent) <= abs(c) < 2.0**exponent


_RANGES = {bf16: (8, 127), f16: (11, 15), f32: (24, 127), f64: (53, 1023)}


def _wider(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    a, b = args
    if isinstance(b, Name):
        source = draft.value(a)
        draft.scalars[b.name] = random.choice([d for d in DTYPES.values() if d not in BOUNDED and _widens(source, d)])


def _widens(a: DType, b: DType) -> bool:
    if a in (b, boolean):
        return True
    if b == boolean:
        return False
    if b.is_float:
        digits, exponent = _RANGES[b]
        if a.is_float:
            return _RANGES[a][0] <= digits and _RANGES[a][1] <= exponent
        return a.bits <= digits and a.bits <= exponent
    if a.is_float:
        return False
    return a.bits < b.bits if a.kind == "uint" else b.kind == "int" and a.bits <= b.bits


@CONDITIONS.enter(_wider)
def widens(facts: Facts, a: DType, b: DType) -> bool:
    """Every value of dtype a is a value of dtype b."""
    return _widens(a, b)


@CONDITIONS.enter(nothing)
def at_most(facts: Facts, a: Any, b: Any) -> bool:
    """a <= b, both known integers or numbers."""
    return isinstance(a, (int, float)) and isinstance(b, (int, float)) and a <= b


def _outer_index(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    """Two counters laid out along two axes of one index, the first before the second, among axes of size 1."""
    s, t = args
    if isinstance(s, Name) and isinstance(t, Name):
        (rows,), (columns,) = (tuple(d for d in draft.scalars[e.name] if d != 1)[:1] or (1,) for e in (s, t))
        lead, between, trail = ((1,) * random.randint(0, 1) for _ in range(3))
        draft.scalars[s.name] = (*lead, rows, *between, 1, *trail)
        draft.scalars[t.name] = (*lead, 1, *between, columns, *trail)


@CONDITIONS.enter(_outer_index)
def before_others(facts: Facts, s: tuple[Any, ...], t: tuple[Any, ...]) -> bool:
    """Shapes s and t, aligned at the right, are 1 but for one axis each, and that of s comes before that of t."""
    first, second = ([i - len(shape) for i, d in enumerate(shape) if d != 1] for shape in (s, t))
    return len(first) <= 1 and len(second) <= 1 and (not first or not second or first[0] < second[0])


def _spatial_pads(draft: Draft, random: Random, args: tuple[Expression, ...]) -> None:
    low, high = args
    if isinstance(low, Name) and isinstance(high, Name):
        count = len(draft.scalars[low.name])
        pads = (0, 0, *(random.randint(0, 2) for _ in range(count - 2)))
        draft.scalars[low.name] = draft.scalars[high.name] = pads


@CONDITIONS.enter(_spatial_pads)
def pads_space(facts: Facts, low: tuple[Any, ...], high: tuple[Any, ...]) -> bool:
    """Equal, nonnegative padding on both sides of spatial axes, none of the first two axes."""
    return low == high and all(p == 0 for p in low[:2]) and all(isinstance(p, int) and p >= 0 for p in low)
