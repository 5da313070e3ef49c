"""The nest that copies an operand so that its reader's lanes are neighbours: blocks turned in registers."""

from __future__ import annotations

from math import prod

from effcc.ir.dependences import is_copy
from effcc.ir.expr import Load, loads
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.build import TiledNest
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.cost import FEMTO, machine_parameters
from effcc.passes.tiling.nests import NestPlan

ROWS = 8
"""So many vectors are turned together: stored four side by side (`codegen.cpp.rows`)."""
TURN_SLOTS = 11
"""Slots for each vector of a block that is turned: a load, two shuffles, and four stores of four lanes."""


def copied(choice: Choice, plan: NestPlan) -> Load | None:
    """What a nest copies; None for any other nest, and for copies that others read along the lanes as they are."""
    if plan.reductions or len(plan.body) != 1 or plan.epilogue:
        return None
    s = choice.kernel.statements[plan.body[0]]
    return loads(s.value)[0] if is_copy(choice.kernel, s) and s.target in choice.lanes else None


def copy_nest(choice: Choice, plan: NestPlan, source: Load) -> TiledNest | None:
    """The nest of a copy; None where no axis is contiguous in the source, or the same one in the copy."""
    kernel = choice.kernel
    target = kernel.statements[plan.body[0]].target
    across = choice.lanes[target]
    layout = layouts(kernel)[source.buffer]
    along = next((a for a in plan.kept if stride(source, a, layout) == 1), None)
    if along is None or along == across:
        return None
    lanes = choice.target.vector_lanes
    rest = [a for a in plan.kept if a not in (along, across)]
    vectors = prod(choice.count(a) for a in (across, *(a for a in rest if a not in choice.shared)))
    vectors *= -(-choice.count(along) // lanes)
    tasks = prod(max(choice.count(a), 1) for a in choice.shared if choice.tiles.get(a, 1) == 1)
    machine = machine_parameters(choice.target)
    seconds = TURN_SLOTS * vectors * tasks * machine["slot"] / FEMTO / choice.target.cores
    choice.seconds += seconds * choice.turns(plan)
    choice.notes.append(f"{target}: vectors of {lanes} along {along}, {ROWS} turned at once")
    tiles = {along: ("lanes", lanes), across: ("unroll", min(ROWS, choice.count(across)))}
    return TiledNest(plan, tiles, (*rest, across, along))
