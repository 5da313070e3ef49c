"""Borders: an axis with a padded window on it has points inside, where no condition fails, and points at its ends.

    Y[y] = sum(k: (0 <= y + k - 1 and y + k - 1 < 14 ? X[y + k - 1] : 0) * W[k])  over y=14, k=3

holds its condition for every k where 1 <= y < 13. Loops over y are cut there: what runs inside has no condition. Where
lanes are channels a condition costs nothing, as it is the mask of a load: such loops stay whole, and their code is
there once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from effcc.ir.affine import affine, coefficient
from effcc.ir.dims import Dim, ceil_div, dim, elements
from effcc.ir.expr import Call, Const, Expr, Load, Reduce, both, compare, free_axes, integer, loads, walk
from effcc.ir.kernel import Kernel, Statement


@dataclass(frozen=True)
class Interior:
    """The points of an axis, from `low` up to the least of `highs` (to its end where there are none), where
    `conditions` hold whatever else changes."""

    low: int
    highs: tuple[Dim, ...]
    conditions: frozenset[Expr]

    def end(self, extent: int) -> int | None:
        """Where the interior of an axis of known extent ends; None where that depends on run-time sizes."""
        known = [h for h in self.highs if isinstance(h, int)]
        return min((extent, *known)) if len(known) == len(self.highs) else None

    def holds(self, start: Expr, stop: Expr) -> Expr:
        """The condition that the points from `start` up to `stop` lie inside."""
        below = [compare("ge", start, integer(self.low))] if self.low > 0 else []
        return both(*below, *(compare("le", stop, integer(h)) for h in self.highs))


def interiors(kernel: Kernel, lanes: Mapping[str, str | None] = MappingProxyType({})) -> dict[str, Interior]:
    """The interior of every axis along which a reduction's window may lie partly outside of what it reads.

    lanes: the axis in the lanes where a statement is computed, by its target.
    """
    found: dict[str, Interior] = {}
    for s in kernel.statements:
        if s.reduction is None:
            continue
        for condition in _conditions(kernel, s.reduction.body, lanes.get(s.target)):
            one = _interior(kernel, s, condition)
            if one is not None:
                axis, inside = one
                found[axis] = _both(found[axis], inside) if axis in found else inside
    extents = {a: elements((n,)) for a, n in kernel.axes}
    return {a: i for a, i in found.items() if (end := i.end(extents[a])) is None or end > i.low}


def _both(a: Interior, b: Interior) -> Interior:
    highs = tuple(dict.fromkeys((*a.highs, *b.highs)))
    known = [h for h in highs if isinstance(h, int)]
    highs = (*([min(known)] if known else []), *(h for h in highs if not isinstance(h, int)))
    return Interior(max(a.low, b.low), highs, a.conditions | b.conditions)


def _conditions(kernel: Kernel, e: Expr, lanes: str | None) -> Iterator[Expr]:
    """The comparisons that decide branches, of conjunctions each part, but for those that are masks of loads."""
    for node in walk(e):
        if isinstance(node, Call) and node.function == "where" and not _is_masked_load(kernel, node, lanes):
            pending = [node.operands[0]]
            while pending:
                part = pending.pop()
                if isinstance(part, Call) and part.function == "and":
                    pending += part.operands
                else:
                    yield part


def _is_masked_load(kernel: Kernel, where: Call, lanes: str | None) -> bool:
    """Whether a `where` chooses, for all lanes alike, between neighbouring elements and a constant."""
    condition, load, other = where.operands
    if lanes is None or not isinstance(load, Load) or not isinstance(other, Const):
        return False
    steps = [coefficient(i, lanes) for i in load.index]
    types = {p.name: p.type for p in kernel.signature}
    if load.buffer in types:
        layout = types[load.buffer].layout
        neighbours = all(c in (0, 1) and (c == 0 or n == 1) for c, n in zip(steps, layout, strict=True))
    else:  # what is held has the lanes' axis innermost
        neighbours = steps.count(0) == len(steps) - 1
    return neighbours and 1 in steps and lanes not in free_axes(condition)


def _interior(kernel: Kernel, s: Statement, condition: Expr) -> tuple[str, Interior] | None:
    """The kept axis that a condition is on, and where the condition holds for every point of the reduced axes."""
    assert isinstance(s.value, Reduce)
    if not isinstance(condition, Call) or condition.function not in ("ge", "gt", "le", "lt") or loads(condition):
        return None
    left, right = (affine(o) for o in condition.operands)
    if left is None or right is None:
        return None
    sign = 1 if condition.function in ("ge", "gt") else -1  # the condition as `steps + constant >= 0`
    steps = {a: sign * (left[0].get(a, 0) - right[0].get(a, 0)) for a in {**left[0], **right[0]}}
    constant = sign * (left[1] - right[1]) - (1 if condition.function in ("gt", "lt") else 0)
    kept = [a for a, step in steps.items() if step and a in s.axes]
    reduced = {a: step for a, step in steps.items() if step and a in s.value.axes}
    extents = kernel.extents
    if len(kept) != 1 or not reduced or len(reduced) + 1 != sum(1 for step in steps.values() if step):
        return None
    for axis, step in reduced.items():
        extent = extents[axis]
        if not isinstance(extent, int):
            return None
        constant += min(0, step * (extent - 1))
    (axis,), holds = kept, frozenset({condition})
    step = steps[axis]
    if step > 0:
        low = ceil_div(dim(-constant), step)
        return (axis, Interior(max(low, 0), (), holds)) if isinstance(low, int) else None
    # step * axis + constant >= 0 where axis <= floor(constant / -step)
    return axis, Interior(0, (dim(1 - ceil_div(dim(-constant), -step)),), holds)


__all__ = ["Interior", "interiors"]
