"""Schedules of kernels that sum a matrix both ways (`effcc.ir.dependences.both_ways`): attention's gradients.

    parallel over batch:
      for tiles of `queries` rows:
        for tiles of `keys` columns that some of the rows see:
          points of queries x keys, and what they add to the sums of rows and of columns: all in the cache

Sums of rows are finished with their tile; those of columns rest in the cache until the last one. Large tiles start
register tiles less often and pass the sums of columns less often; small ones stay in L1, and compute fewer points that
no row sees. The two tiles are decided here, the nests inside, each by its own model, for tiles of these sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import prod

from effcc.ir.contraction import contractions
from effcc.ir.dependences import both_ways, is_copy, shared_axes
from effcc.ir.dims import elements
from effcc.ir.kernel import Kernel
from effcc.ir.masks import mask_of, mean_seen
from effcc.passes.tiling.constraints import Problem
from effcc.passes.tiling.copies import TURN_SLOTS
from effcc.passes.tiling.cost import ROOFLINE, Prediction, byte_time_at_home, machine_parameters, predict
from effcc.passes.tiling.notation import parse_model
from effcc.passes.tiling.online import MOST_KEYS, MOST_QUERIES, POINT_SLOTS, tiles_of
from effcc.passes.tiling.solver import solutions
from effcc.target import Target

MODEL = """
    # Of the columns, those that some row of a tile sees, as in a one-pass kernel; turns count in sixteenths.
    row_tiles = groups * ceil(rows / queries)
    uneven = min(1, keys % queries) * min(1, queries % keys)
    walked = min(columns, seen + bounds * (max(queries, keys) + uneven * min(queries, keys)) / 2)
    turns = ceil(16 * walked / keys)
    rounds = ceil(batch / threads)

    # Register tiles of `height` rows and two vectors: of points, of sums of rows, and of sums of columns, whose rows
    # are the columns here. The rows that are left take as long as latency, or as they need.
    vectors = ceil(keys / lanes)
    panels = ceil(vectors / 2)
    row_panels = ceil(ceil(row_width / lanes) / 2)
    column_panels = ceil(ceil(column_width / lanes) / 2)
    left = queries % height
    row_slots = (queries / height) * max(2 * height, latency_slots) + min(left, 1) * max(2 * left, latency_slots)
    calls = ceil(queries / height)
    left_keys = keys % height
    key_slots = (keys / height) * max(2 * height, latency_slots) + min(left_keys, 1) * max(2 * left_keys, latency_slots)
    key_calls = ceil(keys / height)
    joined = call_slots + 2 * height * (store_slots + reload_slots)
    points = panels * (depth * row_slots + products * calls * (call_slots + 2 * height * store_slots))
    row_sums = row_panels * (keys * row_slots + calls * joined)
    column_sums = column_panels * (queries * key_slots + key_calls * joined)

    made = queries * vectors * point_slots
    copies = turned * turn_slots * vectors * depth
    compute = slot * rounds * row_tiles * (turns * (points + row_sums + column_sums + made + copies) / 16 + task_slots)

    # What a turn touches, of which L1 has no room for all; points pass twice for each product that makes or reads them.
    turn_bytes = 4 * (products * queries * keys + keys * (depth + 2 * column_width) + queries * (depth + row_width))
    spilled = min(1, turn_bytes / l1_bytes)
    turn_bytes <= l2_bytes or queries * keys <= smallest
    again = 4 * products * queries * keys + queries * depth * panels
    passed = 4 * (keys * (2 * depth + 2 * column_width) + spilled * again)
    cache = l2_byte * rounds * row_tiles * turns * passed / 16

    # Columns, and their sums twice, come from beyond L2 for every tile of rows if they do not stay there.
    all_bytes = 4 * columns * (depth + 2 * column_width)
    leaves = min(1, all_bytes / l2_bytes)
    outer = home_byte * rounds * (1 + leaves * (row_tiles - 1)) * 4 * walked * (depth + 2 * column_width)
    start = min(1, threads - 1) * start_time
"""


@dataclass(frozen=True)
class BothWaysNest:
    """A kernel to be scheduled: `batch` tasks, each of `groups` matrices whose sums of columns are one, of `rows` x
    `columns` points, of which rows see `seen` on average, as `bounds` bounds say. `products` make the points, over a
    `depth` in all (`turned`: from copies), whose sums are `row_width` wide for rows and `column_width` for columns.
    """

    batch: int
    groups: int
    rows: int
    columns: int
    seen: int
    bounds: int
    products: int
    depth: int
    row_width: int
    column_width: int
    turned: bool = False


@dataclass(frozen=True)
class BothWaysSchedule:
    """Tiles of `queries` rows and `keys` columns."""

    queries: int
    keys: int
    prediction: Prediction
    reasons: tuple[str, ...]


def nest_of(kernel: Kernel) -> BothWaysNest:
    """The description of a kernel that sums a matrix both ways."""
    crossed = both_ways(kernel)
    assert crossed is not None
    rows, columns = crossed.rows[-1], crossed.columns
    shared = shared_axes(kernel)

    def points(axes: tuple[str, ...]) -> int:
        return prod(max(elements((kernel.extents[a],)), 1) for a in axes)

    def width(over: str) -> int:
        sums = [s for s in kernel.statements if s.reduction is not None and over in s.reduction.axes]
        return sum(points(tuple(a for a in s.axes if a not in (*shared, *crossed.axes))) for s in sums)

    made = [c for c in contractions(kernel).values() if not crossed.axes & set(c.depth)]
    mask = mask_of(kernel)
    seen = mean_seen(kernel, mask, rows) if mask is not None else None
    return BothWaysNest(
        batch=points(shared),
        groups=points(crossed.rows[:-1]),
        rows=points((rows,)),
        columns=points((columns,)),
        seen=points((columns,)) if seen is None else max(1, round(seen)),
        bounds=0 if mask is None or seen is None else len(mask.bounds),
        products=len(made),
        depth=sum(points(c.depth) for c in made),
        row_width=width(columns),
        column_width=width(rows),
        turned=any(is_copy(kernel, s) for s in kernel.statements),
    )


def both_ways_problem(nest: BothWaysNest, target: Target) -> Problem:
    """The integer problem of the two tiles (`MODEL`, with its numbers)."""
    lanes = target.vector_lanes
    height = (target.vector_registers - 3) // 2
    queries = tiles_of(nest.rows, height, target.cores, MOST_QUERIES)
    keys = tiles_of(nest.columns, 2 * lanes, target.cores, MOST_KEYS)
    parameters = machine_parameters(target) | {
        "batch": nest.batch,
        "groups": nest.groups,
        "rows": nest.rows,
        "columns": nest.columns,
        "seen": nest.seen,
        "bounds": nest.bounds,
        "products": nest.products,
        "depth": nest.depth,
        "row_width": nest.row_width,
        "column_width": nest.column_width,
        "turned": int(nest.turned),
        "turn_slots": TURN_SLOTS,
        "height": height,
        "point_slots": POINT_SLOTS,
        "smallest": queries[0] * keys[0],
        "home_byte": byte_time_at_home(target, 4 * nest.columns * (nest.depth + nest.column_width)),
    }
    return parse_model(MODEL + ROOFLINE).problem({"queries": queries, "keys": keys}, parameters)


def both_ways_schedules(nest: BothWaysNest, target: Target) -> Iterator[BothWaysSchedule]:
    """All schedules of such a kernel, in the order of predicted time."""
    problem = both_ways_problem(nest, target)
    model = parse_model(MODEL + ROOFLINE)
    for solution in solutions(problem):
        v = {**problem.parameters, **solution.values}
        yield BothWaysSchedule(v["queries"], v["keys"], predict(model, v), problem.explain(solution.values))


def tiles_both_ways(kernel: Kernel, target: Target, rank: int = 0) -> BothWaysSchedule:
    """The tiles; rank: so many predicted to be faster are passed over."""
    return list(islice(both_ways_schedules(nest_of(kernel), target), rank + 1))[-1]
