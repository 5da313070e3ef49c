"""Schedules of pointwise nests: which axis lies in the vector, how many vectors at once, blocks, and the parallel
split.

    parallel over tasks = row_parts * column_parts:
      for blocks of `block` rows, for blocks of `tile` vectors:       # only where some operand is transposed
        for rows:                                                     # a row: everything but the vector axis
          for vectors in the row, `unroll` at once
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from effcc.errors import ScheduleError
from effcc.passes.tiling.constraints import Domain, Problem
from effcc.passes.tiling.cost import (
    ROOFLINE,
    Prediction,
    byte_time_at_home,
    fastest,
    machine_parameters,
    predict,
    thread_choices,
)
from effcc.passes.tiling.notation import parse_model
from effcc.passes.tiling.operands import (
    CACHE_LINE,
    Axis,
    Operand,
    access_slots,
    operand_bytes,
    parts_of,
    vector_axes,
    wasted_bytes,
)
from effcc.passes.tiling.solver import Solution, solutions
from effcc.target import Target

MODEL = """
    # A row is everything along the vector axis; vectors that are computed at once stay in registers.
    vectors = ceil(extent / lanes)
    unroll * live_values <= vector_registers or unroll == 1
    unroll <= vectors

    # Parallel work.
    task_rows = ceil(rows / row_parts)
    task_vectors = ceil(vectors / column_parts)
    tasks = ceil(rows / task_rows) * ceil(vectors / task_vectors)
    rounds = ceil(tasks / threads)
    tasks >= threads
    row_parts <= rows ; column_parts <= vectors

    # Vectors of the busiest thread; no less than a fair share, which is known before the parts are.
    busy = max(rounds * task_rows * task_vectors, ceil(rows * vectors / threads))

    # Issue slots: the vectors' own, turning the loop once per `unroll`, starting a row, starting a task.
    start_slots = rounds * (task_rows * row_slots + task_slots)
    compute = slot * (busy * vector_slots + ceil(busy / unroll) * 2 + start_slots)

    # A transposed operand's lines are used whole if `block` rows pass while `tile` vectors' worth of lines stay in L1.
    block <= task_rows
    tile <= task_vectors or tile == 1
    transposed * tile * lanes * cache_line <= l1_bytes
    cache = l2_byte * busy * lanes * (point_bytes + transposed * cache_line / block)
    outer = busy * lanes * (point_time + transposed_time * ceil(line / block))
    start = min(1, max(0, threads - 1)) * start_time
"""

ROW_SLOTS = 10
"""Slots to start a row: its addresses, and the mask of its last vector."""


@dataclass(frozen=True)
class PointwiseNest:
    """A pointwise nest to be scheduled; all axes are parallel.

    Attributes:
        axes: outermost first; extents are hints where they are dynamic.
        operands: everything read and written, with its strides.
        operations: vector instructions per vector of points, loads and stores apart (a polynomial exp is about 15).
        live_values: registers that one vector of points needs at once.
        element_bytes: of the type that is computed in.
    """

    axes: tuple[Axis, ...]
    operands: tuple[Operand, ...]
    operations: int
    live_values: int = 4
    element_bytes: int = 4


@dataclass(frozen=True)
class PointwiseSchedule:
    """How a pointwise nest runs. `vector_axis` is the innermost loop, in vectors of `lanes`, `unroll` of them at once.

    `row_parts` and `column_parts` are how many tasks the rows and the vector axis are split into; `block` rows by
    `tile` vectors are walked together, for the sake of transposed operands; both are 1 (no blocks) where there are
    none.
    """

    vector_axis: str
    lanes: int
    unroll: int
    row_parts: int
    column_parts: int
    block: int
    tile: int
    threads: int
    prediction: Prediction
    reasons: tuple[str, ...]
    """Every constraint of the model, with the numbers its sides come to."""

    def __str__(self) -> str:
        split = f"{self.row_parts}x{self.column_parts} tasks on {self.threads} threads"
        return f"vectors of {self.lanes} along {self.vector_axis}, unroll {self.unroll}, block {self.block}, {split}"


def schedule_pointwise(
    nest: PointwiseNest, target: Target, k: int = 1, vector_axis: str | None = None
) -> list[PointwiseSchedule]:
    """The `k` schedules that are predicted to be fastest, best first, with `vector_axis` (default: any) in the vector.

    Raises ScheduleError where the nest has no axes or an empty one.
    """
    if not nest.axes or any(a.extent < 1 for a in nest.axes):
        raise ScheduleError(f"pointwise: expected axes with at least one point each, got {nest.axes}")
    axes = vector_axes(nest.axes, nest.operands) if vector_axis is None else (vector_axis,)
    return fastest((_schedules(nest, axis, target) for axis in axes), k)


def pointwise_problem(nest: PointwiseNest, vector_axis: str, target: Target) -> Problem:
    """The integer problem of a pointwise nest whose vectors lie along one axis (`MODEL`, with its numbers)."""
    machine = machine_parameters(target, nest.element_bytes)
    lanes = machine["lanes"]
    (extent,) = (a.extent for a in nest.axes if a.name == vector_axis)
    rows = prod(a.extent for a in nest.axes if a.name != vector_axis)
    home = {o.name: byte_time_at_home(target, operand_bytes(o, nest.axes)) for o in nest.operands}
    transposed = [o for o in nest.operands if wasted_bytes(o, vector_axis) > 1]
    straight = [o for o in nest.operands if o not in transposed]
    points = rows * extent

    def point_time(operands: list[Operand]) -> int:
        return sum(operand_bytes(o, nest.axes) * home[o.name] for o in operands) // points

    parameters = machine | {
        "extent": extent,
        "rows": rows,
        "live_values": nest.live_values,
        "vector_slots": nest.operations + sum(access_slots(o, vector_axis, lanes) for o in nest.operands),
        "row_slots": ROW_SLOTS,
        "transposed": len(transposed),
        "cache_line": CACHE_LINE,
        "line": max((wasted_bytes(o, vector_axis) for o in transposed), default=1),
        "point_bytes": sum(operand_bytes(o, nest.axes) for o in straight) // points,
        "point_time": point_time(straight),
        "transposed_time": point_time(transposed),
    }
    vectors = -(-extent // lanes)
    domains: dict[str, Domain] = {
        "threads": thread_choices(target),
        "unroll": (1, 2, 4, 8),
        "row_parts": parts_of(rows, target.cores),
        "column_parts": parts_of(vectors, target.cores),
        "block": tuple(b for b in (1, 2, 4, 8, 16, 32) if b <= rows) if transposed else (1,),
        "tile": parts_of(vectors, 1, 64) if transposed else (1,),
    }
    return parse_model(MODEL + ROOFLINE).problem(domains, parameters)


def _schedules(nest: PointwiseNest, vector_axis: str, target: Target) -> Iterator[PointwiseSchedule]:
    problem = pointwise_problem(nest, vector_axis, target)
    for solution in solutions(problem):
        yield _as_schedule(vector_axis, problem, solution)


def _as_schedule(vector_axis: str, problem: Problem, solution: Solution) -> PointwiseSchedule:
    v = {**problem.parameters, **solution.values}
    return PointwiseSchedule(
        vector_axis=vector_axis,
        lanes=v["lanes"],
        unroll=v["unroll"],
        row_parts=v["row_parts"],
        column_parts=v["column_parts"],
        block=v["block"],
        tile=v["tile"],
        threads=v["threads"],
        prediction=predict(parse_model(MODEL + ROOFLINE), v),
        reasons=problem.explain(solution.values),
    )
