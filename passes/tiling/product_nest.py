"""The nest of a sum of products: a register tile, and the constant operand packed for it."""

from __future__ import annotations

from collections.abc import Sequence

from effcc.ir.dims import Shape, elements
from effcc.ir.expr import Axis, Call, Expr, Load, Reduce, children, walk
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.schedule import Nest, TiledAxis
from effcc.passes.tiling.access import PACKED_LOAD, lane_cost, layouts, stride
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.chunk import PRODUCT, chunk_of
from effcc.passes.tiling.describe import contraction_of
from effcc.passes.tiling.nests import NestPlan
from effcc.passes.tiling.pack import pack, packable

ROWS_WANTED = 14
"""A row axis this long serves any register tile: with two vectors of columns, 14 rows fill 32 registers."""
ROWS_LOSE_TASKS = 0.6
"""What a row is worth along an axis that tasks could take point by point: what the next nests read of a task must stay
in its cache, and grows with its rows."""
STORE_CONTIGUOUS, STORE_STRIDED = 0.02, 0.3
"""One vector of a product's result, in vector loads: a store comes once for a whole reduction of some 50 steps and
more; apart, it is as many stores as there are lanes."""


def product_of(kernel: Kernel, plan: NestPlan) -> Statement | None:
    """The nest's sum of products, if it has one."""
    for i in plan.reductions:
        s = kernel.statements[i]
        if s.reduction is not None and s.reduction.operator == "sum" and operands(s) is not None:
            return s
    return None


def operands(statement: Statement) -> tuple[list[Load], list[Load]] | None:
    """The loads of the two factors of a sum of products, where each has a kept axis that the other lacks."""
    reduce = statement.reduction
    if reduce is None or not isinstance(reduce.body, Call) or reduce.body.function != "mul":
        return None
    left, right = (_data(o) for o in reduce.body.operands)
    kept = set(statement.axes)
    a = {x.name for load in left for i in load.index for x in walk(i) if isinstance(x, Axis)} & kept
    b = {x.name for load in right for i in load.index for x in walk(i) if isinstance(x, Axis)} & kept
    return (left, right) if a - b and b - a else None


def _data(e: Expr) -> list[Load]:
    """The loads of an expression, without those that only say where another one reads."""
    return [e] if isinstance(e, Load) else [load for part in children(e) for load in _data(part)]


def product_nest(choice: Choice, plan: NestPlan, product: Statement) -> Nest:
    """A register tile: lanes along an axis of one factor only, rows along an axis of the other only."""
    kernel, lanes = choice.kernel, choice.target.vector_lanes
    pair = operands(product)
    assert pair is not None and product.reduction is not None
    layout = layouts(kernel)
    best: tuple[float, str, int] | None = None
    for side in (0, 1):
        own, other = pair[side], pair[1 - side]
        for axis in _only(own, other, product.axes):
            cost = sum(_load_cost(kernel, load, axis, layout) for load in own)
            cost += _store_cost(kernel, product, axis, layout)
            extent = choice.count(axis)
            waste = -(-extent // lanes) * lanes / max(extent, 1)
            score = cost * waste
            if best is None or score < best[0]:
                best = (score, axis, side)
    assert best is not None
    _, lane_axis, side = best
    rows_of, columns_of = pair[1 - side], pair[side]
    row_axes = _only(rows_of, columns_of, product.axes)
    tileable = [a for a in row_axes if a in plan.kept]
    row_axis = max(reversed(tileable), key=lambda a: _rows_gained(choice, plan, a))
    reduced = _reduced_order(product.reduction, rows_of, layout)
    kept = [a for a in plan.kept if a not in (lane_axis, row_axis)]
    order = (*kept, lane_axis, row_axis, *reduced)
    constant = [x for x in columns_of if x.buffer in kernel.weights and packable(kernel, x, lane_axis)]
    counts = {a: choice.count(a) for a in (*plan.kept, *plan.reduced)}
    chosen = contraction_of(
        kernel,
        product,
        counts,
        lane_axis,
        row_axis,
        reduced,
        rows_of,
        columns_of,
        bool(constant),
        choice.shared,
        choice.target,
    )
    for load in constant:
        choice.kernel, packed = pack(choice.kernel, load, lane_axis, chosen.nr, (*kept, row_axis, *reduced))
        choice.packs.append(packed)
    if lane_axis in choice.shared:
        choice.tiles[lane_axis] = chosen.nc
        columns = max(choice.target.l2_bytes // 2 // _column_bytes(kernel, columns_of, lane_axis), 1)
        gathered = any(isinstance(e, Load) for x in columns_of for i in x.index for e in walk(i))
        elsewhere = {x.name for load in columns_of for i in load.index for x in walk(i) if isinstance(x, Axis)}
        again = [a for a in kept if a in choice.shared and a not in elsewhere and choice.count(a) > 1]
        if gathered or (again and columns < choice.count(lane_axis)):
            # Gathered rows come in any order, and a third axis reads all columns again at each point of it: either way
            # as many columns as L2 has room for, and all that is done with them before the next ones.
            choice.tiles[lane_axis] = min(chosen.nc, max(columns // chosen.nr, 1) * chosen.nr)
            choice.outer = lane_axis
    if row_axis in choice.shared:
        choice.tiles[row_axis] = chosen.mc
    choice.seconds += chosen.prediction.seconds * choice.turns(plan)
    choice.notes.append(f"{product.target}: {chosen} ({row_axis} x {lane_axis}), bound by {chosen.prediction.bound_by}")
    return Nest(
        plan.kept, plan.reduced, tuple(plan.body), tuple(plan.reductions), tuple(plan.epilogue),
        TiledAxis(lane_axis, chosen.nr), (TiledAxis(row_axis, chosen.mr),), order, plan.phase,
        chunk_of(kernel, plan.reductions, reduced, counts, longest=PRODUCT),
    )  # fmt: skip


def _rows_gained(choice: Choice, plan: NestPlan, axis: str) -> float:
    """How good an axis is for register rows, in rows: where other nests follow, tasks should keep it whole."""
    followed = len(plan.body) + len(plan.reductions) + len(plan.epilogue) < len(choice.kernel.statements)
    return min(choice.count(axis), ROWS_WANTED) * (ROWS_LOSE_TASKS if followed and axis in choice.shared else 1.0)


def _only(own: Sequence[Load], other: Sequence[Load], kept: Sequence[str]) -> list[str]:
    """The kept axes that occur in `own` and not in `other`, in order."""
    mine = {x.name for load in own for i in load.index for x in walk(i) if isinstance(x, Axis)}
    theirs = {x.name for load in other for i in load.index for x in walk(i) if isinstance(x, Axis)}
    return [a for a in kept if a in mine and a not in theirs]


def _load_cost(kernel: Kernel, load: Load, axis: str, layout: dict[str, Shape]) -> float:
    if load.buffer in kernel.weights and packable(kernel, load, axis):
        return PACKED_LOAD
    return lane_cost(load, axis, layout)


def _store_cost(kernel: Kernel, statement: Statement, axis: str, layout: dict[str, Shape]) -> float:
    """What storing along `axis` costs, spread over the reduction that comes first."""
    step = stride(
        Load(statement.target, tuple(Axis(a) for a in statement.axes), statement.dtype), axis, layout[statement.target]
    )
    return STORE_CONTIGUOUS if step == 1 else STORE_STRIDED


def _reduced_order(reduce: Reduce, rows_of: Sequence[Load], layout: dict[str, Shape]) -> tuple[str, ...]:
    """Reduced axes with the one along which the rows' operand is contiguous innermost."""

    def far(axis: str) -> float:
        steps = [stride(load, axis, layout[load.buffer]) for load in rows_of]
        return -min((float(s) if isinstance(s, int) and s > 0 else 1e9 for s in steps), default=1e9)

    return tuple(sorted(reduce.axes, key=far))


def _column_bytes(kernel: Kernel, columns_of: Sequence[Load], lane_axis: str) -> int:
    """Bytes of what operands hold at one point of the lanes axis."""
    held = {p.name: p.type for p in kernel.params}
    sizes = [elements(held[x.buffer].shape) * x.dtype.bytes for x in columns_of if x.buffer in held]
    return max(1, sum(sizes) // max(1, elements((kernel.extents[lane_axis],))))
