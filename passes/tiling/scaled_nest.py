"""Sums of products a group of the depth at a time, each scaled before it joins the total, all of it in registers:

P[m,n,g] = sum(j: i32(X[m,g,j]) * i32(W[n,g,j]))
O[m,n]   = sum(g: f32(P[m,n,g]) * S[g,n])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from effcc.ir.contraction import Contraction, contraction
from effcc.ir.expr import Axis
from effcc.passes.tiling.apart import seconds_apart
from effcc.passes.tiling.build import TiledNest
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.describe import contraction_of, joins_of
from effcc.passes.tiling.dots import PackedProduct, packed_product
from effcc.passes.tiling.nests import NestPlan
from effcc.passes.tiling.pack import pack_along, packable


def with_groups(choice: Choice, plans: Sequence[NestPlan]) -> list[NestPlan]:
    """The plans, where a sum over the groups of the product before it takes that into its own loops."""
    found: list[NestPlan] = []
    for plan in plans:
        before = found[-1] if found else None
        if before is not None and _adds_up(choice, before, plan):
            found[-1] = replace(plan, groups=before.reductions)
        else:
            found.append(plan)
    return found


def scaled_nest(choice: Choice, plan: NestPlan) -> TiledNest:
    """A register tile whose sums of one group are beside those of all groups so far."""
    kernel = choice.kernel
    product, packed = _product(choice, plan)
    (total,) = (kernel.statements[i] for i in plan.reductions)
    columns_of, lane_axis = packed.columns_of, packed.lane_axis
    rows_of, row_axes = (product.right, product.columns) if columns_of is product.left else (product.left, product.rows)
    row_axis = max(reversed(row_axes), key=choice.count)
    depth = (*(a for a in product.depth if a != packed.depth), packed.depth)
    kept = [a for a in plan.kept if a not in (lane_axis, row_axis)]
    order = (*kept, lane_axis, row_axis, *plan.reduced, *depth)
    counts = {a: choice.count(a) for a in order}
    groups = prod(counts[a] for a in plan.reduced)
    whole = replace(
        product, batch=tuple(a for a in product.batch if a not in plan.reduced), depth=(*plan.reduced, *depth)
    )
    chosen = contraction_of(
        kernel, whole, counts, lane_axis, row_axis, whole.depth, rows_of, columns_of, True, choice.shared, False,
        choice.target, choice.rank, packed.dot.neighbours, joins_of(total, groups, lane_axis),
    )  # fmt: skip
    choice.packs.append(pack_along(columns_of.data, lane_axis, chosen.nr, order, packed.dot.neighbours))
    beside = (x for x in dict.fromkeys(total.reads) if x.buffer in kernel.weights and packable(kernel, x, lane_axis))
    choice.packs += [pack_along(x, lane_axis, chosen.nr, order) for x in beside]
    choice.tiles.update({a: n for a, n in ((lane_axis, chosen.nc), (row_axis, chosen.mc)) if a in choice.shared})
    choice.seconds += chosen.prediction.seconds + seconds_apart(
        choice, plan, lane_axis, counts, {row_axis: chosen.mr}, ()
    )
    choice.notes.append(
        f"{total.target}: packed lanes, {groups} groups, {chosen} ({row_axis} x {lane_axis}), "
        f"bound by {chosen.prediction.bound_by}"
    )
    packs = ("packed", packed.dot.neighbours)
    tiles = {lane_axis: ("lanes", chosen.nr), row_axis: ("unroll", chosen.mr), packed.depth: packs}
    return TiledNest(plan, tiles, order)


def _product(choice: Choice, plan: NestPlan) -> tuple[Contraction, PackedProduct]:
    """The product whose sums a nest adds up, and how it is packed."""
    kernel = choice.kernel
    product = contraction(kernel.statements[plan.groups[0]], kernel.weights)
    assert product is not None
    packed = packed_product(kernel, product, choice.target, [kernel.statements[i].target for i in plan.reductions])
    assert packed is not None
    return product, packed


def _adds_up(choice: Choice, before: NestPlan, plan: NestPlan) -> bool:
    """Whether all that reads the dot products of a nest is one sum of them, at the points where they are computed."""
    kernel = choice.kernel
    alone = not before.body and not before.epilogue and not before.groups and not plan.body
    if not alone or choice.sequential is not None or (len(before.reductions), len(plan.reductions)) != (1, 1):
        return False
    s, total = (kernel.statements[one.reductions[0]] for one in (before, plan))
    product = contraction(s, kernel.weights)
    own = tuple(Axis(a) for a in s.axes)
    read = all(x.index == own for x in total.reads if x.buffer == s.target)
    if kernel.readers(s.target) != [total] or not read or set(s.axes) != plan.box or product is None:
        return False
    assert total.reduction is not None
    if not {*total.reduction.axes} <= {*product.batch}:
        return False  # groups are parts of both factors' sums: what adds up rows takes them from a tile of products
    inside = s.target not in {p.name for p in kernel.outputs}
    return inside and packed_product(kernel, product, choice.target, (total.target,)) is not None
