"""What lanes cost whose elements lie apart, in nests whose models take it that they are neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from effcc.ir.dims import elements
from effcc.ir.expr import Axis, Load, walk
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.cost import FEMTO, machine_parameters
from effcc.passes.tiling.nests import NestPlan
from effcc.passes.tiling.operands import MANY, Operand, access_slots


def seconds_apart(
    choice: Choice,
    plan: NestPlan,
    lanes: str,
    counts: Mapping[str, int],
    tile: Mapping[str, int],
    reads: Sequence[Load],
) -> float:
    """How much longer a nest with reductions takes for lanes that are apart: in `reads`, which every step of the
    reduction loads, in what follows at each point, and in what is stored. A register `tile` shares what does not move
    along it."""
    kernel, width = choice.kernel, choice.target.vector_lanes
    layout = layouts(kernel, choice.lanes)
    after = [load for i in plan.epilogue for load in kernel.statements[i].reads]
    own = {kernel.statements[i].target for i in (*plan.body, *plan.reductions, *plan.epilogue)}
    outside = {p.name for p in kernel.signature}
    stores = [
        Load(s.target, tuple(Axis(a) for a in s.axes), s.dtype)
        for i in (*plan.body, *plan.reductions, *plan.epilogue)
        if (s := kernel.statements[i]).target in outside
    ]
    slots = 0.0
    for load, box, written in (
        *((x, (*plan.kept, *plan.reduced), False) for x in reads),
        *((x, plan.kept, False) for x in after if x.buffer not in own),
        *((x, plan.kept, True) for x in stores),
    ):
        step = stride(load, lanes, layout[load.buffer])
        if step in (0, 1):
            continue
        used = {e.name for i in load.index for e in walk(i) if isinstance(e, Axis)}
        shared = prod(points for axis, points in tile.items() if axis not in used)
        far = MANY if step is None else max(2, elements((step,)))
        once = access_slots(Operand(load.buffer, {lanes: far}, load.dtype.bytes, written), lanes, width)
        slots += once * prod(counts[a] for a in box) / width / shared
    machine = machine_parameters(choice.target)
    return slots * machine["slot"] / FEMTO / choice.target.cores


__all__ = ["seconds_apart"]
