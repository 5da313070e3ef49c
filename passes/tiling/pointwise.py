"""Schedules of pointwise nests: which axis lies in the vector, how many vectors at once, and what a task is.

    parallel over tiles of `tile` vectors, over `block` rows of the axis that crosses them, over points of other axes:
      for what tasks cannot share:
        for vectors of the tile, `unroll` at once

Where some operand is contiguous along another axis than the vectors' (a transposition), every lane has a cache line of
its own there: `block` rows pass for one vector of the tile before the next one, so that lines are used whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import gcd, prod

from effcc.errors import ScheduleError
from effcc.passes.tiling.constraints import Domain, Problem, evaluate
from effcc.passes.tiling.cost import (
    ROOFLINE_AND_CODE,
    Prediction,
    byte_time_at_home,
    code_time,
    fastest,
    machine_parameters,
    predict,
)
from effcc.passes.tiling.notation import parse_model
from effcc.passes.tiling.operands import (
    CACHE_LINE,
    Axis,
    Operand,
    access_slots,
    operand_bytes,
    task_tiles,
    vector_axes,
    vectors_at_once,
    wasted_bytes,
)
from effcc.passes.tiling.solver import Solution, solutions
from effcc.target import Target

MODEL = """
    # Vectors lie along one axis; those that are computed at once stay in registers.
    vectors = ceil(extent / lanes)
    unroll * live_values <= vector_registers or unroll == fewest
    unroll <= vectors or unroll == fewest
    unroll * vector_slots <= unrolled_slots or unroll == fewest
    tile % unroll == 0 or tile <= unroll or tile >= vectors

    # A task is `tile` vectors of `block` rows, at all points of the axes that tasks cannot share.
    tasks = rows * ceil(cross / block) * ceil(vectors / tile)
    rounds = ceil(tasks / threads)

    # Vectors of the busiest thread; no less than a fair share, which is known before the tasks are.
    busy = max(rounds * inner * block * tile, ceil(inner * rows * cross * vectors / threads))

    # Issue slots: the vectors' own, turning the loop once per `unroll`, starting a row, claiming tasks.
    start_slots = rounds * inner * block * row_slots + min(rounds, claims) * task_slots
    compute = slot * (busy * vector_slots + ceil(busy / unroll) * 2 + start_slots)

    # A transposed operand's lines are moved once for rows that pass while they are in L1 or L2: those of a block, or
    # all that one task (`each_task`) or tasks in turn come to, where their lines have room. Each lane has a page of its
    # own there, and tasks that follow one another along the rows find those pages at hand.
    transposed * tile * lanes <= pages or block == 1 or tile == 1
    held = transposed * lanes * (each_task * tile + (1 - each_task) * vectors)
    passing = block * max(1, crossed * min(1, max(2 - ceil(held / l1_lines), 0)))
    passing_l2 = max(passing, block * crossed * min(1, max(2 - ceil(held / l2_lines), 0)))
    cache = l2_byte * busy * lanes * (point_bytes + transposed * max(element_bytes, cache_line / passing))
    outer = busy * lanes * (point_time + transposed_time * ceil(line / passing_l2))

    code = unroll * vector_slots * code_time

    # Threads claim tasks: the last one keeps the others waiting, for a sixteenth of it on average.
    wait = max(compute, cache, outer) / (16 * rounds)
    start = min(1, max(threads - 1, 0)) * (min(1, max(tasks - 1, 0)) * start_time + wait)
"""

UNROLLED_SLOTS = 80
"""Instructions that are unrolled, at most: beyond, registers spill and compilers take seconds. (Of 1, 2, 4 and 8
vectors at once of gelu, silu and exp, with 15 to 19 instructions each, 8 ran 1 to 9 % longer than 4; a gather with its
checks took g++ 0.6 s with one vector, and 6.6 s with 8.)"""
PAGES = 64
"""Pages whose addresses a core has at hand: the entries of a first-level TLB."""
WAYS = 8
"""Lines that a set of a cache holds."""
ROW_SLOTS = 10
"""Slots to start a row: its addresses, and the mask of its last vector."""


@dataclass(frozen=True)
class PointwiseNest:
    """A pointwise nest to be scheduled.

    Attributes:
        axes: outermost first; extents are hints where they are dynamic.
        operands: everything read and written, with its strides.
        operations: vector instructions per vector of points, loads and stores apart (a polynomial exp is about 15).
        live_values: registers that one vector of points needs at once.
        element_bytes: of the type that is computed in.
        whole: names of axes that tasks cannot share; each task runs all of them.
        given: points along the vectors that a task has, where that is decided; 0 where it is not.
        once: whether it runs once, so that compiling it takes longer than running it.
    """

    axes: tuple[Axis, ...]
    operands: tuple[Operand, ...]
    operations: int
    live_values: int = 4
    element_bytes: int = 4
    whole: frozenset[str] = frozenset()
    given: int = 0
    once: bool = False


@dataclass(frozen=True)
class PointwiseSchedule:
    """How a pointwise nest runs. `vector_axis` is the innermost loop, in vectors of `lanes`, `unroll` of them at once.

    A task is `tile` vectors of `block` rows of the axis that crosses them (1 where none does).
    """

    vector_axis: str
    lanes: int
    unroll: int
    tile: int
    block: int
    tasks: int
    prediction: Prediction
    reasons: tuple[str, ...]
    """Every constraint of the model, with the numbers its sides come to."""

    def __str__(self) -> str:
        block = f"{self.block} rows by " if self.block > 1 else ""
        task = f"{block}{self.tile} vectors"
        return f"vectors of {self.lanes} along {self.vector_axis}, unroll {self.unroll}, {self.tasks} tasks of {task}"


def schedule_pointwise(
    nest: PointwiseNest, target: Target, k: int = 1, vector_axis: str | None = None, crossing: str | None = None
) -> list[PointwiseSchedule]:
    """The `k` schedules that are predicted to be fastest, best first, with `vector_axis` (default: any) in the vector.

    crossing: the axis along which an operand is contiguous that is not along the vectors.
    Raises ScheduleError where the nest has no axes or an empty one.
    """
    if not nest.axes or any(a.extent < 1 for a in nest.axes):
        raise ScheduleError(f"pointwise: expected axes with at least one point each, got {nest.axes}")
    axes = vector_axes(nest.axes, nest.operands) if vector_axis is None else (vector_axis,)
    return fastest((_schedules(nest, axis, crossing, target) for axis in axes), k)


def pointwise_problem(nest: PointwiseNest, vector_axis: str, crossing: str | None, target: Target) -> Problem:
    """The integer problem of a pointwise nest whose vectors lie along one axis (`MODEL`, with its numbers)."""
    machine = machine_parameters(target, nest.element_bytes)
    lanes = machine["lanes"]
    extents = {a.name: a.extent for a in nest.axes}
    extent = extents[vector_axis]
    transposed = [o for o in nest.operands if wasted_bytes(o, vector_axis) > 1]
    straight = [o for o in nest.operands if o not in transposed]
    blocked = bool(crossing and transposed) and not nest.given and not {vector_axis, crossing} & nest.whole
    cross = extents[crossing] if crossing is not None and blocked else 1
    inner = prod(n for a, n in extents.items() if a in nest.whole - {vector_axis})
    rows = prod(n for a, n in extents.items() if a != vector_axis and a not in nest.whole) // cross
    home = {o.name: byte_time_at_home(target, operand_bytes(o, nest.axes)) for o in nest.operands}
    points = prod(extents.values())

    def point_time(operands: Collection[Operand]) -> int:
        return sum(operand_bytes(o, nest.axes) * home[o.name] for o in operands) // points

    vectors = -(-extent // lanes)
    fewest = vectors_at_once(lanes, target)
    parameters = machine | {
        "extent": extent,
        "rows": rows,
        "inner": inner,
        "cross": cross,
        "fewest": fewest,
        "live_values": nest.live_values,
        "vector_slots": nest.operations + sum(access_slots(o, vector_axis, lanes) for o in nest.operands),
        "code_time": code_time(nest.once),
        "unrolled_slots": UNROLLED_SLOTS,
        "row_slots": ROW_SLOTS,
        "transposed": len(transposed),
        "pages": PAGES,
        "cache_line": CACHE_LINE,
        "element_bytes": nest.element_bytes,
        "line": max((wasted_bytes(o, vector_axis) for o in transposed), default=1),
        "crossed": extents[crossing] if crossing is not None and not blocked else 1,
        "each_task": int(crossing in nest.whole),
        "l1_lines": min((_room(o, vector_axis, target.l1_bytes) for o in transposed), default=1),
        "l2_lines": min((_room(o, vector_axis, target.l2_bytes) for o in transposed), default=1),
        "point_bytes": sum(operand_bytes(o, nest.axes) for o in straight) // points,
        "point_time": point_time(straight),
        "transposed_time": point_time(transposed),
    }
    unroll, block, group = (
        ((fewest,), even_blocks(cross, CACHE_LINE // nest.element_bytes), fewest)
        if blocked
        else (_unrolled(fewest), (1,), fewest if transposed and crossing in nest.whole else 8 * fewest)
    )
    decided = -(-nest.given // lanes) or (vectors if vector_axis in nest.whole else 0)
    tiles = (decided,) if decided else task_tiles(vectors, rows * cross, target.cores, group)
    domains: dict[str, Domain] = {
        "unroll": unroll,
        "tile": tiles,
        "block": block,
    }
    return parse_model(MODEL + ROOFLINE_AND_CODE).problem(domains, parameters)


def _room(operand: Operand, axis: str, cache_bytes: int) -> int:
    """How many lines of a cache there are for elements that lie apart along an axis: few in steps of a power of two."""
    stride = abs(operand.strides.get(axis, 0)) * operand.element_bytes
    apart = max(gcd(stride, cache_bytes // WAYS), CACHE_LINE)
    return max(1, cache_bytes // apart)


def _unrolled(fewest: int) -> Domain:
    return tuple(fewest * n for n in (1, 2, 4, 8))


def even_blocks(extent: int, line: int) -> Domain:
    """How many rows pass together: as many as divide the extent, in whole cache lines of `line` elements if some do."""
    even = [n for n in range(8, 65) if extent % n == 0]
    lines = [n for n in even if n % line == 0]
    return tuple(lines or even or [n for n in (16, 32) if n < extent]) or (extent,)


def _schedules(
    nest: PointwiseNest, vector_axis: str, crossing: str | None, target: Target
) -> Iterator[PointwiseSchedule]:
    problem = pointwise_problem(nest, vector_axis, crossing, target)
    for solution in solutions(problem):
        yield _as_schedule(vector_axis, problem, solution)


def _as_schedule(vector_axis: str, problem: Problem, solution: Solution) -> PointwiseSchedule:
    v = {**problem.parameters, **solution.values}
    model = parse_model(MODEL + ROOFLINE_AND_CODE)
    return PointwiseSchedule(
        vector_axis=vector_axis,
        lanes=v["lanes"],
        unroll=v["unroll"],
        tile=v["tile"],
        block=v["block"],
        tasks=evaluate(model.definitions["tasks"], v),
        prediction=predict(model, v),
        reasons=problem.explain(solution.values),
    )
