"""The nest that turns an operand: contiguous along one axis where it is read, along another where it is written.

    for i by 16 { for j by 16 { O[i..,j..] = f(X[j..,i..]) } }

As many vectors as one has lanes are read along X's own axis, computed with, and transposed in registers
(`codegen.cpp.rows`), so that every load and every store is a whole vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, prod

from effcc.ir.dims import Dim, Shape, elements
from effcc.ir.dtypes import f32
from effcc.ir.expr import Axis, Load
from effcc.ir.kernel import Statement
from effcc.passes.tiling.access import stride
from effcc.passes.tiling.build import TiledNest
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.copies import TURN_SLOTS
from effcc.passes.tiling.cost import FEMTO, START_SECONDS, byte_time_at_home, machine_parameters
from effcc.passes.tiling.nests import NestPlan
from effcc.passes.tiling.operands import parts_of

TASKS_A_CORE = 4
"""Tasks for each core, if there are so many, so that none waits long for the last one."""
WHOLE_LANES = (8, 16)
"""Lanes of vectors that are turned as a whole."""


def turns(choice: Choice, plan: NestPlan, along: str, crossing: str, layout: Mapping[str, Shape]) -> bool:
    """Whether a nest's one statement reads along `crossing` all that it does not read alike there, and writes along
    `along`; both axes long enough (at the hints of what only calls know), and open to tasks."""
    kernel, lanes = choice.kernel, choice.target.vector_lanes
    if len(plan.body) != 1 or plan.epilogue or choice.rank or choice.once or lanes not in WHOLE_LANES:
        return False
    s = kernel.statements[plan.body[0]]
    if s.dtype != f32 or s.scatter is not None or s.target not in {p.name for p in kernel.outputs}:
        return False
    if any(a not in choice.shared or choice.tiles[a] != 1 for a in (along, crossing)):
        return False
    if min(choice.count(along), choice.count(crossing)) < lanes:
        return False
    steps = {stride(load, crossing, layout[load.buffer]) for load in s.reads}
    apart = stride(_written(s), crossing, layout[s.target])
    return steps <= {0, 1} and stride(_written(s), along, layout[s.target]) == 1 and apart not in (0, 1, None)


def turned_nest(choice: Choice, plan: NestPlan, along: str, crossing: str, layout: Mapping[str, Shape]) -> TiledNest:
    """Blocks of as many rows as lanes; those follow one another that stay on the side whose rows are further apart."""
    kernel, lanes, target = choice.kernel, choice.target.vector_lanes, choice.target
    s = kernel.statements[plan.body[0]]
    far_in = max(_distance(stride(x, along, layout[x.buffer])) for x in s.reads)
    far_out = _distance(stride(_written(s), crossing, layout[s.target]))
    inner, outer = (along, crossing) if far_out > far_in else (crossing, along)
    others = prod(choice.count(a) for a in plan.kept if a not in (along, crossing))
    wanted = TASKS_A_CORE * target.cores
    pieces = others * -(-choice.count(outer) // lanes)
    blocks = -(-choice.count(inner) // lanes)
    parts = next((n for n in parts_of(blocks, target.cores) if n * pieces >= wanted), blocks)
    choice.tiles[outer], choice.tiles[inner] = lanes, -(-blocks // parts) * lanes
    vectors = others * choice.count(along) * -(-choice.count(crossing) // lanes)
    compute = TURN_SLOTS * vectors * machine_parameters(target)["slot"]
    buffers = {p.name: p.type for p in kernel.signature if p.name == s.target or p.name in {x.buffer for x in s.reads}}
    sizes = [elements(t.shape) * t.dtype.bytes for t in buffers.values()]
    moved = sum(n * byte_time_at_home(target, n) for n in sizes)
    choice.seconds += max(compute, moved) / FEMTO / target.cores + (START_SECONDS if target.cores > 1 else 0)
    choice.notes.append(f"{s.target}: {lanes} x {lanes} of {crossing} and {along} turned at once, along {inner}")
    choice.inner = inner
    rest = [a for a in plan.kept if a not in (along, crossing)]
    return TiledNest(plan, {crossing: ("lanes", lanes), along: ("unroll", lanes)}, (*rest, outer, inner))


def _distance(step: Dim | None) -> float:
    """How many elements apart a step's ends lie; farther than all known ones where only a call or the place tells."""
    return abs(step) if isinstance(step, int) else inf


def _written(s: Statement) -> Load:
    return Load(s.target, tuple(Axis(a) for a in s.axes), s.dtype)
