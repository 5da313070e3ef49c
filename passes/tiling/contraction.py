"""Schedules of contractions: C[b, m, n] = sum over k of A[b, m, k] * B[b, k, n].

The schedule is the classical one (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008),
with every number left to the solver:

    parallel over tasks = batch * (m / mc) * (n / nc):
     for turns:                                  # the axes that tasks cannot share
      for k blocks of kc:                        # an mc x kc block of A stays in L2 meanwhile
        for panels of nr columns in nc:          # a kc x nr panel of B, contiguous when packed
          for tiles of mr rows in mc:            # mr x nr accumulators in registers
            for k in kc: outer product of a column of A and a row of B

The rows left over by `mr` run in a tile of their own height; columns are padded to `nr`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import gcd, prod
from typing import Literal

from effcc.errors import ScheduleError
from effcc.passes.tiling.constraints import Domain, Problem, evaluate
from effcc.passes.tiling.cost import (
    ALIASED_SLOTS,
    APART_SLOTS,
    EXIT_SLOTS,
    FAR_BYTES,
    LINE_SLOTS,
    LOAD_EIGHTHS,
    PACKED_LOAD_EIGHTHS,
    PANEL_PARTS,
    ROOFLINE,
    Prediction,
    byte_time_at_home,
    machine_parameters,
    predict,
)
from effcc.passes.tiling.notation import parse_model
from effcc.passes.tiling.operands import Axis, extents, parts_of
from effcc.passes.tiling.solver import Solution, solutions
from effcc.target import PAGE_BYTES, Target

MODEL = """
    # Register tile: accumulators, a row of B, and one broadcast element of A.
    vectors = nr / lanes
    # Sums of a group have their own; `turned` dot products hold sizes beside columns. Where pairs are added up by
    # ones, these are in a register, and so is what is being summed beside what it is made of. Where a step adds up
    # several `neighbours`, each accumulator has a narrow one beside it, and the last product replaces what made it.
    (1 + beside) * mr * nr / lanes + (1 + turned) * nr / lanes + 1 + ones_registers + masks <= vector_registers
    mr + 2 <= aliased_rows or mr == 1              # rows of A that share one L1 set, with their lines of B and C
    n % nr == 0 or padded == 1

    # Blocks: m_parts by n_parts of C, in whole tiles; k in blocks of kc.
    mt = ceil(ceil(m / mr) / m_parts)
    nt = ceil(ceil(n / nr) / n_parts)
    rows = min(mt * mr, m)
    columns = nt * nr
    depth = kc * k_inner                           # steps: packed neighbours count as one
    k_all = k * k_inner
    blocks = ceil(k / kc)
    rests = min(1, max(blocks - 1, 0))             # partial sums rest in a block of C, which is cleared before
    reloads = rests * (blocks + 1)                 # and read once more by what follows
    m_parts * mr < m + mr ; n_parts * nr < n + nr
    panel = rhs_bytes * depth * nr
    held = lhs_bytes * rows * depth + panel * (1 + made_whole * (nt - 1)) + rests * acc_bytes * rows * columns
    held <= l2_bytes

    # Parallel work: what the busiest thread does; a task runs its panels `turns` times. Each `max` below has a second
    # term that is never greater than the first, the same work divided evenly: it changes no cost, but bounds it before
    # all variables are known.
    m_blocks = ceil(ceil(m / mr) / mt)
    n_blocks = ceil(ceil(n / nr) / nt)
    tasks = batch * m_blocks * n_blocks
    rounds = ceil(tasks / threads)
    busy_panels = turns * max(rounds * nt, ceil(batch * m_blocks * ceil(n / nr) / threads))

    # A panel of B that is made (decoded) by the task that reads it: stored once, for all its rows. A task has one
    # panel, or makes all of B (`made_whole`).
    nt == 1 or made_slots == 0 or made_whole == 1
    made_panel = k_all * vectors * made_slots

    # Multiply-add slots of a step of k: multiply-adds, loads, or latency, whichever takes longest. Rows of A come
    # line by line, from as many places as there are rows, but for short ones, which follow one another. Of two rows
    # compilers make each load of B a part of the multiply-add, so that it is loaded twice.
    twice = min(1, max(mr - 1, 0)) * min(1, max(3 - mr, 0))
    step = max((mr * dot_slots + decode_slots) * vectors,
               (mr * row_slots + (1 + twice) * vectors) * neighbours * load_eighths / 8, latency_slots)
    left = rows % mr
    left_step = (min(left, 1) * max((left * dot_slots + decode_slots) * vectors,
                                    (left * row_slots + vectors) * neighbours * load_eighths / 8, latency_slots))
    all_left = m % mr
    all_left_step = (min(all_left, 1) * max((all_left * dot_slots + decode_slots) * vectors,
                                            (all_left * row_slots + vectors) * neighbours * load_eighths / 8,
                                            latency_slots))
    # Of results that lie apart along the lanes, four rows are stored together; of those left, each lane on its own.
    call = (blocks * call_slots + (blocks * store_slots + reloads * reload_slots) * vectors * mr
            + spread_slots * vectors * (mr % 4)
            + k_all * turn_slots / 8 + k_all / k_run * exit_slots)
    lines = min(1, lhs_bytes * k_all / 1024) * lhs_bytes * k_all * line_slots   # of a row of A, in 64ths
    # Bytes between L2 and L1: A once a panel, B once a tile unless panel and tile of A fit in L1, C once a block. Rows
    # of B that lie apart fit only as far as their addresses do not share L1's sets; and each is a stream of its own.
    spilled = min(1, max(depth * (nr * rhs_bytes + mr * lhs_bytes) / l1_bytes, (depth - 1) / rhs_held))
    rhs_reads = max(1, spilled * ceil(rows / mr))
    all_rhs_reads = max(1, spilled * ceil(m / mr))
    streams = k_all * ceil(nr * rhs_bytes / 64) * apart_slots

    panel_slots = (k_all * (rows / mr * step + left_step) + ceil(rows / mr) * (call + join_loads * vectors)
                   + ceil(rows * lines / 64) + made_panel + rows * vectors * join_slots + streams * rhs_reads)
    all_slots = (turns * batch * ceil(n / nr)
                 * (k_all * (m / mr * step + all_left_step) + ceil(m / mr) * (call + join_loads * vectors)
                    + m * lines / 64 + made_panel + m * vectors * join_slots + streams * all_rhs_reads))

    partial = acc_bytes * nr * (blocks + reloads)
    panel_bytes = lhs_bytes * rows * k_all + rhs_bytes * nr * k_all * rhs_reads + partial * rows
    all_bytes = (turns * batch * ceil(n / nr)
                 * (lhs_bytes * m * k_all + rhs_bytes * nr * k_all * all_rhs_reads + partial * m))
    cache = l2_byte * max(busy_panels * panel_bytes, all_bytes / threads)

    # Loads that wait for L2 hold multiply-adds up: a twelfth of what they take. The next panel comes there while tiles
    # of rows use this one, if it is asked for early and has room beside what they use; else the first tile waits.
    unasked = min(1, max(panel_parts * panel - l2_bytes, 0) + panel_parts * max(held + panel - l2_bytes, 0))
    waits = unasked * min(1, max(ceil(rows / mr) - 1, 0))
    compute = (slot * (max(busy_panels * panel_slots, all_slots / threads) + rounds * task_slots) + cache / 12
               + waits * busy_panels * nr * k_all * rhs_time)

    # From where the operands live: A once a task, B once a task, C once.
    task_time = (turns * rounds * lhs_bytes * rows * k_all * lhs_byte
                 + busy_panels * nr * (k_all * rhs_time + out_bytes * rows * out_byte))
    all_time = turns * batch * (n_blocks * lhs_bytes * m * k_all * lhs_byte
                        + n * (m_blocks * k_all * rhs_time + m * out_bytes * out_byte))
    outer = max(task_time, all_time / threads) + pack_time / threads

    # Threads claim tasks: the last one keeps the others waiting, for a sixteenth of it on average.
    wait = max(compute, cache, outer) / (16 * rounds)
    start = min(1, max(threads - 1, 0)) * (min(1, max(tasks - 1, 0)) * start_time + wait)
"""


BLOCKS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Into how many blocks k may be cut."""


@dataclass(frozen=True)
class Made:
    """What it takes to make a vector of B's panels: instructions, and the bytes that are stored for all of B."""

    slots: int
    stored_bytes: int


@dataclass(frozen=True)
class Joins:
    """What it takes to add up what `groups` of the depth have been summed to: `slots` for each vector of accumulators,
    `loads` for each vector of columns.
    """

    groups: int
    slots: int
    loads: int


SPREAD_SLOTS = 2
"""Slots to store one lane of a vector: it is taken out, and there is one store port."""


@dataclass(frozen=True)
class ContractionNest:
    """A contraction to be scheduled.

    The innermost `m` axis is tiled by registers and blocks, so is the innermost `n` axis; other `m`, `n` and `batch`
    axes are looped over outside. The outermost `k` axis is blocked, the others run whole: a caller that can merge
    axes does so before.

    Attributes:
        axes: all axes, outermost first within each role.
        lhs_bytes: of one stored element of A.
        rhs_bytes: of one stored element of B; rounded up where an encoding stores fractions of a byte.
        out_bytes: of one stored element of C.
        accumulator_bytes: of one accumulator; 4 for float32 and int32.
        rhs: `packed` if B is constant and stored in panels of nr columns, `rows` if its n axis is contiguous, `columns`
            if it is not and panels are packed at run time.
        lhs_row_stride: bytes between rows of A, when known; rows that alias in L1 limit the tile.
        decode_slots: instructions to make one vector of B from its stored form (0 when it is loaded as it is), at every
            step of every register tile.
        row_slots: instructions to make one element of A from its stored form, at every step of every register tile.
        made: where each task makes its panels of B, for all of its rows, what they are made of; else None.
        may_pad: whether the last panel may be computed with masked or padded columns.
        block_k: whether k may be split into blocks, with partial sums in C between them.
        whole: names of axes that tasks cannot share; each task runs all of them.
        depth: points of the innermost k axis that are summed at once, as packed neighbours, here and in `matrix`.
        dot_slots: what summing them takes in vectors, in multiply-adds.
        turned: whether each takes columns' sizes and their signs, which are in registers meanwhile.
        neighbours: so many vectors of packed neighbours a step sums, each loaded: more than one in a narrow sum of its
            own, which then joins the accumulator.
        ones: whether each takes ones, by which sums of two are added up (vpmaddwd), from a register.
        joins: where a group of k at a time is summed in accumulators of its own, how these join the others; else None.
        rhs_row_stride: bytes between the vectors of B that one step of the innermost k axis and the next read, where
            they are known, and far from each other or in few sets of L1.
        masks: vector registers that say which lanes of B lie inside what it is read from, and that hold zeros for what
            does not.
        spread: whether results lie apart along the lanes, and side by side along A's rows.
    """

    axes: tuple[Axis, ...]
    lhs_bytes: int = 4
    rhs_bytes: int = 4
    out_bytes: int = 4
    accumulator_bytes: int = 4
    rhs: Literal["packed", "rows", "columns"] = "packed"
    lhs_row_stride: int | None = None
    decode_slots: int = 0
    may_pad: bool = True
    block_k: bool = True
    whole: frozenset[str] = frozenset()
    depth: int = 1
    dot_slots: int = 1
    turned: bool = False
    ones: bool = False
    neighbours: int = 1
    row_slots: int = 0
    made: Made | None = None
    joins: Joins | None = None
    rhs_row_stride: int | None = None
    masks: int = 0
    spread: bool = False


@dataclass(frozen=True)
class ContractionSchedule:
    """How a contraction runs; all sizes are elements.

    `mr` x `nr` is the register tile, `mc` x `nc` one task's block of C (`mc` a multiple of `mr` and `nc` of `nr`, or
    whole), `kc` the block of the outermost k axis. `nr` is a multiple of `lanes`.
    """

    lanes: int
    mr: int
    nr: int
    mc: int
    nc: int
    kc: int
    tasks: int
    padded_columns: int
    """How many columns beyond n the last panel computes."""
    prediction: Prediction
    reasons: tuple[str, ...]
    """Every constraint of the model, with the numbers its sides come to."""

    def __str__(self) -> str:
        return f"tile {self.mr}x{self.nr}, {self.tasks} tasks of {self.mc}x{self.nc}x{self.kc}"


def schedule_contraction(nest: ContractionNest, target: Target, k: int = 1) -> list[ContractionSchedule]:
    """The `k` schedules that are predicted to be fastest, best first.

    Raises:
        ScheduleError: no schedule fits the machine, or the nest has no m, n or k axis, or an empty one.
    """
    return list(islice(contraction_schedules(nest, target), k))


def contraction_schedules(nest: ContractionNest, target: Target) -> Iterator[ContractionSchedule]:
    """All schedules of a contraction in order of predicted time; errors as in `schedule_contraction`."""
    problem = contraction_problem(nest, target)
    given: set[tuple[int, ...]] = set()
    for solution in solutions(problem):
        s = _as_schedule(problem, solution)
        # Different numbers of parts can round to the same blocks.
        if (key := (s.mr, s.nr, s.mc, s.nc, s.kc)) not in given:
            given.add(key)
            yield s


def contraction_problem(nest: ContractionNest, target: Target) -> Problem:
    """The integer problem whose solutions are the schedules of a contraction (`MODEL`, with its numbers)."""
    for role in ("m", "n", "k"):
        if not extents(nest.axes, role):
            raise ScheduleError(f"contraction: no axis of role {role!r} among {[a.name for a in nest.axes]}")
    nest = replace(nest, lhs_bytes=nest.lhs_bytes * nest.depth, rhs_bytes=nest.rhs_bytes * nest.depth)
    if empty := [a.name for a in nest.axes if a.extent < 1]:
        raise ScheduleError(f"contraction: axes {empty} are empty; an empty contraction needs no schedule")
    m, n = extents(nest.axes, "m")[-1], extents(nest.axes, "n")[-1]
    *deep, innermost = extents(nest.axes, "k")
    k, *k_inner = (*deep, _ceil(innermost, nest.depth))
    row_axis, lane_axis = ([a.name for a in nest.axes if a.role == role][-1] for role in ("m", "n"))
    outside = [a for a in nest.axes if a.role != "k" and a.name not in (row_axis, lane_axis)]
    turns = prod(a.extent for a in outside if a.name in nest.whole)
    batch = prod(a.extent for a in outside if a.name not in nest.whole)
    depth = k * prod(k_inner)
    elements = batch * turns * depth * n
    rhs_total = elements * nest.rhs_bytes if nest.made is None else nest.made.stored_bytes
    machine = machine_parameters(target, nest.accumulator_bytes)
    lanes = machine["lanes"]
    vector = max(lanes, target.vector_lanes)  # generated code counts vectors of every type in lanes of f32
    kc = _blocks(k, 1 if k_inner else lanes) if nest.block_k and nest.made is None else (k,)
    m_parts = (1,) if row_axis in nest.whole else parts_of(m, target.cores)
    n_parts = _column_parts(nest, n, vector, target) if lane_axis not in nest.whole else (1,)
    # Where not even the smallest block fits L2 (a very long k that may not be blocked, or long axes within it), that
    # block is what there is, with the partial sums that rest beside it.
    rows, columns = _ceil(m, m_parts[-1]), vector * _ceil(_ceil(n, vector), n_parts[-1])
    resting = nest.accumulator_bytes * rows * columns if kc[0] < k else 0
    smallest_block = kc[0] * prod(k_inner) * (nest.lhs_bytes * rows + nest.rhs_bytes * vector) + resting
    parameters = machine | {
        "l2_bytes": max(target.l2_bytes, smallest_block),
        "m": m,
        "n": n,
        "k": k,
        "k_inner": prod(k_inner),
        "k_run": k_inner[-1] if k_inner else k,
        # Of the only loop over k, `call_slots` has it; of a group's, what joins its sums.
        "exit_slots": EXIT_SLOTS if k_inner and nest.joins is None else 0,
        "batch": batch,
        "turns": turns,
        "padded": int(nest.may_pad),
        "lhs_bytes": nest.lhs_bytes,
        "rhs_bytes": nest.rhs_bytes,
        "out_bytes": nest.out_bytes,
        "acc_bytes": nest.accumulator_bytes,
        "lhs_byte": byte_time_at_home(target, batch * turns * m * depth * nest.lhs_bytes),
        "rhs_time": round(byte_time_at_home(target, rhs_total) * rhs_total / elements),
        "out_byte": byte_time_at_home(target, batch * turns * m * n * nest.out_bytes),
        "decode_slots": nest.decode_slots,
        "row_slots": 1 + nest.row_slots,
        "made_whole": int(nest.made is not None and lane_axis in nest.whole),
        "made_slots": 0 if nest.made is None else nest.made.slots,
        "panel_parts": PANEL_PARTS if nest.rhs == "packed" and nest.made is None else 0,
        "dot_slots": nest.dot_slots,
        "turned": int(nest.turned),
        "ones_registers": 0 if not nest.ones else 1 if nest.neighbours > 1 else 2,
        "beside": int(nest.joins is not None or nest.neighbours > 1),
        "neighbours": nest.neighbours,
        "join_slots": 0 if nest.joins is None else nest.joins.groups * nest.joins.slots,
        "join_loads": 0 if nest.joins is None else nest.joins.groups * nest.joins.loads,
        "load_eighths": LOAD_EIGHTHS if nest.depth == 1 else PACKED_LOAD_EIGHTHS,
        # Panels neither packed nor made come from as many places as A's rows: wide ones gain nothing there.
        "line_slots": LINE_SLOTS if nest.rhs == "packed" or nest.made is not None else 0,
        "pack_time": 2 * rhs_total * machine["l2_byte"] if nest.rhs == "columns" else 0,
        "masks": nest.masks,
        "spread_slots": SPREAD_SLOTS * lanes if nest.spread else 0,
        # As many rows as the tile's width: where they are closer than its lines, they are one stream.
        "rhs_held": depth if nest.rhs_row_stride is None else aliased_rows(nest.rhs_row_stride, target.l1_bytes),
        "apart_slots": _apart_slots(nest.rhs_row_stride),
        "aliased_rows": aliased_rows(nest.lhs_row_stride or depth * nest.lhs_bytes, target.l1_bytes),
    }
    domains: dict[str, Domain] = {
        "mr": tuple(range(1, min(m, target.vector_registers - 2) + 1)),
        "nr": _widths(vector),
        "kc": kc,
        "m_parts": m_parts,
        "n_parts": n_parts,
    }
    return parse_model(MODEL + ROOFLINE).problem(domains, parameters)


def _as_schedule(problem: Problem, solution: Solution) -> ContractionSchedule:
    v: Mapping[str, int] = {**problem.parameters, **solution.values}
    model = parse_model(MODEL + ROOFLINE)
    mt = -(-_ceil(v["m"], v["mr"]) // v["m_parts"])
    nt = -(-_ceil(v["n"], v["nr"]) // v["n_parts"])
    columns = _ceil(v["n"], v["nr"]) * v["nr"]
    return ContractionSchedule(
        lanes=v["lanes"],
        mr=v["mr"],
        nr=v["nr"],
        mc=min(mt * v["mr"], v["m"]),
        nc=nt * v["nr"],
        kc=v["kc"],
        tasks=evaluate(model.definitions["tasks"], v),
        padded_columns=columns - v["n"],
        prediction=predict(model, v),
        reasons=problem.explain(solution.values),
    )


def _column_parts(nest: ContractionNest, n: int, vector: int, target: Target) -> Domain:
    """Into how many parts columns may be cut: each is one panel where tasks make panels of their own."""
    if nest.made is None:
        return parts_of(_ceil(n, vector), target.cores)
    return tuple(sorted({_ceil(n, nr) for nr in _widths(vector)}))


def _widths(vector: int) -> Domain:
    return tuple(vector * v for v in range(1, 9))


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _blocks(k: int, multiple: int) -> Domain:
    """Block sizes that split k into a few to many nearly equal blocks; multiples of `multiple`, or k itself. Where
    further axes are within a block, it may be one point."""
    sizes = {k}
    for count in BLOCKS:
        size = -(-k // count)
        size = -(-size // multiple) * multiple
        if size < k and (size >= 2 * multiple or multiple == 1):
            sizes.add(size)
    return tuple(sorted(sizes))


def _apart_slots(stride: int | None) -> int:
    return 0 if stride is None else APART_SLOTS if stride >= FAR_BYTES else ALIASED_SLOTS


def aliased_rows(stride: int, l1_bytes: int) -> int:
    """How many rows `stride` bytes apart the L1 cache holds one line each of."""
    sets = PAGE_BYTES // gcd(stride, PAGE_BYTES)
    return min(sets, PAGE_BYTES // 64) * max(1, l1_bytes // PAGE_BYTES)
