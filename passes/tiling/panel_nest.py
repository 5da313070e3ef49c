"""The nest that decodes a panel of a product's weight, once for all rows of a task, into the cache."""

from __future__ import annotations

from effcc.ir.contraction import Operand
from effcc.ir.dependences import is_copy, is_decoded, is_made_anew, walked_axis
from effcc.ir.expr import Call, Const, free_axes, walk
from effcc.ir.kernel import Kernel, Statement
from effcc.passes.tiling.build import TiledNest
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.nests import NestPlan
from effcc.passes.tiling.pack import pack_along, packable


def makes_panels(kernel: Kernel, factor: Operand) -> bool:
    """Whether a factor of a product is what the kernel decodes or copies for itself."""
    s = kernel.definition(factor.data.buffer)
    return s is not None and is_made_anew(kernel, s) and walked_axis(kernel) is None


def decoded(choice: Choice, plan: NestPlan) -> Statement | None:
    """The statement of a nest that decodes what a product reads, whose lanes and tiles are known; else None."""
    if plan.reductions or len(plan.body) != 1 or plan.epilogue:
        return None
    s = choice.kernel.statements[plan.body[0]]
    lanes = choice.lanes.get(s.target)
    computed = is_decoded(choice.kernel, s) and not is_copy(choice.kernel, s)
    return s if computed and lanes in choice.shared else None


def panel_nest(choice: Choice, plan: NestPlan) -> TiledNest:
    """A panel as wide as the register tile that reads it, its codes packed alike. Codes of one byte come together."""
    s = choice.kernel.statements[plan.body[0]]
    axis = choice.lanes[s.target]
    width = choice.tiles[axis]
    rest = tuple(a for a in plan.kept if a != axis)
    read = [x for x in dict.fromkeys(s.reads) if axis in {a for i in x.index for a in free_axes(i)}]
    choice.packs += [pack_along(x, axis, width, (axis, *rest)) for x in read if packable(choice.kernel, x, axis)]
    choice.notes.append(f"{s.target}: panels of {width} along {axis}, decoded once for all rows of a task")
    together = {a: ("unroll", int(choice.kernel.extents[a])) for a in rest if _shifts(s, a)}
    return TiledNest(
        plan, {axis: ("lanes", width), **together}, (*(a for a in rest if a not in together), axis, *together)
    )


def _shifts(s: Statement, axis: str) -> bool:
    """Whether points along an axis are codes of one byte."""
    shifts = (e.operands[1] for e in walk(s.value) if isinstance(e, Call) and e.function == "shr")
    return any(axis in free_axes(by) and not isinstance(by, Const) for by in shifts)
