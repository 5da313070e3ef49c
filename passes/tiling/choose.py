"""The schedule of a kernel: nests, lanes, register tiles, parallel tiles, packed operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from effcc.ir.dims import Shape, elements
from effcc.ir.expr import Axis, Call, Expr, Load, Reduce, children, walk
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.schedule import Nest, Pack, Schedule, TiledAxis
from effcc.passes.tiling.access import CONTIGUOUS_LOAD, lane_cost, layouts, stride
from effcc.passes.tiling.chunk import PRODUCT, SUM, chunk_of
from effcc.passes.tiling.describe import contraction_of, pointwise_of, reduction_of
from effcc.passes.tiling.nests import NestPlan, online_axis, plan_nests, shared_axes
from effcc.passes.tiling.pack import pack
from effcc.target import Target

SHARED_BY = 8
"""So many results at most share one gather: each needs accumulators of its own."""
ONLINE_TILE, ONLINE_TILE_DYNAMIC = 256, 64
"""Points of the axis that a one-pass kernel (attention's keys) walks at a time: a tile of scores for some 16 rows then
fits beside its operands in L1. Fewer where the extent is known at run time only: what is left over runs unvectorized.
"""
ROWS_WANTED = 14
"""A row axis this long serves any register tile: with two vectors of columns, 14 rows fill 32 registers."""
PACKED_LOAD = 0.8 * CONTIGUOUS_LOAD
"""One vector of an operand that will be packed, in vector loads: contiguous, aligned, and no page of its own."""
STORE_CONTIGUOUS, STORE_STRIDED = 0.02, 0.3
"""One vector of a product's result, in vector loads: a store comes once for a whole reduction of some 50 steps and
more; apart, it is as many stores as there are lanes."""
COMBINE_LANES = 6.0
"""To combine the lanes of one vector at the end of a row, in vector loads: shuffles and additions in sequence."""
LOSES_ROWS = 1.5
"""By how many times dearer lanes are along rows that tasks could take one by one: intermediates grow from one row to as
many as there are lanes, and take more of L1. Loads apart in memory cost more than that."""


@dataclass
class _Choice:
    """What has been decided so far for one kernel."""

    kernel: Kernel
    target: Target
    shared: tuple[str, ...]
    tiles: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    outer: str = ""
    inner: str = ""
    packs: list[Pack] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def choose(kernel: Kernel, target: Target) -> tuple[Kernel, Schedule]:
    """The kernel, reading packed operands where it should, and its schedule on `target`."""
    choice = _Choice(kernel, target, shared_axes(kernel))
    sequential = _sequential(choice)
    plans = plan_nests(kernel, sequential.axis if sequential is not None else None)
    heavy = [p for p in plans if _products(kernel, p)]
    choice.tiles = dict.fromkeys(choice.shared, 1)
    nests = [_nest(choice, p, sequential) for p in sorted(plans, key=lambda p: p not in heavy)]
    order = {id(p): n for n, p in enumerate(sorted(plans, key=lambda p: p not in heavy))}
    nests = [nests[order[id(p)]] for p in plans]
    parallel = tuple(TiledAxis(a, choice.tiles[a]) for a in _parallel_order(choice, nests))
    return choice.kernel, Schedule(
        parallel, tuple(nests), sequential, tuple(choice.packs), choice.seconds, tuple(choice.notes)
    )


def _sequential(choice: _Choice) -> TiledAxis | None:
    kernel = choice.kernel
    if kernel.scans:
        return TiledAxis(kernel.scans[0], 1)
    axis = online_axis(kernel)
    if axis is not None:
        known, extent = isinstance(kernel.extents[axis], int), elements((kernel.extents[axis],))
        return TiledAxis(axis, max(min(ONLINE_TILE, extent), 1) if known else ONLINE_TILE_DYNAMIC)
    return None


def _products(kernel: Kernel, plan: NestPlan) -> Statement | None:
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


def _nest(choice: _Choice, plan: NestPlan, sequential: TiledAxis | None) -> Nest:
    product = _products(choice.kernel, plan)
    if product is not None:
        return _product_nest(choice, plan, product, sequential)
    return _plain_nest(choice, plan, sequential)


def _count(choice: _Choice, axis: str, sequential: TiledAxis | None) -> int:
    """How many points of an axis a nest can tile: those of its tile where a loop outside already cuts it."""
    if sequential is not None and axis == sequential.axis:
        return sequential.tile
    return max(elements((choice.kernel.extents[axis],)), 1)


def _product_nest(choice: _Choice, plan: NestPlan, product: Statement, sequential: TiledAxis | None) -> Nest:
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
            extent = _count(choice, axis, sequential)
            waste = -(-extent // lanes) * lanes / max(extent, 1)
            score = cost * waste
            if best is None or score < best[0]:
                best = (score, axis, side)
    assert best is not None
    _, lane_axis, side = best
    rows_of, columns_of = pair[1 - side], pair[side]
    row_axes = _only(rows_of, columns_of, product.axes)
    tileable = [a for a in row_axes if a in plan.kept]
    row_axis = max(reversed(tileable), key=lambda a: min(_count(choice, a, sequential), ROWS_WANTED))
    reduced = _reduced_order(product.reduction, rows_of, layout)
    kept = [a for a in plan.kept if a not in (lane_axis, row_axis)]
    order = (*kept, lane_axis, row_axis, *reduced)
    constant = [x for x in columns_of if x.buffer in kernel.weights and _packable(kernel, x, lane_axis)]
    counts = {a: _count(choice, a, sequential) for a in (*plan.kept, *plan.reduced)}
    chosen = contraction_of(
        kernel, product, counts, lane_axis, row_axis, reduced, rows_of, columns_of, bool(constant), choice.target
    )
    for load in constant:
        choice.kernel, packed = pack(choice.kernel, load, lane_axis, chosen.nr, (*kept, row_axis, *reduced))
        choice.packs.append(packed)
    if lane_axis in choice.shared:
        choice.tiles[lane_axis] = chosen.nc
        columns = max(choice.target.l2_bytes // 2 // _column_bytes(kernel, columns_of, lane_axis), 1)
        gathered = any(isinstance(e, Load) for x in columns_of for i in x.index for e in walk(i))
        elsewhere = {x.name for load in columns_of for i in load.index for x in walk(i) if isinstance(x, Axis)}
        again = [a for a in kept if a in choice.shared and a not in elsewhere and _count(choice, a, sequential) > 1]
        if gathered or (again and columns < _count(choice, lane_axis, sequential)):
            # Gathered rows come in any order, and a third axis reads all columns again at each point of it: either way
            # as many columns as L2 has room for, and all that is done with them before the next ones.
            choice.tiles[lane_axis] = min(chosen.nc, max(columns // chosen.nr, 1) * chosen.nr)
            choice.outer = lane_axis
    if row_axis in choice.shared:
        choice.tiles[row_axis] = chosen.mc
    choice.seconds += chosen.prediction.seconds
    choice.notes.append(f"{product.target}: {chosen} ({row_axis} x {lane_axis}), bound by {chosen.prediction.bound_by}")
    return Nest(
        plan.kept, plan.reduced, tuple(plan.body), tuple(plan.reductions), tuple(plan.epilogue),
        TiledAxis(lane_axis, chosen.nr), (TiledAxis(row_axis, chosen.mr),), order, plan.phase,
        chunk_of(kernel, plan.reductions, reduced, counts, longest=PRODUCT),
    )  # fmt: skip


def _only(own: Sequence[Load], other: Sequence[Load], kept: Sequence[str]) -> list[str]:
    """The kept axes that occur in `own` and not in `other`, in order."""
    mine = {x.name for load in own for i in load.index for x in walk(i) if isinstance(x, Axis)}
    theirs = {x.name for load in other for i in load.index for x in walk(i) if isinstance(x, Axis)}
    return [a for a in kept if a in mine and a not in theirs]


def _packable(kernel: Kernel, load: Load, axis: str) -> bool:
    """Whether the buffer can be stored anew: read at one index only, which depends on no data and known sizes."""
    if any(other.buffer == load.buffer and other != load for s in kernel.statements for other in s.reads):
        return False
    return not any(isinstance(e, Load) for i in load.index for e in walk(i)) and all(
        isinstance(kernel.extents[e.name], int) for i in load.index for e in walk(i) if isinstance(e, Axis)
    )


def _load_cost(kernel: Kernel, load: Load, axis: str, layout: dict[str, Shape]) -> float:
    if load.buffer in kernel.weights and _packable(kernel, load, axis):
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


def _plain_nest(choice: _Choice, plan: NestPlan, sequential: TiledAxis | None) -> Nest:
    """Pointwise statements and reductions: lanes where most loads and stores are contiguous."""
    kernel, lanes = choice.kernel, choice.target.vector_lanes
    layout = layouts(kernel)
    candidates = [a for a in (*plan.kept, *plan.reduced) if kernel.extents[a] != 1]
    if sequential is not None and sequential.tile == 1:
        candidates = [a for a in candidates if a != sequential.axis]
    statements = [kernel.statements[i] for i in (*plan.body, *plan.reductions, *plan.epilogue)]
    if any(s.scatter is not None for s in statements) or not candidates:
        return Nest(
            plan.kept, plan.reduced, tuple(plan.body), tuple(plan.reductions), tuple(plan.epilogue), phase=plan.phase
        )

    # Rows of their own stay so where a row fills a vector; a window of 3 x 3 does not.
    fills = any(a not in choice.shared and _count(choice, a, sequential) >= lanes for a in candidates)

    def cost(axis: str) -> float:
        extent = _count(choice, axis, sequential)
        waste = -(-extent // lanes) * lanes / max(extent, 1)
        fixed = axis in choice.shared and choice.tiles[axis] == 1 and fills
        combine = COMBINE_LANES * lanes / points if axis in plan.reduced else 0.0
        return _point_cost(kernel, plan, axis, points, layout) * waste * (LOSES_ROWS if fixed else 1.0) + combine

    points = prod(_count(choice, a, sequential) for a in plan.reduced)
    axis = min(reversed(candidates), key=cost)
    counts = {a: _count(choice, a, sequential) for a in (*plan.kept, *plan.reduced)}
    if plan.reductions:
        reduction = reduction_of(kernel, statements, counts, plan.reduced, axis, choice.target)
        vectors, prediction, note = reduction.accumulators, reduction.prediction, str(reduction)
        # Tasks are rows; where lanes are rows too, and the other rows are fewer than the tasks, tasks cut the lanes.
        others = prod(counts[a] for a in choice.shared if a != axis and a in plan.kept)
        block = -(-counts[axis] // -(-reduction.row_parts // others))
    else:
        pointwise = pointwise_of(kernel, statements, counts, axis, choice.target)
        block = -(-counts[axis] // pointwise.column_parts)
        vectors, prediction, note = pointwise.unroll, pointwise.prediction, str(pointwise)
        crossing = _crossing(kernel, statements, axis, layout)
        if crossing is not None and {axis, crossing} <= set(choice.shared):
            # Every lane has a cache line of its own: few at a time, and all of each line before the next ones.
            vectors, block, choice.outer, choice.inner = 1, lanes, axis, crossing
            note += f", line by line along {crossing}"
    sharing = _sharing(kernel, plan, axis, layout)
    if sharing is not None:
        vectors = max(1, min(vectors, choice.target.vector_registers // 2 // counts[sharing]))
        note += f", gathers shared by {sharing}"
        if sharing in choice.shared:
            choice.tiles[sharing] = counts[sharing]
    unroll = () if sharing is None else (TiledAxis(sharing, counts[sharing]),)
    width = lanes * min(vectors, -(-counts[axis] // lanes))
    reduced = (*(a for a in plan.reduced if a != axis), *((axis,) if axis in plan.reduced else ()))
    last = (sharing, axis)
    kept = (*(a for a in plan.kept if a not in last), *(a for a in last if a in plan.kept))
    for load in _scattered(kernel, plan, axis, layout):
        choice.kernel, packed = pack(choice.kernel, load, axis, width, (*kept, *reduced))
        choice.packs.append(packed)
    if axis in choice.shared and choice.tiles[axis] == 1:
        choice.tiles[axis] = -(-block // width) * width
    choice.seconds += prediction.seconds
    choice.notes.append(f"{statements[0].target}: {note}, bound by {prediction.bound_by}")
    return Nest(
        plan.kept, plan.reduced, tuple(plan.body), tuple(plan.reductions), tuple(plan.epilogue),
        TiledAxis(axis, width), unroll, (*kept, *reduced), plan.phase,
        chunk_of(kernel, plan.reductions, reduced, counts, SUM, lanes=width if axis in plan.reduced else 1),
    )  # fmt: skip


def _point_cost(kernel: Kernel, plan: NestPlan, axis: str, points: int, layout: dict[str, Shape]) -> float:
    """Loads and stores of a nest at one of a row's `points`, with lanes along `axis`, in vector loads.

    What comes once a row (a reduction's result, the epilogue) counts by its share.
    """
    packed = _scattered(kernel, plan, axis, layout)
    total = 0.0
    for i in (*plan.body, *plan.reductions, *plan.epilogue):
        s = kernel.statements[i]
        reads = sum(PACKED_LOAD if load in packed else lane_cost(load, axis, layout) for load in s.reads)
        store = lane_cost(Load(s.target, tuple(Axis(a) for a in s.axes), s.dtype), axis, layout)
        total += reads / (points if i in plan.epilogue else 1) + store / (1 if i in plan.body else points)
    return total


def _crossing(kernel: Kernel, statements: Sequence[Statement], axis: str, layout: dict[str, Shape]) -> str | None:
    """The axis along which an operand is contiguous whose elements along the lanes are apart; None if there is none."""
    stores = [Load(s.target, tuple(Axis(a) for a in s.axes), s.dtype) for s in statements if s.target in layout]
    for load in [*(x for s in statements for x in s.reads), *stores]:
        steps = {a: stride(load, a, layout[load.buffer.rstrip("'")]) for a in kernel.extents}
        if steps[axis] not in (0, 1, None):
            found = next((a for a, step in steps.items() if step == 1), None)
            if found is not None:
                return found
    return None


def _column_bytes(kernel: Kernel, columns_of: Sequence[Load], lane_axis: str) -> int:
    """Bytes of what operands hold at one point of the lanes axis."""
    held = {p.name: p.type for p in kernel.params}
    sizes = [elements(held[x.buffer].shape) * x.dtype.bytes for x in columns_of if x.buffer in held]
    return max(1, sum(sizes) // max(1, elements((kernel.extents[lane_axis],))))


def _sharing(kernel: Kernel, plan: NestPlan, axis: str, layout: dict[str, Shape]) -> str | None:
    """A short kept axis that gathers along the lanes lack: unrolled, it makes one gather serve all its points."""
    reads = [load for i in plan.reductions for load in kernel.statements[i].reads]
    gathers = [x for x in reads if stride(x, axis, layout[x.buffer.rstrip("'")]) is None]
    if not gathers or len(plan.reductions) != 1:
        return None
    others = [x for x in reads if x not in gathers]
    for a in plan.kept:
        extent = kernel.extents[a]
        short = isinstance(extent, int) and 1 < extent <= SHARED_BY
        if a != axis and short and any(a in _axes(x) for x in others) and not any(a in _axes(x) for x in gathers):
            return a
    return None


def _scattered(kernel: Kernel, plan: NestPlan, axis: str, layout: dict[str, Shape]) -> list[Load]:
    """Constant operands of a reduction, read again and again, whose elements along the lanes are apart."""
    reads = dict.fromkeys(load for i in plan.reductions for load in kernel.statements[i].reads)
    constant = [x for x in reads if x.buffer in kernel.weights and _packable(kernel, x, axis)]
    again = [x for x in constant if any(kernel.extents[a] != 1 for a in plan.kept if a not in _axes(x))]
    return [x for x in again if stride(x, axis, layout[x.buffer]) not in (0, 1)]


def _axes(load: Load) -> set[str]:
    """The axes that decide where a load reads."""
    return {e.name for i in load.index for e in walk(i) if isinstance(e, Axis)}


def _parallel_order(choice: _Choice, nests: Sequence[Nest]) -> list[str]:
    """Shared axes, outermost first: lanes of packed products before rows, so that a panel stays in the cache."""
    lanes = [n.lanes.axis for n in nests if n.lanes is not None and n.lanes.axis in choice.shared and n.unroll]
    rows = [t.axis for n in nests for t in n.unroll if t.axis in choice.shared]
    rest = [a for a in choice.shared if a not in lanes and a not in rows]
    order = [*dict.fromkeys((*rest, *lanes, *rows))]
    outer = [a for a in order if a == choice.outer]
    inner = [a for a in order if a == choice.inner]
    return [*outer, *(a for a in order if a not in (*outer, *inner)), *inner]
