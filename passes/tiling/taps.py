"""Windows that move along a line: which points of a nest read neighbouring elements, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from effcc.ir.affine import affine
from effcc.ir.expr import Axis, Call, Expr, Load, ends_at, walk
from effcc.ir.kernel import Kernel
from effcc.passes.tiling.nests import NestPlan

LONGEST = 9
"""Taps of a window that are unrolled, at most: each is written out for every point of a register tile."""
TILE_POINTS = 4
"""So many points, roughly, of a register tile share what they load."""


@dataclass(frozen=True)
class Taps:
    """A window along `line`, a kept axis: `tap` is the reduced axis of its taps, `dilation` elements apart, and
    `stride` how many elements it moves from point to point. `shares`: the part of a load that each tap of each point
    pays for, where points are computed together.
    """

    line: str
    tap: str
    stride: int
    dilation: int
    shares: Mapping[Load, float]


def taps_of(kernel: Kernel, plan: NestPlan) -> dict[str, Taps]:
    """For each kept axis along which lanes may lie, the window whose points can be computed together; empty if none.

    Lanes lie along an axis that the window does not move on. Where a span begins and ends is no window: it is read at
    one point.
    """
    extents = kernel.extents
    ends = {a for span in plan.spans(kernel) for a in ends_at(span)}
    reads = dict.fromkeys(load for i in plan.reductions for load in kernel.statements[i].reads)
    found: Taps | None = None
    inside: set[str] = set()
    for load in reads:
        for index in load.index:
            steps = affine(index)
            names = {e.name for e in walk(index) if isinstance(e, Axis)}
            lines = [a for a in names if a in plan.kept and a not in ends]
            taps = [a for a in names if a in plan.reduced]
            if not lines or not taps:
                continue
            inside |= names
            if steps is None or len(lines) != 1 or len(taps) != 1:
                continue
            (line,), (tap,) = lines, taps
            stride, dilation, count = steps[0][line], steps[0][tap], extents[tap]
            if stride > 0 and dilation > 0 and isinstance(count, int) and 1 < count <= LONGEST:
                reach = min(TILE_POINTS * count, (TILE_POINTS - 1) * stride + dilation * (count - 1) + 1)
                still = [x for x in reads if not any(e == Axis(line) for i in x.index for e in walk(i))]
                shares = dict.fromkeys(still, 1 / TILE_POINTS) | {load: reach / (TILE_POINTS * count)}
                found = Taps(line, tap, stride, dilation, shares)
    return {} if found is None else {a: found for a in plan.kept if a not in inside}


def guards(e: Expr) -> frozenset[str]:
    """The axes that decide which branch of a `where` is taken."""
    conditions = [node.operands[0] for node in walk(e) if isinstance(node, Call) and node.function == "where"]
    return frozenset(x.name for c in conditions for x in walk(c) if isinstance(x, Axis))
