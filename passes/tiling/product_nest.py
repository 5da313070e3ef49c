"""The nest of a sum of products: a register tile, and the constant operand packed for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from effcc.ir.contraction import Contraction, Operand, contraction
from effcc.ir.dims import Shape, elements
from effcc.ir.dots import TILE_ROW_BYTES
from effcc.ir.expr import Axis, Load
from effcc.ir.kernel import Kernel, Statement
from effcc.passes.tiling.access import PACKED_LOAD, lane_cost, layouts, stride
from effcc.passes.tiling.apart import seconds_apart
from effcc.passes.tiling.build import TiledAxis, TiledNest
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.chunk import PRODUCT, chunk_of
from effcc.passes.tiling.contraction import ContractionSchedule
from effcc.passes.tiling.describe import contraction_of
from effcc.passes.tiling.dots import PackedProduct, packed_product, vector_depth
from effcc.passes.tiling.few_rows import is_summed_along_rows
from effcc.passes.tiling.nests import NestPlan
from effcc.passes.tiling.pack import pack_along, packable
from effcc.passes.tiling.panel_nest import makes_panels

ROWS_WANTED = 14
"""A row axis this long serves any register tile: with two vectors of columns, 14 rows fill 32 registers."""
ROWS_LOSE_TASKS = 0.6
"""What a row is worth along an axis that tasks could take point by point: what the next nests read of a task must stay
in its cache, and grows with its rows."""
ROWS_AT_MOST = 28
"""Rows of the tallest register tile: 28 rows of one vector fill 32 registers."""
STACKING_GAINS = 0.97
"""Several lines in one tile must be predicted to be this much quicker: lines left over have code of their own."""
APART = 4
"""Elements that are so far from one another share a cache line with too few of those that follow."""
STORE_CONTIGUOUS, STORE_STRIDED = 0.02, 0.3
"""One vector of a product's result, in vector loads: a store comes once for a whole reduction of some 50 steps and
more; apart, it is as many stores as there are lanes."""


def product_of(kernel: Kernel, plan: NestPlan) -> Contraction | None:
    """The nest's contraction, if it has one that is computed in tiles of outer products."""
    found = (contraction(kernel.statements[i], kernel.weights) for i in plan.reductions)
    return next((c for c in found if c is not None and c.is_outer and not is_summed_along_rows(kernel, c)), None)


def product_nest(choice: Choice, plan: NestPlan, product: Contraction) -> TiledNest:
    """A register tile: lanes along an axis of one factor only, rows along an axis of the other only."""
    kernel, lanes = choice.kernel, choice.target.vector_lanes
    layout = layouts(kernel)
    statement = kernel.definition(product.target)
    assert statement is not None

    def lane_score(axis: str, own: Operand) -> float:
        cost = sum(_load_cost(kernel, load, axis, layout) for load in own.loads)
        extent = choice.count(axis)
        return (cost + _store_cost(statement, axis, layout)) * -(-extent // lanes) * lanes / max(extent, 1)

    summed = [s.target for s in kernel.statements if s.reduction is not None and s.target != product.target]
    packed = packed_product(kernel, product, choice.target, summed) if _alone(choice, plan) else None
    sides = [*((a, product.left) for a in product.rows), *((a, product.right) for a in product.columns)]
    lane_axis, columns_of = min(sides, key=lambda side: lane_score(*side))
    if packed is not None:
        lane_axis, columns_of = packed.lane_axis, packed.columns_of
    rows_of = product.right if columns_of is product.left else product.left
    row_axes = product.columns if columns_of is product.left else product.rows
    row_axis = max(reversed(row_axes), key=lambda a: _rows_gained(choice, plan, a))
    apart_rows = [x for x in dict.fromkeys(rows_of.loads) if _lies_apart(kernel, x, row_axis, product.depth, layout)]
    reduced = _reduced_order(product.depth, columns_of.loads if apart_rows else rows_of.loads, layout)
    if packed is not None:
        reduced = (*(a for a in reduced if a != packed.depth), packed.depth)
    kept = [a for a in plan.kept if a not in (lane_axis, row_axis)]
    order = (*kept, lane_axis, row_axis, *reduced)
    if packed is not None:
        return _packed_nest(choice, plan, product, packed, row_axis, reduced, order)
    constant = [x for x in columns_of.loads if x.buffer in kernel.weights and packable(kernel, x, lane_axis)]
    counts = {a: choice.count(a) for a in (*plan.kept, *plan.reduced)}

    def solved(counts: Mapping[str, int], block_k: bool) -> ContractionSchedule:
        return contraction_of(
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
            block_k,
            choice.target,
            choice.rank,
        )

    chosen = solved(counts, _may_rest(choice, plan, reduced[0]))
    beside = [a for a in row_axes if a in kept and isinstance(kernel.extents[a], int) and counts[a] > 1]
    stacked = _stacked(solved, counts, row_axis, beside[-1], chosen) if beside else None
    if stacked is not None:
        (over, lines), chosen = (beside[-1], stacked[0]), stacked[1]
        kept = [a for a in kept if a != over]
        order = (*kept, lane_axis, over, row_axis, *reduced)
    packs = (pack_along(x, lane_axis, chosen.nr, (*kept, row_axis, *reduced)) for x in dict.fromkeys(constant))
    choice.packs += packs
    if stacked is None and (chosen.mc % chosen.mr == 0 or chosen.mc >= counts[row_axis]):
        choice.packs += (pack_along(x, row_axis, chosen.mr, (*kept, *reduced)) for x in apart_rows)
    made = makes_panels(kernel, columns_of)
    if lane_axis in choice.shared and made:
        choice.tiles[lane_axis] = chosen.nr
    elif lane_axis in choice.shared:
        choice.tiles[lane_axis] = chosen.nc
        columns = max(choice.target.l2_bytes // 2 // _column_bytes(kernel, columns_of.loads, lane_axis), 1)
        others = (a for a in plan.kept if a not in (lane_axis, row_axis))
        again = [a for a in others if a in choice.shared and a not in columns_of.axes and choice.count(a) > 1]
        if columns_of.gathered or (again and columns < choice.count(lane_axis)):
            # Gathered rows come in any order, and a third axis reads all columns again at each point of it: either way
            # as many columns as L2 has room for, and all that is done with them before the next ones.
            most = max(min(chosen.nc, columns) // chosen.nr, 1)
            choice.tiles[lane_axis] = _even(-(-choice.count(lane_axis) // chosen.nr), most) * chosen.nr
            choice.outer = lane_axis
    if row_axis in choice.shared:
        choice.tiles[row_axis] = chosen.mc if stacked is None else counts[row_axis]
    if stacked is not None and over in choice.shared:
        choice.tiles[over] = lines
    if not choice.outer and _rows_shared_first(choice, rows_of, columns_of, row_axis):
        choice.outer = row_axis
    streamed = [x for x in columns_of.loads if x not in constant and not made]
    apart = seconds_apart(choice, plan, lane_axis, counts, {row_axis: chosen.mr}, streamed)
    choice.seconds += (chosen.prediction.seconds + apart) * choice.turns(plan)
    choice.notes.append(f"{product.target}: {chosen} ({row_axis} x {lane_axis}), bound by {chosen.prediction.bound_by}")
    tiles = {lane_axis: ("lanes", chosen.nr), row_axis: ("unroll", chosen.mr)}
    if stacked is not None:
        tiles |= {over: ("unroll", lines), row_axis: ("unroll", counts[row_axis])}
    block = TiledAxis(reduced[0], chosen.kc) if chosen.kc < counts[reduced[0]] else None
    counts[reduced[0]] = chosen.kc
    chunk = chunk_of(kernel, plan.reductions, reduced, counts, longest=PRODUCT)
    return TiledNest(plan, tiles, order, chunk, block)


def _rows_shared_first(choice: Choice, rows_of: Operand, columns_of: Operand, row_axis: str) -> bool:
    """Whether threads should share out rows before columns, so that each reads its part of the rows and all columns.

    Weights come from beyond L2 in any case, while rows lie where another kernel left them: a thread's own part in its
    L2, all others in those of other threads, from where they come no faster. So of A bytes of rows and W of columns T
    threads wait for W / T + A (T - 1) / T if they share out columns, for W + A / T (T - 1) / T if they share out rows.
    """
    kernel, threads = choice.kernel, choice.target.cores
    held = {p.name: elements(p.type.shape) * p.type.dtype.bytes for p in kernel.params}
    others = [a for a in choice.shared if a != row_axis and a not in columns_of.axes and choice.count(a) > 1]
    if threads == 1 or row_axis not in choice.shared or others or rows_of.constant or not columns_of.constant:
        return False
    if choice.count(row_axis) < threads * choice.tiles[row_axis] or rows_of.gathered or columns_of.gathered:
        return False
    rows, columns = (sum(held.get(b, 0) for b in {x.buffer for x in o.loads}) for o in (rows_of, columns_of))
    return columns * threads < rows * (threads - 1)


def _alone(choice: Choice, plan: NestPlan) -> bool:
    """Whether a nest computes one sum, over all of its axes at once, and nothing else before it."""
    return not plan.body and len(plan.reductions) == 1 and choice.sequential is None


def _packed_nest(
    choice: Choice,
    plan: NestPlan,
    product: Contraction,
    packed: PackedProduct,
    row_axis: str,
    reduced: Sequence[str],
    order: Sequence[str],
) -> TiledNest:
    """A nest of dot products of packed lanes, in vectors or on the matrix unit, whichever is predicted to be faster."""
    kernel, lane_axis, neighbours = choice.kernel, packed.lane_axis, packed.dot.neighbours
    columns_of = packed.columns_of
    rows_of = product.right if columns_of is product.left else product.left
    counts = {a: choice.count(a) for a in (*plan.kept, *plan.reduced)}

    def solved(depth: int) -> ContractionSchedule:
        return contraction_of(
            kernel,
            product,
            counts,
            lane_axis,
            row_axis,
            reduced,
            rows_of,
            columns_of,
            True,
            choice.shared,
            False,
            choice.target,
            choice.rank,
            depth,
        )

    depth = shallow = vector_depth(packed, counts[packed.depth], choice.target)
    chosen = solved(depth)
    known = all(isinstance(kernel.extents[a], int) for a in (row_axis, lane_axis, packed.depth))
    if choice.target.tile_registers and known and packed.dot.fits_tiles(columns_of.data.dtype):
        deep = TILE_ROW_BYTES // packed.dot.bytes
        depth, chosen = min((depth, chosen), (deep, solved(deep)), key=lambda one: one[1].prediction.seconds)
    on_unit = depth > shallow
    choice.packs.append(pack_along(columns_of.data, lane_axis, chosen.nr, order, neighbours))
    if lane_axis in choice.shared:
        choice.tiles[lane_axis] = chosen.nc
    if row_axis in choice.shared:
        choice.tiles[row_axis] = chosen.mc
    apart = seconds_apart(choice, plan, lane_axis, counts, {row_axis: chosen.mr}, ())
    choice.seconds += chosen.prediction.seconds + apart
    where = "tile registers" if on_unit else "packed lanes"
    bound = chosen.prediction.bound_by
    choice.notes.append(f"{product.target}: {where}, {chosen} ({row_axis} x {lane_axis}), bound by {bound}")
    tiles = {lane_axis: ("lanes", chosen.nr), row_axis: ("unroll", chosen.mr), packed.depth: ("packed", depth)}
    if on_unit:
        return TiledNest(plan, tiles, tuple(order), accumulators="tiles")
    chunk = chunk_of(kernel, plan.reductions, reduced, counts, PRODUCT // neighbours, neighbours)
    return TiledNest(plan, tiles, tuple(order), chunk)


def _stacked(
    solved: Callable[[Mapping[str, int], bool], ContractionSchedule],
    counts: Mapping[str, int],
    row_axis: str,
    over: str,
    alone: ContractionSchedule,
) -> tuple[int, ContractionSchedule] | None:
    """How many lines of `row_axis` (a whole row of pixels, say), one after the other along `over`, make the rows of one
    register tile, and its schedule; None where that is not quicker than rows of one line `alone`.

    Short lines need it: a tile of 7 pixels reads the panel of weights from L2 twice as often as one of 14.
    Lines left over have code of their own, so they are charged for what they are, not for a whole tile.
    """
    best: tuple[int, ContractionSchedule] | None = None
    for lines in range(2, min(counts[over], ROWS_AT_MOST // counts[row_axis]) + 1):
        tiles = -(-counts[over] // lines)
        found = solved({**counts, over: tiles, row_axis: lines * counts[row_axis]}, False)
        seconds = found.prediction.seconds * counts[over] / (tiles * lines)
        found = replace(found, prediction=replace(found.prediction, seconds=seconds))
        worth = STACKING_GAINS * (alone if best is None else best[1]).prediction.seconds
        if found.mr == found.mc == lines * counts[row_axis] and seconds < worth:
            best = lines, found
    return best


def _even(panels: int, most: int) -> int:
    """At most so many panels a task, and for all tasks the same number if that costs no more than twice the tasks: no
    thread waits for the task that got more, and no code is there for one that got less."""
    return next((n for n in range(most, most // 2, -1) if panels % n == 0), most)


def _may_rest(choice: Choice, plan: NestPlan, blocked: str) -> bool:
    """Whether partial sums may rest in the cache between blocks of k: a task then holds all its sums there, so it does
    nothing else, all axes that it runs whole would make it longer, and how long the `blocked` axis is must be known.
    """
    kernel = choice.kernel
    alone = len(plan.body) == 0 and len(plan.reductions) == 1 and choice.sequential is None
    alone = alone and len(plan.reductions) + len(plan.epilogue) == len(kernel.statements)
    known = isinstance(kernel.extents[blocked], int)
    return alone and known and set(plan.kept) <= {*choice.shared, *(a for a in plan.kept if kernel.extents[a] == 1)}


def _rows_gained(choice: Choice, plan: NestPlan, axis: str) -> float:
    """How good an axis is for register rows, in rows: where other nests follow, tasks should keep it whole."""
    followed = len(plan.body) + len(plan.reductions) + len(plan.epilogue) < len(choice.kernel.statements)
    return min(choice.count(axis), ROWS_WANTED) * (ROWS_LOSE_TASKS if followed and axis in choice.shared else 1.0)


def _load_cost(kernel: Kernel, load: Load, axis: str, layout: dict[str, Shape]) -> float:
    if load.buffer in kernel.weights and packable(kernel, load, axis):
        return PACKED_LOAD
    return lane_cost(load, axis, layout)


def _lies_apart(kernel: Kernel, load: Load, row_axis: str, reduced: Sequence[str], layout: dict[str, Shape]) -> bool:
    """Whether what a constant factor with rows has at a step, and at the next one, lies in as many cache lines: the
    taps of every eighth result, say, of which a line holds two."""
    if load.buffer not in kernel.weights or not packable(kernel, load, row_axis):
        return False
    steps = [stride(load, a, layout[load.buffer]) for a in (row_axis, *reduced)]
    return all(isinstance(n, int) and (abs(n) >= APART or n == 0) for n in steps) and any(steps[1:])


def _store_cost(statement: Statement, axis: str, layout: dict[str, Shape]) -> float:
    """What storing along `axis` costs, spread over the reduction that comes first."""
    step = stride(
        Load(statement.target, tuple(Axis(a) for a in statement.axes), statement.dtype), axis, layout[statement.target]
    )
    return STORE_CONTIGUOUS if step == 1 else STORE_STRIDED


def _reduced_order(depth: Sequence[str], rows_of: Sequence[Load], layout: dict[str, Shape]) -> tuple[str, ...]:
    """Reduced axes with the one along which the rows' operand is contiguous innermost."""

    def far(axis: str) -> float:
        steps = [stride(load, axis, layout[load.buffer]) for load in rows_of]
        return -min((float(s) if isinstance(s, int) and s > 0 else 1e9 for s in steps), default=1e9)

    return tuple(sorted(depth, key=far))


def _column_bytes(kernel: Kernel, columns_of: Sequence[Load], lane_axis: str) -> int:
    """Bytes of what operands hold at one point of the lanes axis."""
    held = {p.name: p.type for p in kernel.params}
    sizes = [elements(held[x.buffer].shape) * x.dtype.bytes for x in columns_of if x.buffer in held]
    return max(1, sum(sizes) // max(1, elements((kernel.extents[lane_axis],))))
