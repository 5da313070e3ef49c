"""Schedules of reductions over rows: sums, maxima, and the cascades of softmax and the norms.

Vectors lie either along a reduced axis (partial results per lane, combined at the end of the row) or along a kept axis
(each lane its own row, nothing to combine). `accumulators` independent vectors hide the latency of the combining
operation:

    parallel over rows, and tiles of `tile` vectors of rows:
      for what tasks cannot share:
        for vectors of rows, `accumulators` at once:           # or a row, or `together` of them
          for passes over the row:                               # 3 for a softmax that reads its row three times
            for the row                                          # or its vectors, `accumulators` at once
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

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
    MANY,
    Axis,
    Operand,
    access_slots,
    extents,
    operand_bytes,
    task_tiles,
    vector_axes,
    vectors_at_once,
)
from effcc.passes.tiling.solver import Solution, solutions
from effcc.target import Target

MODEL = """
    # `lane_rows` rows advance together in one vector; a row is `steps` vectors long, of which `vectors` side by side.
    # What `together` rows read alike is read once for all of them.
    accumulators * (live_values + together - 1) <= vector_registers or accumulators == fewest
    accumulators <= vectors or accumulators == fewest
    tile % accumulators == 0 or tile <= accumulators or tile >= groups

    # A task is a row, or `tile` vectors of rows, at all points of the axes that tasks cannot share.
    tasks = ceil(rows / together) * ceil(groups / tile)
    rounds = ceil(tasks / threads)
    busy_groups = max(rounds * together * inner * tile, ceil(inner * rows * groups / threads))

    # Issue slots of a vector: instructions, plain loads, which issue beside them, the latency of adding to one of the
    # accumulators, or finding where data say that it reads, in half of that time, whichever takes longest.
    step = max(own_slots + ceil(shared_slots / together), own_loads + ceil(shared_loads / together),
               ceil(latency / (issue * accumulators * together)), ceil(places * latency / (issue * 2)))
    combine = ceil(combine_slots / together) + accumulators    # of rows that run together at the same time
    busy = busy_groups * steps
    finish = busy_groups * combine + min(rounds, claims) * task_slots
    # Turning the loop, where rows are parts of vectors once for all that run together; else vectors side by side gain
    # more than that (codes of four are looked up together).
    turns = ceil(busy / (accumulators * max(1, rows_apart * together)))
    compute = issue * (passes * busy * step + turns * 2 + finish)

    # Later passes find the row in L1 or L2 unless it is longer.
    again = min(1, row_bytes * lane_rows / l1_bytes)
    gone = min(1, row_bytes * lane_rows / l2_bytes)
    busy_bytes = busy_groups * lane_rows * row_bytes
    cache = l2_byte * busy_bytes * (1 + later_passes * again)
    outer = busy_bytes * byte_time * (1 + later_passes * gone)

    code = accumulators * ((own_slots + own_loads) * together + shared_slots + shared_loads) * code_time

    # Threads claim tasks: the last one keeps the others waiting, for a sixteenth of it on average.
    wait = max(compute, cache, outer) / (16 * rounds)
    start = min(1, max(threads - 1, 0)) * (min(1, max(tasks - 1, 0)) * start_time + wait)
"""


SPAN_SLOTS = 80
"""Slots in which a core that did not foresee where a row ends takes up the next one, and computes the rest of a vector
(one row times csr, Zen 3, beside the dense product: 768x768 with 80 % zeros 0.85 to 1.0, with 90 % 1.1 to 1.2)."""

STORE_SLOTS = 8
"""Slots to store one result into a cache line of its own, which comes from L2."""
ROWS_TOGETHER = (1, 2, 4, 8)
"""So many rows may run together."""
LIVE_VALUES = 3
"""Registers that one vector of a row needs: its accumulator, what it loads, and what it makes of that."""


@dataclass(frozen=True)
class ReductionNest:
    """A row reduction to be scheduled.

    Attributes:
        axes: `kept` and `reduced` axes, outermost first; extents are hints where they are dynamic.
        operands: everything read and written, with its strides.
        operations: vector instructions per vector and pass, loads and stores apart.
        passes: how often each row is walked (1 for a sum, 2 or 3 for norms and softmax).
        live_values: registers that one vector needs at once, its accumulators included.
        element_bytes: of the type that is computed in.
        whole: names of axes that tasks cannot share; each task runs all of them.
        given: points along the vectors that a task has, where that is decided; 0 where it is not.
        once: whether it runs once, so that compiling it takes longer than running it.
        stores: results that are stored one by one for a vector of rows; fewer where others lie beside them.
        sharing: the axis of rows that may run together, for what they read alike; empty where there is none.
        ragged: whether where a row ends is data.
    """

    axes: tuple[Axis, ...]
    operands: tuple[Operand, ...]
    operations: int
    passes: int = 1
    live_values: int = LIVE_VALUES
    element_bytes: int = 4
    whole: frozenset[str] = frozenset()
    given: int = 0
    once: bool = False
    stores: float = 0.0
    sharing: str = ""
    ragged: bool = False


@dataclass(frozen=True)
class ReductionSchedule:
    """How a reduction runs: vectors of `lanes` along `vector_axis`, `accumulators` of them at once, `tile` in a task,
    and `together` rows of the axis that shares.

    `across` tells whether lanes are parts of one row (the vector axis is reduced) or rows of their own (it is kept).
    """

    vector_axis: str
    across: bool
    lanes: int
    accumulators: int
    tile: int
    tasks: int
    prediction: Prediction
    reasons: tuple[str, ...]
    """Every constraint of the model, with the numbers its sides come to."""
    together: int = 1

    def __str__(self) -> str:
        how = "across" if self.across else "along"
        row = "a row" if self.together == 1 else f"{self.together} rows"
        task = row if self.across else f"{self.tile} vectors"
        tasks = f"{self.tasks} tasks of {task}"
        return f"vectors of {self.lanes} {how} {self.vector_axis}, {self.accumulators} accumulators, {tasks}"


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
    extent_of = {a.name: a.extent for a in nest.axes}
    across = _is_reduced(nest, vector_axis)
    length, rows = prod(extents(nest.axes, "reduced")), prod(extents(nest.axes, "kept"))
    touched = sum(operand_bytes(o, nest.axes) for o in nest.operands)
    reduced = {a.name for a in nest.axes if a.role == "reduced"}
    read_each_step = [o for o in nest.operands if not o.written and any(o.strides.get(a, 0) for a in reduced)]
    # A partly filled last vector is along the vector axis, not along the flattened row.
    vectors = -(-extent_of[vector_axis] // lanes)
    inner = prod(n for a, n in extent_of.items() if a in nest.whole - reduced - {vector_axis})
    others = rows // (1 if across else extent_of[vector_axis])
    fewest = vectors_at_once(lanes, target)
    shared = [o for o in read_each_step if nest.sharing and not o.strides.get(nest.sharing, 0)]
    own = [o for o in read_each_step if o not in shared]
    shared_slots, shared_loads = _slots_and_loads(shared, vector_axis, lanes)
    own_slots, own_loads = _slots_and_loads(own, vector_axis, lanes)
    parameters = machine | {
        "steps": length // extent_of[vector_axis] * vectors if across else length,
        "groups": 1 if across else vectors,
        "vectors": vectors,
        "rows": others // inner,
        "inner": inner,
        "fewest": fewest,
        "rows_apart": int(not across),
        "lane_rows": 1 if across else min(lanes, extent_of[vector_axis]),
        "live_values": nest.live_values,
        "own_slots": nest.operations + own_slots
        if across
        else _narrow(nest.operations, extent_of[vector_axis], target) + own_slots,
        "own_loads": own_loads,
        "shared_slots": shared_slots,
        "shared_loads": shared_loads,
        "places": sum(_is_placed(o, vector_axis) for o in read_each_step),
        "combine_slots": (
            _combine_slots(lanes) + SPAN_SLOTS * nest.ragged if across else 4 + round(STORE_SLOTS * nest.stores)
        ),
        "code_time": code_time(nest.once),
        "passes": nest.passes,
        "later_passes": nest.passes - 1,
        "row_bytes": -(-touched // rows),
        "byte_time": byte_time_at_home(target, touched),
    }
    tiles: Domain = (1,)
    if not across:
        decided = -(-nest.given // lanes) or (vectors if vector_axis in nest.whole else 0)
        tiles = (decided,) if decided else task_tiles(vectors, others // inner, target.cores, 8 * fewest)
    domains: dict[str, Domain] = {
        "accumulators": tuple(fewest * n for n in (1, 2, 4, 8)),
        "tile": tiles,
        "together": tuple(n for n in ROWS_TOGETHER if n <= extent_of[nest.sharing]) if nest.sharing else (1,),
    }
    return parse_model(MODEL + ROOFLINE_AND_CODE).problem(domains, parameters)


def _schedules(nest: ReductionNest, vector_axis: str, target: Target) -> Iterator[ReductionSchedule]:
    problem = reduction_problem(nest, vector_axis, target)
    for solution in solutions(problem):
        yield _as_schedule(nest, vector_axis, problem, solution)


def _as_schedule(nest: ReductionNest, vector_axis: str, problem: Problem, solution: Solution) -> ReductionSchedule:
    v = {**problem.parameters, **solution.values}
    model = parse_model(MODEL + ROOFLINE_AND_CODE)
    return ReductionSchedule(
        vector_axis=vector_axis,
        across=_is_reduced(nest, vector_axis),
        lanes=v["lanes"],
        accumulators=v["accumulators"],
        tile=v["tile"],
        tasks=evaluate(model.definitions["tasks"], v),
        prediction=predict(model, v),
        reasons=problem.explain(solution.values),
        together=v["together"],
    )


def _is_reduced(nest: ReductionNest, axis: str) -> bool:
    return any(a.name == axis and a.role == "reduced" for a in nest.axes)


def _slots_and_loads(operands: Iterable[Operand], axis: str, lanes: int) -> tuple[int, int]:
    """Issue slots to read operands whose lanes lie apart, and plain loads of others."""
    slots = [access_slots(o, axis, lanes) for o in operands]
    return sum(s for s in slots if s > 1), sum(s for s in slots if s == 1)


def _narrow(operations: int, rows: int, target: Target) -> int:
    """Slots of vector instructions of so few rows that half a register of AVX-512 holds them: three of these take the
    time of two, or less, as there is a port more for them (Intel), or two fit where one would (Zen 4)."""
    fits = target.isa == "avx512" and 2 * rows <= target.vector_lanes
    return -(-2 * operations // 3) if fits else operations


def _is_placed(operand: Operand, axis: str) -> bool:
    """Whether data say where an operand is read, one element for all lanes: its place is computed beside vectors."""
    return not operand.strides.get(axis, 0) and MANY in operand.strides.values()


def _combine_slots(lanes: int) -> int:
    """Slots to combine the lanes of one vector: a shuffle and an operation, in sequence, for each halving."""
    return 14 * (lanes.bit_length() - 1) + 2
