"""Schedules of reductions over rows: sums, maxima, and the cascades of softmax and the norms.

Vectors lie either along a reduced axis (partial results per lane, combined at the end of the row) or along a kept axis
(each lane its own row, nothing to combine). `accumulators` independent vectors hide the latency of the combining
operation:

    parallel over tasks = row_parts * splits:            # splits > 1: threads share a row, and combine at its end
      for rows (or vectors of rows):
        for passes over the row:                           # 3 for a softmax that reads its row three times
          for vectors in the row, `accumulators` at once
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
from effcc.passes.tiling.operands import Axis, Operand, access_slots, extents, operand_bytes, parts_of, vector_axes
from effcc.passes.tiling.solver import Solution, solutions
from effcc.target import Target

MODEL = """
    # `lane_rows` rows advance together in one vector; a row is `steps` vectors long.
    steps = ceil(length / row_lanes)
    groups = ceil(rows / lane_rows)
    accumulators * live_values <= vector_registers or accumulators == 1
    accumulators <= independent

    # Parallel work: groups of rows, and parts of a row.
    task_groups = ceil(groups / row_parts)
    task_steps = ceil(steps / splits)
    tasks = ceil(groups / task_groups) * ceil(steps / task_steps)
    rounds = ceil(tasks / threads)
    tasks >= threads
    row_parts <= groups ; splits <= steps

    # Issue slots of a vector: instructions, or the latency of combining it into one of the accumulators.
    step = max(step_slots, ceil(latency_slots / accumulators))
    shared = min(1, max(0, splits - 1))
    combine = combine_slots * (1 + shared) + accumulators
    busy = max(rounds * task_groups * task_steps, ceil(groups * steps / threads))
    finish = rounds * (task_groups * combine + task_slots)
    compute = slot * (passes * busy * step + ceil(busy / accumulators) * 2 + finish)

    # Later passes find the row in L1 or L2 unless it is longer.
    again = min(1, row_bytes * lane_rows / splits / l1_bytes)
    gone = min(1, row_bytes * lane_rows / splits / l2_bytes)
    task_bytes = task_groups * lane_rows * ceil(row_bytes / splits)
    cache = l2_byte * rounds * task_bytes * (1 + later_passes * again)
    outer = rounds * task_bytes * byte_time * (1 + later_passes * gone)
    start = min(1, max(0, threads - 1)) * start_time * (1 + shared)
"""


@dataclass(frozen=True)
class ReductionNest:
    """A row reduction to be scheduled.

    Attributes:
        axes: `kept` and `reduced` axes, outermost first; extents are hints where they are dynamic.
        operands: everything read and written, with its strides.
        operations: vector instructions per vector and pass, loads and stores apart.
        passes: how often each row is walked (1 for a sum, 2 or 3 for norms and softmax).
        live_values: registers that one vector needs at once, its accumulators included.
        may_split: whether a row may be shared by threads (its combination is associative).
        element_bytes: of the type that is computed in.
    """

    axes: tuple[Axis, ...]
    operands: tuple[Operand, ...]
    operations: int
    passes: int = 1
    live_values: int = 3
    may_split: bool = False
    element_bytes: int = 4


@dataclass(frozen=True)
class ReductionSchedule:
    """How a reduction runs: vectors of `lanes` along `vector_axis`, `accumulators` of them at once.

    `across` tells whether lanes are parts of one row (the vector axis is reduced) or rows of their own (it is kept).
    """

    vector_axis: str
    across: bool
    lanes: int
    accumulators: int
    row_parts: int
    splits: int
    threads: int
    prediction: Prediction
    reasons: tuple[str, ...]
    """Every constraint of the model, with the numbers its sides come to."""

    def __str__(self) -> str:
        how = "across" if self.across else "along"
        split = f"{self.row_parts}x{self.splits} tasks on {self.threads} threads"
        return f"vectors of {self.lanes} {how} {self.vector_axis}, {self.accumulators} accumulators, {split}"


def schedule_reduction(
    nest: ReductionNest, target: Target, k: int = 1, vector_axis: str | None = None
) -> list[ReductionSchedule]:
    """The `k` schedules that are predicted to be fastest, best first, with `vector_axis` (default: any) in the vector.

    Raises ScheduleError where the nest has no reduced axis or an empty one.
    """
    if not extents(nest.axes, "reduced") or any(a.extent < 1 for a in nest.axes):
        raise ScheduleError(
            f"reduction: expected a reduced axis and at least one point along each axis, got {nest.axes}"
        )
    axes = vector_axes(nest.axes, nest.operands) if vector_axis is None else (vector_axis,)
    return fastest((_schedules(nest, axis, target) for axis in axes), k)


def reduction_problem(nest: ReductionNest, vector_axis: str, target: Target) -> Problem:
    """The integer problem of a reduction whose vectors lie along one axis (`MODEL`, with its numbers)."""
    machine = machine_parameters(target, nest.element_bytes)
    lanes = machine["lanes"]
    across = _is_reduced(nest, vector_axis)
    (extent,) = (a.extent for a in nest.axes if a.name == vector_axis)
    length, rows = prod(extents(nest.axes, "reduced")), prod(extents(nest.axes, "kept"))
    touched = sum(operand_bytes(o, nest.axes) for o in nest.operands)
    reduced = {a.name for a in nest.axes if a.role == "reduced"}
    read_each_step = [o for o in nest.operands if not o.written and any(o.strides.get(a, 0) for a in reduced)]
    row_lanes = lanes if across else 1
    # Rounding a partly filled last vector up happens along the vector axis, not along the flattened row.
    padded = -(-extent // lanes) * lanes
    length, rows = (length // extent * padded, rows) if across else (length, rows // extent * padded)
    steps, groups = length // row_lanes, rows if across else rows // lanes
    parameters = machine | {
        "length": length,
        "rows": rows,
        "row_lanes": row_lanes,
        "lane_rows": 1 if across else lanes,
        "independent": steps if across else max(1, groups),
        "live_values": nest.live_values,
        "step_slots": nest.operations + sum(access_slots(o, vector_axis, lanes) for o in read_each_step),
        "combine_slots": _combine_slots(lanes) if across else 4,
        "passes": nest.passes,
        "later_passes": nest.passes - 1,
        "row_bytes": -(-touched // rows),
        "byte_time": byte_time_at_home(target, touched),
    }
    domains: dict[str, Domain] = {
        "threads": thread_choices(target),
        "accumulators": (1, 2, 4, 8),
        "row_parts": parts_of(groups, target.cores),
        "splits": parts_of(steps, target.cores, 2 * target.cores) if nest.may_split else (1,),
    }
    return parse_model(MODEL + ROOFLINE).problem(domains, parameters)


def _schedules(nest: ReductionNest, vector_axis: str, target: Target) -> Iterator[ReductionSchedule]:
    problem = reduction_problem(nest, vector_axis, target)
    for solution in solutions(problem):
        yield _as_schedule(nest, vector_axis, problem, solution)


def _as_schedule(nest: ReductionNest, vector_axis: str, problem: Problem, solution: Solution) -> ReductionSchedule:
    v = {**problem.parameters, **solution.values}
    return ReductionSchedule(
        vector_axis=vector_axis,
        across=_is_reduced(nest, vector_axis),
        lanes=v["lanes"],
        accumulators=v["accumulators"],
        row_parts=v["row_parts"],
        splits=v["splits"],
        threads=v["threads"],
        prediction=predict(parse_model(MODEL + ROOFLINE), v),
        reasons=problem.explain(solution.values),
    )


def _is_reduced(nest: ReductionNest, axis: str) -> bool:
    return any(a.name == axis and a.role == "reduced" for a in nest.axes)


def _combine_slots(lanes: int) -> int:
    """Slots to combine the lanes of one vector: a shuffle and an operation, in sequence, for each halving."""
    return 14 * (lanes.bit_length() - 1) + 2
