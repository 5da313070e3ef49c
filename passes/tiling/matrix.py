"""Schedules of contractions on a matrix unit: sums of 16 x 16 in tile registers, which whole tiles of the factors join.

    parallel over tasks = batch * (m / mc) * (n / nc):
      for panels of nr columns in nc:            # packed: tiles of B are neighbours
        for tiles of mr rows in mc:              # (mr / 16) * (nr / 16) tile registers hold their sums
          for k by depth: each tile of A meets each of B

Rows and columns beyond the last whole tile cost as much as a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from effcc.passes.tiling.constraints import Domain, evaluate
from effcc.passes.tiling.contraction import ContractionNest, ContractionSchedule
from effcc.passes.tiling.cost import ROOFLINE, byte_time_at_home, machine_parameters, predict
from effcc.passes.tiling.notation import parse_model
from effcc.passes.tiling.operands import extents, parts_of
from effcc.passes.tiling.solver import solutions
from effcc.target import Target

MODEL = """
    # Tile registers: sums, all tiles of the factor that has fewer of them, and one of the other.
    row_tiles = ceil(mr / side)
    column_tiles = nr / side
    row_tiles * column_tiles + min(row_tiles, column_tiles) + 1 <= tile_registers

    # Blocks: m_parts by n_parts of C, in whole tiles.
    mt = ceil(ceil(m / mr) / m_parts)
    nt = ceil(ceil(n / nr) / n_parts)
    rows = min(mt * mr, m)
    k_all = k_outer * k
    m_parts * mr < m + mr ; n_parts * nr < n + nr
    bytes * k_all * (rows + nr) <= l2_bytes

    # Parallel work: what the busiest thread does.
    tasks = batch * ceil(ceil(m / mr) / mt) * ceil(ceil(n / nr) / nt)
    rounds = ceil(tasks / threads)
    panels = rounds * nt

    # Slots of a step of `depth` points: products one after the other, or loads of tiles.
    steps = k_outer * ceil(k / depth)
    whole = steps * max(row_tiles * column_tiles * dot_slots, (row_tiles + column_tiles) * load_slots)
    left = ceil((rows % mr) / side)
    rest = (min(left, 1)
            * (steps * max(left * column_tiles * dot_slots, (left + column_tiles) * load_slots) + call_slots))
    leave = (row_tiles + left) * column_tiles * leave_slots
    panel_slots = rows / mr * (whole + call_slots) + rest + ceil(rows / mr) * leave
    compute = slot * (panels * panel_slots + rounds * task_slots)

    # Bytes between L2 and L1: A once a panel, B once a tile unless panel and tile of A fit in L1, C once.
    spilled = min(1, k_all * bytes * (nr + mr) / l1_bytes)
    panel_bytes = k_all * bytes * (rows + nr * max(1, spilled * ceil(rows / mr))) + out_bytes * nr * rows
    cache = l2_byte * panels * panel_bytes

    # From where the operands live: A once a task, B once a task, C once.
    outer = (rounds * bytes * rows * k_all * lhs_byte
             + panels * nr * (bytes * k_all * rhs_byte + out_bytes * rows * out_byte))

    # Threads claim tasks: the last one keeps the others waiting, for a sixteenth of it on average.
    wait = max(compute, cache, outer) / (16 * rounds)
    start = min(1, threads - 1) * (min(1, tasks - 1) * start_time + wait) + unit_time
"""

SIDE = 16
"""Rows and columns of a tile of sums."""
DOT_SLOTS, LOAD_SLOTS = 32, 16
"""A product of tiles takes 16 cycles, a load of one 8: its 16 rows, two a cycle (two slots are a cycle)."""
LEAVE_SLOTS = 96
"""A tile of sums to memory, and 16 vectors from there again."""
UNIT_SECONDS = 4e-7
"""Setting the unit up, once for each thread and kernel."""
MOST_TILES = 6


def matrix_schedules(nest: ContractionNest, target: Target) -> Iterator[ContractionSchedule]:
    """All schedules of a contraction on the matrix unit of `target`, in order of predicted time."""
    m, n = extents(nest.axes, "m")[-1], extents(nest.axes, "n")[-1]
    *k_outer, k = extents(nest.axes, "k")
    row_axis, lane_axis = ([a.name for a in nest.axes if a.role == role][-1] for role in ("m", "n"))
    outside = [a for a in nest.axes if a.role != "k" and a.name not in (row_axis, lane_axis)]
    batch = prod(a.extent for a in outside)
    depth_all = k * prod(k_outer)
    machine = machine_parameters(target, nest.accumulator_bytes)
    sizes = tuple(SIDE * t for t in range(1, MOST_TILES + 1))
    m_parts = (1,) if row_axis in nest.whole else parts_of(-(-m // SIDE), target.cores)
    smallest = nest.lhs_bytes * depth_all * (-(-m // m_parts[-1]) + SIDE)
    parameters = machine | {
        "l2_bytes": max(target.l2_bytes, smallest),
        "tile_registers": target.tile_registers,
        "side": SIDE,
        "m": m,
        "n": n,
        "k": k,
        "k_outer": prod(k_outer),
        "depth": nest.depth,
        "batch": batch,
        "bytes": nest.lhs_bytes,
        "out_bytes": nest.out_bytes,
        "dot_slots": DOT_SLOTS,
        "load_slots": LOAD_SLOTS,
        "leave_slots": LEAVE_SLOTS,
        "unit_time": round(UNIT_SECONDS * 1e15),
        "lhs_byte": byte_time_at_home(target, batch * m * depth_all * nest.lhs_bytes),
        "rhs_byte": byte_time_at_home(target, batch * depth_all * n * nest.rhs_bytes),
        "out_byte": byte_time_at_home(target, batch * m * n * nest.out_bytes),
    }
    domains: dict[str, Domain] = {
        "mr": tuple(s for s in sizes if s < m + SIDE),
        "nr": tuple(s for s in sizes if s < n + SIDE),
        "m_parts": m_parts,
        "n_parts": (1,) if lane_axis in nest.whole else parts_of(-(-n // SIDE), target.cores),
    }
    model = parse_model(MODEL + ROOFLINE)
    problem = model.problem(domains, parameters)
    for solution in solutions(problem):
        v = {**problem.parameters, **solution.values}
        mt = _ceil(_ceil(m, v["mr"]), v["m_parts"])
        nt = _ceil(_ceil(n, v["nr"]), v["n_parts"])
        yield ContractionSchedule(
            lanes=v["lanes"],
            mr=min(v["mr"], m),
            nr=v["nr"],
            mc=min(mt * v["mr"], m),
            nc=nt * v["nr"],
            kc=k,
            tasks=evaluate(model.definitions["tasks"], v),
            padded_columns=_ceil(n, v["nr"]) * v["nr"] - n,
            prediction=predict(model, v),
            reasons=problem.explain(solution.values),
        )


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
