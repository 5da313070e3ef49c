"""The nest that interleaves rows of bf16 in pairs, as dot products of packed lanes read them (`passes.tiling.pack`).

    for n by 16 lanes, k_place by 2 unroll { P[n,k_place] = X[k_place,n] }

Two vectors at once: pairs lie side by side in words, which are stored as one vector (`codegen.cpp.rows`). One by one,
each element would be a store of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from effcc.ir.dims import Shape
from effcc.ir.dtypes import bf16
from effcc.ir.expr import Axis, Load
from effcc.passes.tiling.access import CONTIGUOUS_LOAD, lane_cost, stride
from effcc.passes.tiling.build import TiledNest
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.cost import FEMTO, START_SECONDS, machine_parameters
from effcc.passes.tiling.nests import NestPlan

PAIR = 2
STORE = 18.0
"""A store of pairs in vector loads: both vectors are rounded, and joined."""


def interleaved(choice: Choice, plan: NestPlan, layout: Mapping[str, Shape]) -> TiledNest | None:
    """The nest of a statement that stores pairs along one axis for neighbours of another; None for any other."""
    kernel, lanes = choice.kernel, choice.target.vector_lanes
    if len(plan.body) != 1 or plan.reductions or plan.epilogue or choice.rank or lanes == 1:
        return None
    s = kernel.statements[plan.body[0]]
    if s.dtype != bf16 or s.scatter is not None or s.target not in {p.name for p in kernel.outputs}:
        return None
    steps = {a: stride(Load(s.target, tuple(map(Axis, s.axes)), s.dtype), a, layout[s.target]) for a in plan.kept}
    pairs = next((a for a, step in steps.items() if step == 1 and kernel.extents[a] == PAIR), None)
    along = next((a for a, step in steps.items() if step == PAIR and choice.count(a) % lanes == 0), None)
    if pairs is None or along is None or any(a in choice.shared and choice.tiles[a] != 1 for a in (pairs, along)):
        return None
    for axis in (pairs, along):
        if axis in choice.shared:
            choice.tiles[axis] = choice.count(axis)
    vectors = prod(choice.count(a) for a in plan.kept) // PAIR // lanes
    loads = PAIR * sum(max(lane_cost(x, along, layout), CONTIGUOUS_LOAD) for x in s.reads)
    seconds = vectors * (loads + STORE) * machine_parameters(choice.target)["slot"] / FEMTO / choice.target.cores
    choice.seconds += (seconds + (START_SECONDS if choice.target.cores > 1 else 0)) * choice.turns(plan)
    choice.notes.append(f"{s.target}: pairs along {pairs}, vectors of {lanes} along {along}")
    rest = tuple(a for a in plan.kept if a not in (pairs, along))
    return TiledNest(plan, {along: ("lanes", lanes), pairs: ("unroll", PAIR)}, (*rest, along, pairs))
