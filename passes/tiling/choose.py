"""The schedule of a kernel: nests, lanes, register tiles, parallel tiles, packed operands."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

from effcc.ir.dependences import both_ways, is_made_anew, online_axis, shared_axes, step_axes
from effcc.ir.dims import elements
from effcc.ir.kernel import Kernel
from effcc.ir.schedule import Schedule
from effcc.passes.tiling.both_ways import tiles_both_ways
from effcc.passes.tiling.build import Outline, TiledAxis, TiledNest, build
from effcc.passes.tiling.choice import Choice
from effcc.passes.tiling.copies import copied, copy_nest
from effcc.passes.tiling.gathered import gathered_schedule, is_gathered
from effcc.passes.tiling.groups import group_schedule, is_grouped
from effcc.passes.tiling.nests import NestPlan, plan_nests
from effcc.passes.tiling.online import online_of
from effcc.passes.tiling.pack import pack
from effcc.passes.tiling.panel_nest import decoded, panel_nest
from effcc.passes.tiling.plain_nest import plain_nest
from effcc.passes.tiling.product_nest import product_nest, product_of
from effcc.passes.tiling.scaled_nest import scaled_nest, with_groups
from effcc.passes.tiling.scanned_rows import scanned_rows
from effcc.passes.tiling.scatters import scatter_schedule, scatters, sections
from effcc.target import Target

MEET_SECONDS = 2e-6
"""What it costs threads to meet after a step, and to bring what others have written into their own caches."""


def choose(kernel: Kernel, target: Target, rank: int = 0, once: bool = False) -> tuple[Kernel, Schedule]:
    """The kernel, reading packed operands where it should, and its schedule on `target`.

    rank: of every nest, pass over so many that are predicted to be faster. once: it runs once for many calls, so that
    its code should be short.
    """
    parts = sections(kernel)
    if len(parts) > 1:
        return _one_after_the_other(kernel, [choose(part, target, rank, once)[1] for part in parts])
    if is_gathered(kernel):
        return kernel, gathered_schedule(kernel, target)
    if is_grouped(kernel):
        return packed_for(kernel, group_schedule(kernel, target))
    if len(kernel.statements) == 1 and scatters(kernel) and not kernel.scans:
        return kernel, scatter_schedule(kernel, target)
    if online_axis(kernel) is not None:
        return _in_one_pass(kernel, target, rank)
    if both_ways(kernel) is not None:
        return _both_ways(kernel, target, rank)
    found = _in_steps(kernel, target, rank)
    if found is not None:
        return found
    choice = Choice(kernel, target, shared_axes(kernel), _sequential(kernel), rank=rank, once=once)
    choice.tiles = dict.fromkeys(choice.shared, 1)
    nests = _nests(choice)
    parallel = tuple(TiledAxis(a, choice.tiles[a]) for a in _parallel_order(choice, nests))
    along = scanned_rows(kernel, target) if rank == 0 else None
    if along is not None and along.seconds < choice.seconds:
        return kernel, along
    body = build(kernel, Outline(parallel, choice.sequential), nests)
    return packed_for(kernel, Schedule(body, tuple(dict.fromkeys(choice.packs)), choice.seconds, tuple(choice.notes)))


def _one_after_the_other(kernel: Kernel, parts: Sequence[Schedule]) -> tuple[Kernel, Schedule]:
    """A kernel whose parts have schedules of their own."""
    body = tuple(node for part in parts for node in part.body)
    packs = tuple(dict.fromkeys(pack for part in parts for pack in part.packs))
    notes = tuple(note for part in parts for note in part.notes)
    return packed_for(kernel, Schedule(body, packs, sum(part.seconds for part in parts), notes))


def packed_for(kernel: Kernel, schedule: Schedule) -> tuple[Kernel, Schedule]:
    """The kernel reading its operands as the schedule packs them."""
    for wanted in schedule.packs:
        kernel, _ = pack(kernel, wanted)
    return kernel, schedule


def _sequential(kernel: Kernel) -> TiledAxis | None:
    return TiledAxis(kernel.scans[0], 1) if kernel.scans else None


def _in_one_pass(kernel: Kernel, target: Target, rank: int) -> tuple[Kernel, Schedule]:
    """The schedule of a kernel that walks an axis once: tasks are tiles of rows."""
    axis = online_axis(kernel)
    assert axis is not None
    rows, tiles = online_of(kernel, target, rank)
    shared = tuple(a for a in shared_axes(kernel) if a != rows)
    cut = {} if rows is None else {rows: tiles.queries}
    choice = Choice(kernel, target.one_core(), shared, TiledAxis(axis, tiles.keys), cut, rank=rank)
    choice.tiles = dict.fromkeys(shared, 1)
    nests = _nests(choice)
    parallel = [TiledAxis(a, choice.tiles[a]) for a in _parallel_order(choice, nests)]
    parallel += [TiledAxis(rows, tiles.queries)] if rows is not None else []
    body = build(kernel, Outline(tuple(parallel), choice.sequential), nests)
    notes = (
        f"{axis}: tiles of {tiles.queries} rows and {tiles.keys}, bound by {tiles.prediction.bound_by}",
        *choice.notes,
    )
    return packed_for(kernel, Schedule(body, tuple(dict.fromkeys(choice.packs)), tiles.prediction.seconds, notes))


def _both_ways(kernel: Kernel, target: Target, rank: int) -> tuple[Kernel, Schedule]:
    """The schedule of a kernel that sums a matrix both ways: each task walks it in tiles of rows and of columns."""
    crossed = both_ways(kernel)
    assert crossed is not None
    tiles = tiles_both_ways(kernel, target, rank)
    cut = {**dict.fromkeys(crossed.rows, 1), crossed.rows[-1]: tiles.queries}
    around = tuple(TiledAxis(a, n) for a, n in cut.items())
    sequential = TiledAxis(crossed.columns, tiles.keys)
    choice = Choice(kernel, target.one_core(), shared_axes(kernel), sequential, cut, rank=rank)
    choice.tiles = dict.fromkeys(choice.shared, 1)
    nests = _nests(choice, crossed.rows)
    parallel = tuple(TiledAxis(a, choice.tiles[a]) for a in _parallel_order(choice, nests))
    body = build(kernel, Outline(parallel, choice.sequential, around), nests)
    walked = f"{crossed.rows[-1]} x {crossed.columns}: tiles of {tiles.queries} x {tiles.keys}"
    notes = (f"{walked}, bound by {tiles.prediction.bound_by}", *choice.notes)
    return packed_for(kernel, Schedule(body, tuple(dict.fromkeys(choice.packs)), tiles.prediction.seconds, notes))


def _in_steps(kernel: Kernel, target: Target, rank: int) -> tuple[Kernel, Schedule] | None:
    """The schedule of a scan whose steps several threads share; None where they need not, cannot, or lose by it."""
    if len(kernel.scans) != 1 or target.cores == 1 or shared_axes(kernel):
        return None
    lanes = target.vector_lanes
    free = {a: n for a in step_axes(kernel) if isinstance(n := kernel.extents[a], int) and n >= 2 * lanes}
    if not free:
        return None
    axis = max(free, key=lambda a: free[a])
    part = -(-free[axis] // target.cores // lanes) * lanes
    choice = Choice(kernel, target.one_core(), (), _sequential(kernel), {axis: part}, rank=rank)
    nests = _nests(choice)
    whole = lcm(*(n.lanes.tile for n in nests if n.lanes is not None and n.lanes.axis == axis))
    tile = -(-part // whole) * whole
    parts = -(-free[axis] // tile)
    steps = max(elements((kernel.extents[kernel.scans[0]],)), 1)
    saved = choice.seconds / steps * (parts - 1)  # of each step: all parts but one run beside it
    if saved < MEET_SECONDS:
        return None
    notes = (*choice.notes, f"each step of {kernel.scans[0]} in {parts} parts along {axis}, then threads meet")
    seconds = choice.seconds * tile / part + steps * MEET_SECONDS
    body = build(kernel, Outline((TiledAxis(axis, tile),), choice.sequential, stepwise=True), nests)
    return packed_for(kernel, Schedule(body, tuple(dict.fromkeys(choice.packs)), seconds, notes))


def _nests(choice: Choice, around: tuple[str, ...] = ()) -> tuple[TiledNest, ...]:
    """The kernel's nests: those with products first, whose register tiles the others go by."""
    plans = plan_nests(choice.kernel, choice.sequential.axis if choice.sequential is not None else None, around)
    plans = with_groups(choice, plans)
    nests: dict[int, TiledNest] = {}
    for n in sorted(
        range(len(plans)), key=lambda n: not plans[n].groups and product_of(choice.kernel, plans[n]) is None
    ):
        made = _nest(choice, plans[n])
        if made.lanes is not None:
            targets = (choice.kernel.statements[i].target for i in made.positions)
            choice.lanes.update(dict.fromkeys(targets, made.lanes.axis))
            choice.lanes.update(dict.fromkeys(_columns_of(choice.kernel, plans[n]), made.lanes.axis))
        nests[n] = made
    return tuple(nests[n] for n in range(len(plans)))


def _nest(choice: Choice, plan: NestPlan) -> TiledNest:
    if plan.groups:
        return scaled_nest(choice, plan)
    product = product_of(choice.kernel, plan)
    if product is not None:
        return product_nest(choice, plan, product)
    if decoded(choice, plan) is not None:
        return panel_nest(choice, plan)
    source = copied(choice, plan)
    turned = copy_nest(choice, plan, source) if source is not None else None
    return plain_nest(choice, plan) if turned is None else turned


def _columns_of(kernel: Kernel, plan: NestPlan) -> list[str]:
    """The copies and panels that a nest's reductions read: they are laid out for its lanes."""
    copies = {s.target for s in kernel.statements if is_made_anew(kernel, s)}
    return [x.buffer for i in plan.reductions for x in kernel.statements[i].reads if x.buffer in copies]


def _parallel_order(choice: Choice, nests: Sequence[TiledNest]) -> list[str]:
    """Shared axes, outermost first: lanes of packed products before rows, so that a panel stays in the cache."""
    tiled = [n for n in nests if n.unrolled]
    lanes = [n.lanes.axis for n in tiled if n.lanes is not None and n.lanes.axis in choice.shared]
    rows = [a for n in tiled for a in n.unrolled if a in choice.shared]
    rest = [a for a in choice.shared if a not in lanes and a not in rows]
    order = [*dict.fromkeys((*rest, *lanes, *rows))]
    return sorted(order, key=lambda a: (a == choice.inner) - (a == choice.outer))
