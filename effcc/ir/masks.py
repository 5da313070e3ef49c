"""Which keys a row sees: from the conditions of a one-pass kernel, where its loop over keys begins and ends.

    M[m] = max(n: where(n <= m and n > m - 64, S[m,n], -inf))

At points where a condition fails, scores are -inf and weights 0, so no reduction over n needs them. Conditions are
comparisons of index arithmetic, in which a single element (a position, say) counts as a number:

    0 <= m - n    and    0 <= n - m + 63

For a box of rows each gives a bound of the keys that any row of it sees, and of those that all of them see.

A kernel that sums a matrix both ways (attention's gradients) has such conditions, too: its points are 0 where they
fail.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from effcc.ir.affine import affine
from effcc.ir.dependences import both_ways, online_axis
from effcc.ir.dims import elements
from effcc.ir.dtypes import boolean, i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Size,
    add,
    floor_div,
    free_axes,
    integer,
    loads,
    multiply,
    substitute_axes,
)  # fmt: skip
from effcc.ir.kernel import Kernel, Statement

_OPPOSITE = {"le": "gt", "gt": "le", "lt": "ge", "ge": "lt"}


@dataclass(frozen=True)
class Bound:
    """A condition as `sum(steps[a] * a) + rest >= 0`; `rest` has no axes."""

    steps: tuple[tuple[str, int], ...]
    rest: Expr

    def step(self, axis: str) -> int:
        return dict(self.steps).get(axis, 0)


@dataclass(frozen=True)
class Mask:
    """The conditions that points of `axis` must satisfy to be seen, as they are written and as bounds."""

    axis: str
    conditions: frozenset[Expr]
    bounds: tuple[Bound, ...]


def mask_of(kernel: Kernel) -> Mask | None:
    """What rows of a one-pass kernel see along the axis that it walks; None where no condition of positions decides.

    Points that are not seen may be passed over: what is computed over the axis is scores, their maximum, and sums of
    their exponentials, each of which is 0 there. What they are multiplied with does not count then, even where it is
    infinite or NaN.
    """
    axis = online_axis(kernel)
    definitions = {s.target: s for s in kernel.statements}
    if axis is None and (crossed := both_ways(kernel)) is not None:
        sums = (r for s in kernel.statements if (r := s.reduction) is not None and crossed.axes & set(r.axes))
        return _mask(crossed.columns, (dict.fromkeys(_zero_unless(r.body, definitions)) for r in sums))
    if axis is None or kernel.scans or axis in kernel.spans:
        return None
    outputs = {p.name for p in kernel.outputs}
    if any(axis in s.axes and s.target in outputs for s in kernel.statements if not _reduces(s, axis)):
        return None
    needed = (_needed(s, definitions) for s in kernel.statements if _reduces(s, axis))
    return _mask(axis, map(dict.fromkeys, needed))


def _reduces(s: Statement, axis: str) -> bool:
    return s.reduction is not None and axis in s.reduction.axes


def _mask(axis: str, needed: Iterable[Mapping[Expr, None]]) -> Mask | None:
    """The conditions that all of several need."""
    seen: dict[Expr, None] | None = None
    for needs in needed:
        seen = dict(needs) if seen is None else {c: None for c in seen if c in needs}
    bounds = {c: b for c in seen or () if (b := bound_of(c, axis)) is not None}
    return Mask(axis, frozenset(bounds), tuple(dict.fromkeys(bounds.values()))) if bounds else None


def _needed(s: Statement, definitions: Mapping[str, Statement]) -> Iterator[Expr]:
    """The conditions at whose failure a point adds nothing to a reduction over the axis."""
    assert s.reduction is not None
    if s.reduction.operator == "max":
        yield from _lowest_unless(s.reduction.body, definitions)
    elif s.reduction.rescale is not None:
        for load in loads(s.reduction.body):  # linear in the exponential (`effcc.passes.fusion.online`)
            made = definitions.get(load.buffer)
            match made.value if made is not None else None:
                case Call("exp", (Call("sub", (scores, _)),)):
                    assert made is not None
                    at = dict(zip(made.axes, load.index, strict=True))
                    yield from _lowest_unless(substitute_axes(scores, at), definitions)


def _zero_unless(e: Expr, definitions: Mapping[str, Statement]) -> Iterator[Expr]:
    """The conditions at whose failure a value is 0, if what it is multiplied with is finite."""
    match e:
        case Call("mul", (a, b)):
            yield from _zero_unless(a, definitions)
            yield from _zero_unless(b, definitions)
        case Call("cast", (a,)):
            yield from _zero_unless(a, definitions)
        case Call("exp", (Call("sub", (scores, _)),)):
            yield from _lowest_unless(scores, definitions)
        case Call("where", (condition, a, Const(value=0))):
            yield from _parts(condition)
            yield from _zero_unless(a, definitions)
        case Load() if (value := _read_through(e, definitions)) is not None:
            yield from _zero_unless(value, definitions)


def _lowest_unless(e: Expr, definitions: Mapping[str, Statement]) -> Iterator[Expr]:
    """The conditions at whose failure a value is -inf."""
    match e:
        case Call("where", (condition, a, Const(value=low))) if low == -math.inf:
            yield from _parts(condition)
            yield from _lowest_unless(a, definitions)
        case Call("where", (Call(function, operands), Const(value=low), b)) if low == -math.inf:
            if function in _OPPOSITE:
                yield Call(_OPPOSITE[function], operands, boolean)
            yield from _lowest_unless(b, definitions)
        case Call("add", (a, b)):
            yield from _lowest_unless(a, definitions)
            yield from _lowest_unless(b, definitions)
        case Call("cast", (a,)):
            yield from _lowest_unless(a, definitions)
        case Load() if (value := _read_through(e, definitions)) is not None:
            yield from _lowest_unless(value, definitions)


def _read_through(load: Load, definitions: Mapping[str, Statement]) -> Expr | None:
    """What a kernel computes point by point and reads, at the place where it is read; None for anything else."""
    made = definitions.get(load.buffer)
    if made is None or made.scatter is not None or made.reduction is not None:
        return None
    return substitute_axes(made.value, dict(zip(made.axes, load.index, strict=True)))


def _parts(condition: Expr) -> Iterator[Expr]:
    match condition:
        case Call("and", operands):
            for part in operands:
                yield from _parts(part)
        case _:
            yield condition


def bound_of(condition: Expr, axis: str) -> Bound | None:
    """A comparison as a bound of an axis; None where it is none, or not affine."""
    match condition:
        case Call(("le" | "lt" | "ge" | "gt") as function, (left, right)) if left.dtype == right.dtype == i64:
            numbers: dict[str, Expr] = {}
            one, other = (affine(_numbered(side, numbers)) for side in (left, right))
        case _:
            return None
    if one is None or other is None:
        return None
    (a, c), (b, d) = one, other
    sign = 1 if function in ("ge", "gt") else -1
    steps = {x: sign * (a.get(x, 0) - b.get(x, 0)) for x in {**a, **b}}
    rest = integer(sign * (c - d) - (1 if function in ("gt", "lt") else 0))
    for name, value in numbers.items():
        rest = add(rest, multiply(value, Const(steps.pop(name), i64)))
    found = tuple((x, n) for x, n in steps.items() if n)
    return Bound(found, rest) if any(x == axis for x, _ in found) else None


def _numbered(e: Expr, numbers: dict[str, Expr]) -> Expr:
    """An index with the elements that are the same everywhere as axes of their own."""
    match e:
        case Load() if not any(free_axes(i) or loads(i) for i in e.index):
            name = next((n for n, known in numbers.items() if known == e), f"{e.buffer}#{len(numbers)}")
            numbers[name] = e
            return Axis(name)
        case Call(function, operands):
            return Call(function, tuple(_numbered(o, numbers) for o in operands), e.dtype)
    return e


Box = Mapping[str, tuple[Expr, Expr]]
"""Of each axis, the first and the last point."""


def seen_by_any(mask: Mask, box: Box) -> tuple[list[Expr], list[Expr]]:
    """The first points and the last ones that the bounds allow for some row of a box: the greatest, the least count."""
    return _ends(mask, box, far=True)


def seen_by_all(mask: Mask, box: Box) -> tuple[list[Expr], list[Expr]]:
    """The same for all rows of a box."""
    return _ends(mask, box, far=False)


def _ends(mask: Mask, box: Box, far: bool) -> tuple[list[Expr], list[Expr]]:
    firsts: list[Expr] = []
    lasts: list[Expr] = []
    for bound in mask.bounds:
        total = bound.rest
        for axis, step in bound.steps:
            if axis != mask.axis:
                total = add(total, multiply(box[axis][(step > 0) == far], Const(step, i64)))
        own = bound.step(mask.axis)
        if own > 0:  # own * n + total >= 0
            firsts.append(multiply(floor_div(total, Const(own, i64)), Const(-1, i64)))
        else:
            lasts.append(floor_div(total, Const(-own, i64)))
    return firsts, lasts


def mean_seen(kernel: Kernel, mask: Mask, rows: str | None) -> float | None:
    """How many points a row sees on average, where sizes that are not known are what they count as; None where data
    decide. Of axes other than `rows`, the first point stands for all.
    """
    keys = elements((kernel.extents[mask.axis],))
    count = 1 if rows is None else elements((kernel.extents[rows],))
    rests = [elements((b.rest.value,)) if isinstance(b.rest, Size | Const) else None for b in mask.bounds]
    total = 0
    for row in range(count):
        first, last = 0, keys - 1
        for bound, rest in zip(mask.bounds, rests, strict=True):
            if rest is None:
                return None
            here, own = rest + (bound.step(rows) * row if rows is not None else 0), bound.step(mask.axis)
            if own > 0:
                first = max(first, -(here // own))
            else:
                last = min(last, here // -own)
        total += max(last - first + 1, 0)
    return total / max(count, 1)
