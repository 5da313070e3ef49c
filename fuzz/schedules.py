"""Schedules that no model would choose, but that fit: what follows a schedule must follow any.

A schedule begins as the solver's, as the plainest there is, a nest for each statement, or as one whose products are of
packed neighbours. Then nodes are changed, taken out, moved, put into loops or cut along other axes, one after the
other, and what the verifier refuses is undone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from random import Random
from types import MappingProxyType

from effcc.errors import ScheduleError
from effcc.ir.contraction import Contraction, Operand, contraction
from effcc.ir.dependences import shared_axes
from effcc.ir.dots import TILE_SIDE
from effcc.ir.expr import Load
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.parser import parse_schedule
from effcc.ir.parser.schedules import WrittenSchedule
from effcc.ir.printer import print_schedule
from effcc.ir.program import Program
from effcc.ir.schedule import PARALLEL, SERIAL, Do, Hold, Loop, Node, Pack, Schedule
from effcc.ir.verifier import verify_schedule
from effcc.ir.verifier.schedules import Machine
from effcc.passes.balance import cut_long_spans
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.axes import in_tasks
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.pack import pack_along, packable
from effcc.passes.tiling.written import bounds
from effcc.target import Target

STEPS = (1, 1, 2, 3, 4, 5, 7, 8, 16, 32)
BLOCKS = (1, 2, 4, 8, 16, 32)
WAYS = ("", "lanes", "unroll")
NONE: Mapping[Statement, tuple[Node, ...]] = MappingProxyType({})
CHANGES = 10  # tried on a schedule; about half of them fit


def spread_scatters(program: Program, random: Random) -> Program:
    """The program with some scatters in tasks and spans in pieces, which those as small as here would not be."""
    if random.random() < 0.7:
        program = cut_long_spans(program, cores=2, shortest=random.choice((1, 2, 4)), least=0)
    kernels = {
        name: in_tasks(kernel, random.choice((2, 3, 4, 8)), lambda *_: random.random() < 0.7)
        for name, kernel in program.kernels.items()
    }
    return replace(program, kernels=kernels)


def draw_schedules(program: Program, target: Target, random: Random) -> dict[str, WrittenSchedule]:
    """Schedules for the kernels of a program before tiling, as somebody might have written them.

    Raises ScheduleError where the solver's own could not be followed.
    """
    machine = bounds(target)
    found = {}
    for name, kernel in program.kernels.items():
        drawn = draw_schedule(kernel, choose(kernel, target)[1], machine, random)
        found[name] = parse_schedule(print_schedule(name, drawn))
    return found


def draw_schedule(kernel: Kernel, chosen: Schedule, machine: Machine, random: Random) -> Schedule:
    """A schedule that fits the kernel and the machine; `chosen` is one."""
    schedule = Schedule(chosen.body, chosen.packs, warps=chosen.warps)
    verify_schedule(kernel, schedule, machine)
    plain = Schedule(_plain(kernel, random))
    if random.random() < 0.4 and _fits(kernel, plain, machine):
        schedule = plain
    packed = _packed(kernel, machine, random)
    if packed is not None and random.random() < 0.6 and _fits(kernel, packed, machine):
        schedule = packed
    for _ in range(random.randrange(CHANGES + 1)):
        resized = machine.blocks and random.random() < 0.5
        tried = _in_other_blocks(schedule, kernel, random) if resized else changed(schedule, kernel, random)
        if _fits(kernel, tried, machine):
            schedule = tried
    return schedule


def _fits(kernel: Kernel, schedule: Schedule, machine: Machine) -> bool:
    try:
        verify_schedule(kernel, schedule, machine)
    except ScheduleError:
        return False
    return True


# The plainest ---------------------------------------------------------------------------------------------------------


def _plain(kernel: Kernel, random: Random, made: Mapping[Statement, tuple[Node, ...]] = NONE) -> tuple[Node, ...]:
    """A nest for each statement, its axes in any order, one perhaps in the lanes; some axes cut for threads.

    made: nests that some statements have already.
    """
    outputs = {p.name for p in kernel.outputs}
    kept = tuple(dict.fromkeys(s.target for s in kernel.statements if s.target not in outputs))
    body = tuple(node for s in kernel.statements for node in (made.get(s) or _nest(s, kernel, random)))
    if kept:
        body = (Hold(kept, "local", body),)
    for axis in shared_axes(kernel):
        if random.random() < 0.5:
            body = (Loop(PARALLEL, axis, random.choice(STEPS[2:]), body),)
    return body


def _nest(s: Statement, kernel: Kernel, random: Random) -> tuple[Node, ...]:
    reduced = s.reduction.axes if s.reduction is not None and s.scatter is None else ()
    together = {a: (random.choice(WAYS), random.choice(STEPS[2:8])) for a in kernel.extents if random.random() < 0.4}
    own = Random(f"{kernel.name} {s.target} {random.getstate()[1][-1]}")  # so that the other draws stay what they were
    if reduced and own.random() < 0.4:  # what is folded in lanes has a tail of its own
        together[own.choice(reduced)] = "lanes", own.choice(STEPS[2:])
    vectors = [a for a, (how, _) in together.items() if how == "lanes" and a in (*s.axes, *reduced)]
    body: tuple[Node, ...] = (Do(s.target),)
    for axes, held in ((reduced, bool(reduced)), (tuple(a for a in s.axes if a not in reduced), False)):
        for axis in random.sample(axes, len(axes)):
            how, step = together.get(axis, ("", 1))
            if how == "" or (how == "lanes" and axis != vectors[0]):
                how, step = "", 1
            body = (Loop(SERIAL, axis, step, body, how),)
        if held:
            body = (Hold((s.target,), "registers", body),)
    return body


# Packed neighbours ----------------------------------------------------------------------------------------------------


def _packed(kernel: Kernel, machine: Machine, random: Random) -> Schedule | None:
    """A schedule that packs a factor of the first product for which there are dots of packed neighbours.

    Sums are in registers, or in those for tiles where the machine has some; None where there is no such product.
    """
    for s in kernel.statements:
        product = contraction(s, kernel.weights)
        if product is None or product.dot is None or machine.blocks:
            continue
        left, right = product.left, product.right
        sides = [(right, left, product.columns, product.rows), (left, right, product.rows, product.columns)]
        known = {p.name for p in kernel.params} & kernel.weights
        for factor, other, axes, others in sides:
            lanes = random.choice(axes) if axes else ""
            depths = [a for a in product.depth if _lies_along(kernel, other.data, a)]
            if lanes and depths and factor.data.buffer in known and packable(kernel, factor.data, lanes):
                tiled = bool(machine.tile_registers and others) and product.dot.fits_tiles(factor.data.dtype)
                return _of_neighbours(
                    kernel, s, product, factor, (lanes, random.choice(depths)), others,
                    tiled and random.random() < 0.6, random,
                )  # fmt: skip
    return None


def _lies_along(kernel: Kernel, load: Load, axis: str) -> bool:
    """Whether neighbours along an axis are neighbours in memory, as what is not packed must have it."""
    layout = layouts(kernel).get(load.buffer)
    return layout is None or stride(load, axis, layout) == 1


def _of_neighbours(
    kernel: Kernel,
    s: Statement,
    product: Contraction,
    factor: Operand,
    axes: tuple[str, str],
    others: tuple[str, ...],
    tiled: bool,
    random: Random,
) -> Schedule:
    """The nest of a product in several levels of tiles, its innermost ones packed, and the plainest for the rest.

    axes: the one in the lanes, and the one of which neighbours are packed.
    """
    assert product.dot is not None
    lanes, depth = axes
    along = random.choice((*others, "")) if not tiled else others[-1]
    neighbours = product.dot.neighbours * (random.choice((1, 2, 4, 16 // product.dot.neighbours)) if tiled else 1)
    width, height = (TILE_SIDE * random.choice((1, 2)) if tiled else random.choice(n) for n in (STEPS[5:], STEPS[:6]))
    body: tuple[Node, ...] = (Loop(SERIAL, depth, neighbours, (Do(s.target),), "packed"),)
    if random.random() < 0.4:
        body = (Loop(SERIAL, depth, neighbours * random.choice((1, 2, 3)), body),)
    for axis in product.depth:
        body = body if axis == depth else (Loop(SERIAL, axis, 1, body),)
    body = (Hold((s.target,), "tiles" if tiled else "registers", body),)
    body = (Loop(SERIAL, along, height, body, "unroll"),) if along else body
    body = (Loop(SERIAL, lanes, width, body, "lanes"),)
    for axis, step in ((along, height), (lanes, width)):
        body = (Loop(SERIAL, axis, step * random.choice((1, 2, 3)), body),) if axis and random.random() < 0.4 else body
    for axis in s.axes:
        body = body if axis in (lanes, along) else (Loop(SERIAL, axis, 1, body),)
    order = [a for a in kernel.extents if a != depth]
    random.shuffle(order)
    wanted = pack_along(factor.data, lanes, width, (*order, depth), product.dot.neighbours)
    return Schedule(_plain(kernel, random, {s: body}), (wanted,))


# Changes --------------------------------------------------------------------------------------------------------------


def changed(schedule: Schedule, kernel: Kernel, random: Random) -> Schedule:
    """The schedule with one of its packs or nodes changed, whether it then fits or not."""
    if not kernel.axes:
        return schedule
    if schedule.packs and random.random() < 0.2:
        packs = list(schedule.packs)
        at = random.randrange(len(packs))
        packs[at : at + 1] = [] if random.random() < 0.4 else [_repacked(packs[at], random)]
        return replace(schedule, packs=tuple(packs))
    return replace(schedule, body=_changed(schedule.body, random.choice(list(_paths(schedule.body))), random, kernel))


def _in_other_blocks(schedule: Schedule, kernel: Kernel, random: Random) -> Schedule:
    """A GPU's schedule with the blocks of one axis of another size wherever it is cut."""
    axis, size = random.choice(list(kernel.extents)), random.choice(BLOCKS)

    def resized(body: tuple[Node, ...]) -> tuple[Node, ...]:
        return tuple(one(node) for node in body)

    def one(node: Node) -> Node:
        if isinstance(node, Do):
            return node
        node = replace(node, body=resized(node.body))
        if isinstance(node, Hold) or node.axis != axis:
            return node
        return replace(node, step=size, together="block" if size > 1 else "")

    return replace(schedule, body=resized(schedule.body))


def _repacked(pack: Pack, random: Random) -> Pack:
    if random.random() < 0.5:
        return replace(pack, order=tuple(random.sample(pack.order, len(pack.order))))
    return replace(pack, width=random.choice(STEPS))


def _paths(body: tuple[Node, ...], path: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    for n, node in enumerate(body):
        yield (*path, n)
        if not isinstance(node, Do):
            yield from _paths(node.body, (*path, n))


def _changed(body: tuple[Node, ...], path: tuple[int, ...], random: Random, kernel: Kernel) -> tuple[Node, ...]:
    first, *rest = path
    node = body[first]
    if rest:
        assert not isinstance(node, Do)
        inside = _changed(node.body, tuple(rest), random, kernel)
        return (*body[:first], replace(node, body=inside), *body[first + 1 :])
    axes = [a for a, _ in kernel.axes]
    new: tuple[Node, ...] = (node,)
    match random.randrange(6), node:
        case 0, Loop():
            new = (replace(node, step=random.choice(STEPS)),)
        case 1, Loop():
            new = (replace(node, together=random.choice(WAYS)),)
        case 2, Loop(body=(Loop() as inner,)):
            new = (replace(inner, body=(replace(node, body=inner.body),)),)
        case 3, Hold():
            new = (replace(node, space=random.choice(["local", "registers"])),)
        case 3, Loop() | Do():
            new = (Loop(SERIAL, random.choice(axes), random.choice(STEPS), (node,), random.choice(WAYS)),)
        case 4, Loop() | Hold():
            new = node.body
        case 5, Loop():  # cut in two levels, which may run at once, or no longer
            kind = random.choice((PARALLEL, SERIAL))
            outer = random.random() < 0.5
            new = (Loop(kind, node.axis, random.choice(STEPS), (node,)) if outer else replace(node, kind=kind),)
        case _:
            others = [*body[:first], *body[first + 1 :]]
            others.insert(random.randrange(len(others) + 1), node)
            return tuple(others)
    return (*body[:first], *new, *body[first + 1 :])
