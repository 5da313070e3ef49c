"""The nest of pointwise statements and reductions: lanes where most loads and stores are contiguous."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from effcc.ir.affine import coefficient
from effcc.ir.codes import largest_code, reads_table
from effcc.ir.dims import Shape, contiguous_strides
from effcc.ir.expr import Axis, Load, ends_at, walk
from effcc.ir.kernel import Kernel, Statement
from effcc.passes.tiling.access import PACKED_LOAD, lane_cost, layouts, store_cost, stride
from effcc.passes.tiling.apart import seconds_apart
from effcc.passes.tiling.build import TiledAxis, TiledNest
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.chunk import SUM, chunk_of
from effcc.passes.tiling.cost import Prediction
from effcc.passes.tiling.describe import pointwise_of, reduction_of, window_of
from effcc.passes.tiling.few_rows import rows_together
from effcc.passes.tiling.interleaved import interleaved
from effcc.passes.tiling.nests import NestPlan
from effcc.passes.tiling.pack import pack_along, packable
from effcc.passes.tiling.reduction import ROWS_TOGETHER
from effcc.passes.tiling.scatters import row_axis
from effcc.passes.tiling.taps import Taps, guards, taps_of
from effcc.passes.tiling.turns import turned_nest, turns

SHARED_BY = 8
"""So many results at most share one gather: each needs accumulators of its own."""
SIDE_BY_SIDE = 4
"""So many results are stored together where lanes lie across the rows of what is written."""
COMBINE_LANES = 6.0
"""To combine the lanes of one vector at the end of a row, in vector loads: shuffles and additions in sequence."""
LOSES_ROWS = 1.5
"""By how many times dearer lanes are along rows that tasks could take one by one: intermediates grow from one row to as
many as there are lanes, and take more of L1. Loads apart in memory cost more than that."""
MASK = 1.0
"""What a load costs besides, in vector loads, whose lanes may lie outside of what they read: a mask for each vector."""
TASKS_A_CORE = 4
"""Tasks for each core, if there are so many, so that none waits long for the last one."""


def plain_nest(choice: Choice, plan: NestPlan) -> TiledNest:
    """Pointwise statements and reductions: lanes where most loads and stores are contiguous."""
    kernel = choice.kernel
    pinned = _pinned(kernel)
    candidates = [a for a in (*plan.kept, *plan.reduced) if kernel.extents[a] != 1 and a not in pinned]
    if choice.sequential is not None and choice.sequential.tile == 1:
        candidates = [a for a in candidates if a != choice.sequential.axis]
    written = next((s for s in _statements(kernel, plan) if s.scatter is not None), None)
    if written is not None:
        return _scatter_nest(choice, plan, written)
    if not candidates:
        return TiledNest(plan, {})
    layout, windows = layouts(kernel, choice.lanes), taps_of(kernel, plan)
    pairs = interleaved(choice, plan, layout)
    if pairs is not None:
        return pairs
    axis = _lanes_axis(choice, plan, candidates, layout, windows)
    scattered = _scattered(kernel, plan, axis, layout)
    if axis in windows:
        return _window_nest(choice, plan, axis, windows[axis], scattered)
    sharing = _sharing(kernel, plan, axis, layout, pinned)
    beside = _beside(choice, plan, axis, layout) or _waiting(choice, plan, axis) if sharing is None else None
    crossing = None if plan.reductions else _crossing(kernel, _statements(kernel, plan), axis, layout)
    for along, across in ((axis, crossing), (crossing, axis)) if not scattered else ():
        if along is not None and across is not None and turns(choice, plan, along, across, layout):
            return turned_nest(choice, plan, along, across, layout)
    layout = layout | {load.buffer: _packed_layout(kernel, load, axis) for load in scattered}
    if plan.reductions:
        solved = _reduction(choice, plan, axis, layout, sharing, beside)
    else:
        solved = _points(choice, plan, axis, layout, crossing)
    return _tiled(choice, plan, axis, solved, scattered)


def _scatter_nest(choice: Choice, plan: NestPlan, s: Statement) -> TiledNest:
    """A scatter, which stands alone: whole rows in the lanes, if they lie in memory as they are written."""
    axis = row_axis(choice.kernel, s)
    extent = None if axis is None else choice.kernel.extents[axis]
    if axis is None or not isinstance(extent, int) or axis in choice.shared:
        return TiledNest(plan, {})
    return TiledNest(plan, {axis: ("lanes", extent)}, (*(a for a in plan.kept if a != axis), axis))


def _lanes_axis(
    choice: Choice,
    plan: NestPlan,
    candidates: Sequence[str],
    layout: dict[str, Shape],
    windows: Mapping[str, Taps],
) -> str:
    """The axis along which a point costs least in the lanes; of equals the last."""
    lanes, counts = choice.target.vector_lanes, choice.counts(plan)
    points = prod(counts[a] for a in plan.reduced)
    # Rows of their own stay so where a row fills a vector (a window of 3 x 3 does not), and other nests follow.
    followed = len(_statements(choice.kernel, plan)) < len(choice.kernel.statements)
    fills = followed and any(a not in choice.shared and counts[a] >= lanes for a in candidates)

    def cost(axis: str) -> float:
        extent = counts[axis]
        waste = -(-extent // lanes) * lanes / max(extent, 1)
        lost = LOSES_ROWS if fills and axis in _free(choice) else 1.0
        combine = COMBINE_LANES * lanes / points if axis in plan.reduced else 0.0
        beside = _beside(choice, plan, axis, layout)
        alike = _read_apart(choice, plan, axis, layout) if beside is not None else []
        shares = dict.fromkeys((x for x in alike if beside not in _axes(x)), 1 / ROWS_TOGETHER[-1])
        return _point_cost(choice.kernel, plan, axis, points, layout, windows, shares) * waste * lost + combine

    return min(reversed(candidates), key=cost)


def _free(choice: Choice) -> list[str]:
    """The axes of tasks that no nest of the kernel has cut yet."""
    return [a for a in choice.shared if choice.tiles[a] == 1]


def _given(choice: Choice, axis: str) -> int:
    """How many points of an axis a task has, where an earlier nest has decided it; else 0."""
    return choice.tiles[axis] if axis in choice.shared and axis not in _free(choice) else 0


@dataclass(frozen=True)
class _Solved:
    """What a model decided: points along the lanes that are computed at once, and those that a task has; `together`:
    points of another axis for which something is read once.
    """

    at_once: int
    task: int
    prediction: Prediction
    note: str
    strip: TiledAxis | None = None
    together: TiledAxis | None = None


def _reduction(
    choice: Choice, plan: NestPlan, axis: str, layout: dict[str, Shape], sharing: TiledAxis | None, beside: str | None
) -> _Solved:
    """Reductions; accumulators are vectors of rows, or parts of one row. `sharing`: points of an axis that share a
    gather; `beside`: one of rows, some of which may share what they read alike."""
    counts = choice.counts(plan)
    together = 1 if sharing is None else sharing.tile
    found = reduction_of(
        layout, _statements(choice.kernel, plan), counts, plan.reduced, axis, together, choice.shared,
        _given(choice, axis), choice.target, choice.rank, choice.once, beside or "",
    )  # fmt: skip
    note = str(found) if sharing is None else f"{found}, gathers shared by {sharing.tile} of {sharing.axis}"
    rows = sharing
    if beside is not None and found.together > 1:
        rows = TiledAxis(beside, found.together)
    return _Solved(found.accumulators * found.lanes, found.tile * found.lanes, found.prediction, note, together=rows)


def _points(choice: Choice, plan: NestPlan, axis: str, layout: dict[str, Shape], crossing: str | None) -> _Solved:
    """Pointwise statements; where an operand is contiguous along another axis, that one is cut into blocks of rows.

    The steps of a scan all run in one task, which is claimed, and whose thread wakes, once for all of them.
    """
    statements, counts, turns = _statements(choice.kernel, plan), choice.counts(plan), choice.turns(plan)
    scans = [a for a in choice.kernel.scans if counts.get(a) == 1]
    found = pointwise_of(
        layout, statements, counts | dict.fromkeys(scans, turns), axis, crossing, choice.shared,
        _given(choice, axis), choice.target, choice.rank, choice.once,
    )  # fmt: skip
    prediction = replace(found.prediction, seconds=found.prediction.seconds / turns) if scans else found.prediction
    at_once, task = found.unroll * found.lanes, found.tile * found.lanes
    if crossing is None or found.block == 1:
        return _Solved(at_once, task, prediction, str(found))
    choice.tiles[crossing], choice.inner = found.block, crossing
    strip = TiledAxis(axis, at_once) if task > at_once else None
    return _Solved(at_once, task, prediction, f"{found} along {crossing}", strip)


def _tiled(choice: Choice, plan: NestPlan, axis: str, solved: _Solved, scattered: Sequence[Load]) -> TiledNest:
    """The nest as it was solved, `axis` in the lanes and innermost, points that share what they read unrolled."""
    sharing = solved.together.axis if solved.together is not None else None
    kernel, lanes, counts = choice.kernel, choice.target.vector_lanes, choice.counts(plan)
    width = min(solved.at_once, solved.task if axis in plan.kept else -(-counts[axis] // lanes) * lanes)
    reduced = (*(a for a in plan.reduced if a != axis), *((axis,) if axis in plan.reduced else ()))
    last = (sharing, axis)
    kept = (*(a for a in plan.kept if a not in last), *(a for a in last if a in plan.kept))
    choice.packs += [pack_along(load, axis, width, (*kept, *reduced)) for load in scattered]
    if axis in plan.kept and axis in _free(choice):
        choice.tiles[axis] = solved.task
    tiles = {axis: ("lanes", width)}
    if solved.together is not None:
        tiles[solved.together.axis] = ("unroll", solved.together.tile)
        if sharing in choice.shared:
            choice.tiles[solved.together.axis] = solved.together.tile
    choice.seconds += solved.prediction.seconds * choice.turns(plan)
    first = _statements(kernel, plan)[0].target
    choice.notes.append(f"{first}: {solved.note}, bound by {solved.prediction.bound_by}")
    chunk = chunk_of(kernel, plan.reductions, reduced, counts, SUM, lanes=width if axis in plan.reduced else 1)
    return TiledNest(plan, tiles, (*kept, *reduced), chunk, strip=solved.strip)


def _statements(kernel: Kernel, plan: NestPlan) -> list[Statement]:
    return [kernel.statements[i] for i in (*plan.body, *plan.reductions, *plan.epilogue)]


def _window_nest(choice: Choice, plan: NestPlan, axis: str, taps: Taps, scattered: Sequence[Load]) -> TiledNest:
    """Windows, channel by channel: lanes are channels, neighbouring points share what they load."""
    kernel = choice.kernel
    counts = {a: choice.count(a) for a in (*plan.kept, *plan.reduced)}
    window = window_of(
        kernel, plan, counts, axis, taps, scattered, choice.target, choice.rank, choice.lanes, choice.shared
    )
    width, line = window.lanes * window.vectors, taps.line
    wide = -(-counts[axis] // width) * width
    # Tasks are lines, cut along channels and then along the line itself where lines are few.
    tasks = prod(counts[a] for a in choice.shared if a in plan.kept and a not in (axis, line))
    wanted = TASKS_A_CORE * choice.target.cores
    if axis in choice.shared and choice.tiles[axis] == 1:
        parts = min(-(-wanted // tasks), wide // width)
        choice.tiles[axis] = -(-wide // width // parts) * width
        tasks *= -(-wide // choice.tiles[axis])
    if line in choice.shared and choice.tiles[line] == 1:
        tiles = -(-counts[line] // window.points)
        choice.tiles[line] = -(-tiles // min(-(-wanted // tasks), tiles)) * window.points
    reduced = (*(a for a in plan.reduced if a != taps.tap), taps.tap)
    kept = (*(a for a in plan.kept if a not in (axis, line)), line, axis)
    choice.packs += [pack_along(load, axis, width, (*kept, *reduced)) for load in scattered]
    streamed = [x for i in plan.reductions for x in kernel.statements[i].reads if x not in scattered]
    apart = seconds_apart(choice, plan, axis, counts, {line: window.points}, streamed)
    choice.seconds += (window.prediction.seconds + apart) * choice.turns(plan)
    first = kernel.statements[plan.reductions[0]].target
    choice.notes.append(f"{first}: {window} ({line} x {axis}), bound by {window.prediction.bound_by}")
    tiles_of = {axis: ("lanes", width), line: ("unroll", window.points)}
    if window.held:
        tiles_of[taps.tap] = ("unroll", counts[taps.tap])
    return TiledNest(plan, tiles_of, (*kept, *reduced), chunk_of(kernel, plan.reductions, reduced, counts, SUM))


def _point_cost(
    kernel: Kernel,
    plan: NestPlan,
    axis: str,
    points: int,
    layout: dict[str, Shape],
    windows: Mapping[str, Taps],
    shares: Mapping[Load, float],
) -> float:
    """Loads and stores of a nest at one of a row's `points`, with lanes along `axis`, in vector loads; `shares`: what
    counts by a part, as several rows share it.

    What comes once a row (a reduction's result, the epilogue) counts by its share; what the nest itself computed is in
    registers when it reads it, and is stored only where others read it.
    """
    packed = _scattered(kernel, plan, axis, layout)
    statements = _statements(kernel, plan)
    own = {s.target for s in statements}
    stored = {p.name for p in kernel.outputs} | {
        x.buffer for s in kernel.statements if s not in statements for x in s.reads
    }
    total = 0.0
    for i in (*plan.body, *plan.reductions, *plan.epilogue):
        s = kernel.statements[i]
        shared = windows[axis].shares if axis in windows and i in plan.reductions else shares
        mask = MASK if axis in guards(s.value) else 0.0
        reads = sum(
            (PACKED_LOAD if load in packed else mask + lane_cost(load, axis, layout)) * shared.get(load, 1.0)
            for load in s.reads
            if load.buffer not in own
        )
        place = Load(s.target, tuple(Axis(a) for a in s.axes), s.dtype)
        store = store_cost(place, axis, layout) if s.target in stored else 0.0
        total += reads / (points if i in plan.epilogue else 1) + store / (1 if i in plan.body else points)
    return total


def _crossing(kernel: Kernel, statements: Sequence[Statement], axis: str, layout: dict[str, Shape]) -> str | None:
    """The axis along which an operand is contiguous whose elements along the lanes are apart; None if there is none."""
    stores = [Load(s.target, tuple(Axis(a) for a in s.axes), s.dtype) for s in statements if s.target in layout]
    for load in [*(x for s in statements for x in s.reads), *stores]:
        steps = {a: stride(load, a, layout[load.buffer]) for a in kernel.extents}
        uneven = steps[axis] is None and all(x is load for x in walk(load) if isinstance(x, Load))
        if uneven or steps[axis] not in (0, 1, None):
            found = next((a for a, step in steps.items() if step == 1), None)
            if found is not None:
                return found
    return None


def _sharing(
    kernel: Kernel, plan: NestPlan, axis: str, layout: dict[str, Shape], pinned: Collection[str]
) -> TiledAxis | None:
    """Points of a kept axis that are unrolled, for what gathers they share; None where there are none.

    The rows of a product of few rows. Or a short axis that gathers along the lanes lack: one gather serves all its
    points. Or a few points of the axis along which results are stored, where rows are gathered at places of data: rows
    of one place or of near ones are found in L1, and results are stored side by side.
    """
    reads = [load for i in plan.reductions for load in kernel.statements[i].reads]
    if len(plan.reductions) != 1:
        return None
    together = rows_together(kernel, plan)
    if together is not None and axis in plan.reduced:
        return together
    gathers = [x for x in reads if stride(x, axis, layout[x.buffer]) is None]
    others = [x for x in reads if x not in gathers]
    free = [a for a in plan.kept if a not in pinned and a != axis]
    for a in free if gathers else ():
        extent = kernel.extents[a]
        short = isinstance(extent, int) and 1 < extent <= SHARED_BY
        if short and any(a in _axes(x) for x in others) and not any(a in _axes(x) for x in gathers):
            return TiledAxis(a, extent)
    rows = [x for x in reads if any(isinstance(e, Load) for i in x.index for e in walk(i))]
    if not any(stride(x, axis, layout[x.buffer]) == 1 for x in rows):
        return None
    stored = kernel.statements[(plan.epilogue or plan.reductions)[-1]]
    place = Load(stored.target, tuple(Axis(a) for a in stored.axes), stored.dtype)
    steps = {a: stride(place, a, layout[stored.target]) for a in (axis, *free)}
    for a in free if steps[axis] != 1 else ():
        extent = kernel.extents[a]
        if steps[a] == 1 and isinstance(extent, int) and extent % SIDE_BY_SIDE == 0:
            return TiledAxis(a, SIDE_BY_SIDE)
    return None


def _pinned(kernel: Kernel) -> set[str]:
    """Axes at one point of which the ends of a span are read."""
    return {a for span in kernel.spans.values() for a in ends_at(span)}


def _beside(choice: Choice, plan: NestPlan, axis: str, layout: dict[str, Shape]) -> str | None:
    """An axis of rows, open to tasks, that reduce across the lanes and read alike what is dear: elements that are apart
    in memory along the lanes (every second one, where two codes share a byte), or floats beside codes, which take a
    fourth of their loads."""
    dear = _read_apart(choice, plan, axis, layout) or _read_beside_codes(choice, plan, axis, layout)
    pinned = _pinned(choice.kernel)
    rows = [
        a for a in plan.kept if a in _free(choice) and a not in pinned and isinstance(choice.kernel.extents[a], int)
    ]
    open_ = [a for a in rows if choice.count(a) > 1 and any(a not in _axes(x) for x in dear)]
    others = [x for i in plan.reductions for x in choice.kernel.statements[i].reads if x not in dear]
    return next((a for a in reversed(open_) if all(a in _axes(x) or reads_table(x) for x in others)), None)


def _waiting(choice: Choice, plan: NestPlan, axis: str) -> str | None:
    """An axis of rows, open to tasks, whose sums run beside each other where lanes are so few rows that a sum alone
    would wait for itself: what is gathered for a block of rows, say."""
    if not plan.reductions or axis not in plan.kept or not 1 < choice.count(axis) <= choice.target.vector_lanes:
        return None
    kernel, pinned = choice.kernel, _pinned(choice.kernel)
    rows = [a for a in plan.kept if a in _free(choice) and a not in pinned and a != axis]
    return next((a for a in reversed(rows) if isinstance(kernel.extents[a], int) and choice.count(a) > 1), None)


def _read_apart(choice: Choice, plan: NestPlan, axis: str, layout: dict[str, Shape]) -> list[Load]:
    """What a row that is reduced across the lanes reads apart in memory, evenly."""
    reads = dict.fromkeys(load for i in plan.reductions for load in choice.kernel.statements[i].reads)
    return [x for x in reads if axis in plan.reduced and stride(x, axis, layout[x.buffer]) not in (0, 1, None)]


def _read_beside_codes(choice: Choice, plan: NestPlan, axis: str, layout: dict[str, Shape]) -> list[Load]:
    """The floats along the lanes that are multiplied with integers of few bits."""
    reads = dict.fromkeys(load for i in plan.reductions for load in choice.kernel.statements[i].reads)
    if axis not in plan.reduced or all(largest_code(x) is None for x in reads):
        return []
    return [x for x in reads if x.dtype.is_float and stride(x, axis, layout[x.buffer]) == 1]


def _scattered(kernel: Kernel, plan: NestPlan, axis: str, layout: dict[str, Shape]) -> list[Load]:
    """Constant operands of a reduction, read again and again, whose elements along the lanes are apart."""
    reads = dict.fromkeys(load for i in plan.reductions for load in kernel.statements[i].reads)
    constant = [x for x in reads if x.buffer in kernel.weights and packable(kernel, x, axis)]
    again = [x for x in constant if any(kernel.extents[a] != 1 for a in plan.kept if a not in _axes(x))]
    return [x for x in again if stride(x, axis, layout[x.buffer]) not in (0, 1)]


def _packed_layout(kernel: Kernel, load: Load, axis: str) -> Shape:
    """Strides of a constant operand as it will be packed: the dimension that lanes move along is innermost."""
    (shape,) = (p.type.shape for p in kernel.params if p.name == load.buffer)
    lanes_last = sorted(range(len(shape)), key=lambda d: coefficient(load.index[d], axis) != 0)
    steps = dict(zip(lanes_last, contiguous_strides(tuple(shape[d] for d in lanes_last)), strict=True))
    return tuple(steps[d] for d in range(len(shape)))


def _axes(load: Load) -> set[str]:
    """The axes that decide where a load reads."""
    return {e.name for i in load.index for e in walk(i) if isinstance(e, Axis)}
