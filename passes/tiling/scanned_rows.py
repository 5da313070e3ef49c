"""Scans along rows that lie in memory as they are scanned: a few rows at once, each step of them in registers.

    parallel i by 128 {
      for i by 4 unroll {
        hold S in registers {
          for t by 1 { do S do Y }
        }
      }
    }

Lanes along i would read and write elements that are a row apart, each in a line and, of long rows, in a page of its
own; rows of a power of two share sets of L1 besides. Scalars go along the rows as caches like it, and several rows at
once fill the time that a step waits for the one before. Where a step is dear (an `exp`, say), lanes pay all the same:
both are priced.
"""

from __future__ import annotations

from math import prod

from effcc.ir.dependences import carries, shared_axes
from effcc.ir.dims import elements
from effcc.ir.expr import Axis, Call, Expr, Load, children
from effcc.ir.kernel import Kernel
from effcc.ir.scalars import function
from effcc.ir.schedule import PARALLEL, SERIAL, Do, Hold, Loop, Node, Schedule
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.cost import FEMTO, START_SECONDS, byte_time_at_home, machine_parameters
from effcc.target import Target

ROWS = (1, 2, 4, 8)
"""So many rows at once."""
STREAMS = 8
"""Rows that are read and written at once, at most: a set of L1 has so many lines."""
SCALARS = 2
"""So many scalar instructions issue while one of vectors does."""
TURN_SLOTS = 2
"""Scalar instructions to turn the loop over steps."""
TASKS_A_CORE = 4
"""Tasks for each core, if there are so many, so that none waits long for the last one."""


def scanned_rows(kernel: Kernel, target: Target) -> Schedule | None:
    """Such a schedule, with what it is predicted to take; None for a kernel that is more than a scan along rows."""
    if len(kernel.scans) != 1:
        return None
    (scan,), layout = kernel.scans, layouts(kernel)
    carried = [s.target for s in kernel.statements if carries(kernel, s) == scan]
    if not carried or not _is_one_box(kernel, carried):
        return None
    memory = {p.name: p.type for p in kernel.signature}
    moved = dict.fromkeys(
        x for s in kernel.statements for x in s.reads if x.buffer in memory and x.buffer not in carried
    )
    written = [Load(s.target, tuple(map(Axis, s.axes)), s.dtype) for s in kernel.statements if s.target in memory]
    moved.update(dict.fromkeys(written))
    steps = [stride(x, scan, layout[x.buffer]) for x in moved]
    if 1 not in steps or not set(steps) <= {0, 1}:
        return None
    machine, counts = machine_parameters(target), {a: max(elements((n,)), 1) for a, n in kernel.axes}
    slots = len(moved) + sum(_operations(s.value) for s in kernel.statements)
    wait = machine["latency"] * sum(_chain(s.value, carried) for s in kernel.statements if s.target in carried)

    def point(rows: int) -> float:
        """Femtoseconds of a point, with so many rows at once."""
        return float(max((rows * slots + TURN_SLOTS) * machine["issue"] / SCALARS, wait)) / rows

    most = STREAMS // steps.count(1) if len(kernel.statements[0].axes) > 1 else 1
    together = min((n for n in ROWS if n == 1 or n <= most), key=point)
    sizes = [elements(memory[b].shape) * memory[b].dtype.bytes for b in {x.buffer for x in moved}]
    outer = sum(n * byte_time_at_home(target, n) for n in sizes)
    seconds = max(prod(counts.values()) * point(together), outer) / FEMTO / target.cores
    seconds += START_SECONDS if target.cores > 1 else 0
    body = _loops(kernel, carried, together, counts, target)
    how = f"{together} rows at once" if together > 1 else "row by row"
    return Schedule(body, (), seconds, (f"{', '.join(carried)}: {how} along {scan}, in registers",))


def _is_one_box(kernel: Kernel, carried: list[str]) -> bool:
    """Whether all statements run at the same points, of axes whose points tasks can share but for the scan's, and read
    nothing of one another but at those points and, of what is carried, a step before."""
    first, shared = kernel.statements[0], shared_axes(kernel)
    alike = all(s.reduction is None and s.scatter is None and s.axes == first.axes for s in kernel.statements)
    whole = any(a not in shared and kernel.extents[a] != 1 for a in first.axes if a not in kernel.scans)
    own, targets = tuple(map(Axis, first.axes)), {s.target for s in kernel.statements} - {*carried}
    reads = (x for s in kernel.statements for x in s.reads if x.buffer in targets)
    return alike and not whole and all(x.index == own for x in reads)


def _loops(
    kernel: Kernel, carried: list[str], together: int, counts: dict[str, int], target: Target
) -> tuple[Node, ...]:
    """Tasks of rows, a few of them at once, and the scan inside."""
    (scan,) = kernel.scans
    body: tuple[Node, ...] = tuple(Do(s.target) for s in kernel.statements)
    body = (Hold(tuple(carried), "registers", (Loop(SERIAL, scan, 1, body),)),)
    rows = [a for a in kernel.statements[0].axes if a != scan]
    if not rows:
        return body
    *outer, row = rows
    tasks = TASKS_A_CORE * target.cores
    pieces = prod(counts[a] for a in outer)
    tile = max(counts[row] * pieces // tasks // together, 1) * together if pieces < tasks else counts[row]
    body = (Loop(SERIAL, row, together, body, "unroll" if together > 1 else ""),)
    for axis, step in ((row, tile), *((a, 1) for a in reversed(outer))):
        body = (Loop(PARALLEL, axis, step, body),)
    return body


def _operations(e: Expr) -> float:
    """Scalar instructions of an expression: what is computed of loads."""
    if isinstance(e, Load) or not any(isinstance(x, Load) for x in _nodes(e)):
        return 0.0
    own = function(e.function).instructions if isinstance(e, Call) else 0.0
    return own + sum(map(_operations, children(e)))


def _nodes(e: Expr) -> list[Expr]:
    return [e, *(x for part in children(e) for x in _nodes(part))]


def _chain(e: Expr, carried: list[str]) -> float:
    """Instructions one after the other from what is carried to an expression's value; 0 where it reads none of it."""
    if isinstance(e, Load):
        return 0.0
    of = [p for p in children(e) if any(isinstance(x, Load) and x.buffer in carried for x in _nodes(p))]
    own = function(e.function).instructions if isinstance(e, Call) and of else 0.0
    return own + max((_chain(p, carried) for p in of), default=0.0)
