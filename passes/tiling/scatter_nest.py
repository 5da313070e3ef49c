"""The nest of a scatter: lanes and threads along an axis on which its points are apart.

    Y[I[i],j] add= X[i,j] for i, j

Two points of i may meet in one row of Y, so each thread takes them all, in order, for the columns j that are its own:
results are the same bit for bit for any number of threads. Where no axis is apart, one thread does it all.
"""

from __future__ import annotations

from math import prod

from effcc.ir.expr import Axis
from effcc.ir.kernel import Kernel
from effcc.passes.tiling.access import lane_cost, layouts
from effcc.passes.tiling.build import TiledNest
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.nests import NestPlan

POINT_SECONDS = 0.3e-9
"""To read, add and write an element, with vectors."""
WORTH_SHARING = 20e-6
"""Shorter ones are done before other threads have begun."""
LINE_BYTES = 64
"""Threads that write to one line of memory take it from each other at every point."""
TASKS_A_CORE = 2
"""Each task reads all indices again."""
VECTORS = 4


def scatter_of(kernel: Kernel, plan: NestPlan) -> bool:
    """Whether a nest is a scatter, which has a nest of its own."""
    return any(kernel.statements[i].scatter is not None for i in plan.body)


def scatter_nest(choice: Choice, plan: NestPlan) -> TiledNest:
    """Lanes along the axis apart that costs least, if its elements lie side by side where it writes."""
    kernel, lanes = choice.kernel, choice.target.vector_lanes
    (position,) = plan.body
    s = kernel.statements[position]
    assert s.scatter is not None
    layout = layouts(kernel)
    counts = {a: choice.count(a) for a in plan.kept}
    steps = dict(zip(s.scatter.index, layout[s.target], strict=True))
    apart = [a for a in choice.shared if steps.get(Axis(a)) == 1 and counts[a] > 1]
    seconds = prod(counts.values()) * POINT_SECONDS
    choice.seconds += seconds
    if not apart:
        shared = f"threads share {', '.join(choice.shared)}" if choice.shared else "on one thread"
        choice.notes.append(f"{s.target}: point by point, {shared}")
        return TiledNest(plan, {})
    axis = min(apart, key=lambda a: sum(lane_cost(x, a, layout) for x in s.reads))
    tasks = choice.target.cores * TASKS_A_CORE if seconds > WORTH_SHARING else 1
    width = lanes * min(VECTORS, -(-counts[axis] // lanes // tasks))
    least = -(-max(width, LINE_BYTES // s.dtype.bytes) // width) * width
    choice.tiles[axis] = max(-(-counts[axis] // tasks // width) * width, least)
    choice.notes.append(f"{s.target}: vectors of {lanes} along {axis}, {-(-counts[axis] // choice.tiles[axis])} tasks")
    others = tuple(a for a in plan.kept if a != axis)
    return TiledNest(plan, {axis: ("lanes", width)}, (*others, axis))
