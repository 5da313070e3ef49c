"""Schedules of windows: sums or maxima over taps around every point, channel by channel (depthwise, pooling).

Lanes are channels, whose window is the same. Neighbouring points read mostly the same elements: a register tile of
`points` along one axis, with its taps unrolled, loads each element and each weight once for all of them:

    parallel over tasks:
      for lines of points, channels in vectors:
        for tiles of `points` in the line:                  # points x vectors accumulators in registers
          for the other taps (rows of the window):
            taps: unrolled if registers hold what they share, one load for every element that the tile's windows reach
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from effcc.passes.tiling.constraints import Problem
from effcc.passes.tiling.cost import ROOFLINE, Prediction, byte_time_at_home, machine_parameters, predict
from effcc.passes.tiling.notation import parse_model
from effcc.passes.tiling.solver import Solution, solutions
from effcc.target import Target

MODEL = """
    # Accumulators stay in registers, and where taps are unrolled a row of weights and what the windows share; and where
    # there are no registers of masks, one that says whether a row of the window lies inside.
    shared = held * (1 + weighted) * taps * vectors + (1 - held) * weighted * vectors + 1
    points * vectors + shared + masks <= vector_registers
    points <= line ; vectors <= ceil(channels / lanes)

    # Issue slots of one row of taps: operations, loads, or the latency of folding tap after tap, whichever is longest.
    turn = (1 - held) * taps * turn_slots
    loads = (1 - held) * points * taps + held * min(points * taps, (points - 1) * stride + reach) + weighted * taps
    loads * load_slots <= max(load_instructions, 2 * taps * load_slots)
    step = max(points * vectors * taps * operations, loads * load_slots * vectors, latency_slots * taps) + turn
    left = line % points
    left_loads = (1 - held) * left * taps + held * min(left * taps, (left - 1) * stride + reach) + weighted * taps
    left_step = min(left, 1) * (turn + max(left * vectors * taps * operations, left_loads * load_slots * vectors,
                                           latency_slots * taps))

    # Tiles of a line, each with its stores and its start; lines are shared by the threads, but for those that a task
    # runs whole, and so are vectors of channels, unless they are `together` in one.
    tiles = ceil(line / points)
    line_slots = rows * (line / points * step + left_step) + line * vectors * store_slots + tiles * tile_slots
    parts = ceil(ceil(channels / lanes) / vectors)
    busy = lines_each * (together * parts * ceil(lines / threads) + (1 - together) * ceil(lines * parts / threads))
    compute = slot * busy * line_slots
    cache = l2_byte * bytes / threads
    outer = bytes * byte_time / threads
    start = min(1, max(0, threads - 1)) * start_time
"""

TILE_SLOTS = 16
"""Slots to start a tile: a mispredicted exit of the loop over rows of taps comes once for several tiles."""
TURN_SLOTS = 2
"""Slots to turn a loop over taps once."""
STORE_SLOTS = 2
"""Slots to store one vector of results, which lie side by side."""
LOAD_INSTRUCTIONS = 160
"""So many instructions load what a row of taps needs, at most: where each lane is loaded by itself, few points are
written out."""


@dataclass(frozen=True)
class WindowNest:
    """Windows along a line to be scheduled.

    line: points of the axis that the register tile lies along; `stride`: how many elements the window moves from one to
    the next; `taps`: of the window along it, which reach over `reach` elements. rows: taps along all other axes.
    channels: points along the lanes, all in one task if they are `together`; lines: of all other axes that tasks cut,
    lines_each: of those that each runs whole. weighted: whether taps have weights; padded: whether
    windows may lie partly outside. load_slots: instructions of one load, more than one where lanes lie apart.
    operations: vector instructions of folding one tap. bytes: of everything read and written. element_bytes: of what is
    computed in.
    """

    line: int
    stride: int
    taps: int
    reach: int
    rows: int
    channels: int
    lines: int
    weighted: bool
    operations: int
    bytes: int
    element_bytes: int = 4
    padded: bool = False
    load_slots: int = 1
    lines_each: int = 1
    together: bool = False


@dataclass(frozen=True)
class WindowSchedule:
    """A register tile of `points` along the line by `vectors` of `lanes` channels; `held`: with the line's taps
    unrolled.
    """

    points: int
    vectors: int
    lanes: int
    held: bool
    prediction: Prediction
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        taps = "taps unrolled" if self.held else "taps in a loop"
        return f"window tile of {self.points} points by {self.vectors} vectors of channels, {taps}"


def window_problem(nest: WindowNest, target: Target) -> Problem:
    """The integer problem of a nest of windows (`MODEL`, with its numbers)."""
    parameters = machine_parameters(target, nest.element_bytes) | {
        "line": nest.line,
        "stride": nest.stride,
        "taps": nest.taps,
        "reach": nest.reach,
        "rows": nest.rows,
        "channels": nest.channels,
        "lines": nest.lines,
        "lines_each": nest.lines_each,
        "together": int(nest.together),
        "weighted": int(nest.weighted),
        "masks": int(nest.padded and target.isa != "avx512"),
        "load_slots": nest.load_slots,
        "load_instructions": LOAD_INSTRUCTIONS,
        "operations": nest.operations,
        "bytes": nest.bytes,
        "byte_time": byte_time_at_home(target, nest.bytes),
        "tile_slots": TILE_SLOTS,
        "turn_slots": TURN_SLOTS,
        "store_slots": STORE_SLOTS,
    }
    domains = {"points": tuple(range(1, min(nest.line, 14) + 1)), "vectors": (1, 2, 4), "held": (0, 1)}
    return parse_model(MODEL + ROOFLINE).problem(domains, parameters)


def schedule_window(nest: WindowNest, target: Target) -> WindowSchedule:
    """The schedule that is predicted to be fastest."""
    return next(window_schedules(nest, target))


def window_schedules(nest: WindowNest, target: Target) -> Iterator[WindowSchedule]:
    """All schedules in order of predicted time."""
    problem = window_problem(nest, target)
    for solution in solutions(problem):
        yield _as_schedule(problem, solution)


def _as_schedule(problem: Problem, solution: Solution) -> WindowSchedule:
    v = {**problem.parameters, **solution.values}
    return WindowSchedule(
        points=v["points"],
        vectors=v["vectors"],
        lanes=v["lanes"],
        held=bool(v["held"]),
        prediction=predict(parse_model(MODEL + ROOFLINE), v),
        reasons=problem.explain(solution.values),
    )
