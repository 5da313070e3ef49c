"""Schedules of one-pass kernels: attention, whose rows walk the keys tile by tile.

    parallel over batch, and tiles of `queries` rows:
      for tiles of `keys` that some of the rows see:
        copy the keys so that lanes are neighbours
        scores of queries x keys, their maxima, exponentials and sums, and what these weigh: all in the cache

Large tiles start register tiles and rescale results less often; small ones stay in L1, and where rows see keys up to
their own position only, as causal masks have it, fewer points beyond it are computed. The two tiles are decided here,
the nests inside, each by its own model, for tiles of these sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import prod

from effcc.ir.contraction import contractions
from effcc.ir.dependences import is_copy, online_axis, shared_axes
from effcc.ir.dims import elements
from effcc.ir.kernel import Kernel
from effcc.ir.masks import mask_of, mean_seen
from effcc.passes.tiling.constraints import Domain, Problem
from effcc.passes.tiling.copies import TURN_SLOTS
from effcc.passes.tiling.cost import ROOFLINE, Prediction, byte_time_at_home, machine_parameters, predict
from effcc.passes.tiling.notation import parse_model
from effcc.passes.tiling.operands import parts_of
from effcc.passes.tiling.solver import solutions
from effcc.target import Target

MODEL = """
    # Of the keys, those that some row of a tile sees: half a tile beyond what a row does, and more where tiles of rows
    # and of keys do not end together. Turns count in sixteenths, as the last one of a tile of rows is not always whole.
    row_tiles = ceil(rows / queries)
    uneven = min(1, keys % queries) * min(1, queries % keys)
    walked = min(keys_all, seen + bounds * (max(queries, keys) + uneven * min(queries, keys)) / 2)
    turns = ceil(16 * walked / keys)
    tasks = batch * row_tiles
    rounds = ceil(tasks / threads)

    # Register tiles of `height` rows and two vectors: the rows that are left take as long as latency, or as they need.
    vectors = ceil(keys / lanes)
    panels = ceil(vectors / 2)
    out_panels = ceil(ceil(width / lanes) / 2)
    left = queries % height
    row_slots = (queries / height) * max(2 * height, latency_slots) + min(left, 1) * max(2 * left, latency_slots)
    calls = ceil(queries / height)
    scores = panels * (depth * row_slots + calls * (call_slots + 2 * height * store_slots))
    values = out_panels * (keys * row_slots + calls * (call_slots + 2 * height * (store_slots + reload_slots)))

    # For every row its maximum, exponentials and sum.
    softmax = queries * (vectors * point_slots + line_slots)
    copies = turned * turn_slots * vectors * depth
    compute = slot * rounds * (turns * (scores + values + softmax + copies) / 16 + queries * finish_slots + task_slots)

    # What a turn touches, of which L1 has no room for all; scores and weights pass five times.
    turn_bytes = 4 * (2 * queries * keys + keys * (depth + width) + queries * (depth + width))
    spilled = min(1, turn_bytes / l1_bytes)
    turn_bytes <= l2_bytes or queries * keys <= smallest
    passed = 4 * (keys * (2 * depth + width) + spilled * (5 * queries * keys + queries * (depth * panels + 2 * width)))
    cache = l2_byte * rounds * turns * passed / 16

    # Keys and values come once for all rows if they stay in L2, else once for each tile of rows.
    all_bytes = 4 * keys_all * (depth + width)
    again = min(1, all_bytes / l2_bytes)
    outer = home_byte * max(1, rounds * (1 + again * (row_tiles - 1)) / row_tiles) * 4 * walked * (depth + width)

    wait = max(compute, cache, outer) / (16 * rounds)
    start = min(1, threads - 1) * (min(1, tasks - 1) * start_time + wait)
"""

POINT_SLOTS = 44
"""Slots of a vector of scores: a load, a product and a maximum, then an exponential of some 20 instructions, of which
two ports share what is no multiply-add, a store, and a sum."""
LINE_SLOTS = 80
"""Slots to combine the lanes of a row's maximum and of its sum, in sequence."""
FINISH_SLOTS = 40
"""Slots to divide a row of results by its sum."""
MOST_KEYS, MOST_QUERIES = 512, 256
"""Larger tiles do not stay in the cache, or start their register tiles too seldom for it to matter."""
KEYS_DYNAMIC = 64
"""Keys where how many there are is known at run time only: what is left over runs unvectorized."""


@dataclass(frozen=True)
class OnlineNest:
    """A one-pass kernel to be scheduled: of `batch` problems, `rows` rows that walk `keys` keys, of which they see
    `seen` on average, as `bounds` bounds say. Scores sum over `depth` (`turned`: from a copy of the keys), and weigh
    `width` values. `fixed`: extents are known at run time only.
    """

    batch: int
    rows: int
    keys: int
    seen: int
    bounds: int
    depth: int
    width: int
    turned: bool = False
    fixed: bool = False


@dataclass(frozen=True)
class OnlineSchedule:
    """Tiles of `queries` rows and `keys` keys."""

    queries: int
    keys: int
    prediction: Prediction
    reasons: tuple[str, ...]


def row_axis(kernel: Kernel) -> str | None:
    """The axis of the rows that share keys, along which tasks are cut: the longest of the products'."""
    axis = online_axis(kernel)
    shared = shared_axes(kernel)
    rows: dict[str, int] = {}
    for c in contractions(kernel).values():
        if axis in c.columns or axis in c.rows:
            own = c.rows if axis in c.columns else c.columns
            rows.update({a: elements((kernel.extents[a],)) for a in own if a in shared})
    return max(rows, key=lambda a: rows[a], default=None)


def nest_of(kernel: Kernel, axis: str, rows: str | None) -> OnlineNest:
    """The description of a kernel that walks `axis`, with tasks cut along `rows`."""

    def points(axes: tuple[str, ...]) -> int:
        return prod(max(elements((kernel.extents[a],)), 1) for a in axes)

    keys = points((axis,))
    products = contractions(kernel).values()
    scores = [c for c in products if axis in (*c.rows, *c.columns)]
    sums = [s for s in kernel.statements if s.reduction is not None and s.reduction.rescale is not None]
    shared = shared_axes(kernel)
    mask = mask_of(kernel)
    seen = mean_seen(kernel, mask, rows) if mask is not None else None
    read = {x.buffer for s in kernel.statements for x in s.reads}
    return OnlineNest(
        batch=points(tuple(a for a in shared if a != rows)),
        rows=1 if rows is None else points((rows,)),
        keys=keys,
        seen=keys if seen is None else max(1, round(seen)),
        bounds=0 if mask is None or seen is None else len(mask.bounds),
        depth=sum(points(c.depth) for c in scores),
        width=sum(points(tuple(a for a in s.axes if a not in shared)) for s in sums),
        turned=any(is_copy(kernel, s) for s in kernel.statements if s.target in read),
        fixed=not isinstance(kernel.extents[axis], int),
    )


def online_problem(nest: OnlineNest, target: Target) -> Problem:
    """The integer problem of the two tiles (`MODEL`, with its numbers)."""
    machine = machine_parameters(target)
    lanes = target.vector_lanes
    height = (target.vector_registers - 3) // 2
    queries = tiles_of(nest.rows, height, target.cores, MOST_QUERIES)
    keys = (KEYS_DYNAMIC,) if nest.fixed else tiles_of(nest.keys, 2 * lanes, target.cores, MOST_KEYS)
    parameters = machine | {
        "batch": nest.batch,
        "rows": nest.rows,
        "keys_all": nest.keys,
        "seen": nest.seen,
        "bounds": nest.bounds,
        "depth": nest.depth,
        "width": nest.width,
        "turned": int(nest.turned),
        "turn_slots": TURN_SLOTS,
        "height": height,
        "point_slots": POINT_SLOTS,
        "line_slots": LINE_SLOTS,
        "finish_slots": FINISH_SLOTS,
        "smallest": queries[0] * keys[0],
        "home_byte": byte_time_at_home(target, 4 * nest.batch * nest.keys * (nest.depth + nest.width)),
    }
    return parse_model(MODEL + ROOFLINE).problem({"queries": queries, "keys": keys}, parameters)


def online_schedules(nest: OnlineNest, target: Target) -> Iterator[OnlineSchedule]:
    """All schedules of a one-pass kernel, in the order of predicted time."""
    problem = online_problem(nest, target)
    model = parse_model(MODEL + ROOFLINE)
    for solution in solutions(problem):
        v = {**problem.parameters, **solution.values}
        yield OnlineSchedule(v["queries"], v["keys"], predict(model, v), problem.explain(solution.values))


def online_of(kernel: Kernel, target: Target, rank: int = 0) -> tuple[str | None, OnlineSchedule]:
    """The axis of rows, if there is one, and the tiles; rank: so many predicted to be faster are passed over."""
    axis = online_axis(kernel)
    assert axis is not None
    rows = row_axis(kernel)
    return rows, list(islice(online_schedules(nest_of(kernel, axis, rows), target), rank + 1))[-1]


def tiles_of(extent: int, step: int, cores: int, most: int) -> Domain:
    """Tiles of an extent: nearly even parts, and whole steps."""
    parts = {-(-extent // count) for count in parts_of(extent, cores)}
    steps = {step * n for n in (1, 2, 3, 4, 6, 8, 12, 16)}
    even = {-(-part // step) * step for part in parts}
    found = {n for n in (*parts, *steps, *even) if n <= min(extent, most) and (n >= step or n == extent)}
    return tuple(sorted(found | {min(extent, most)}))
