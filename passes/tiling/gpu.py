"""Schedules of kernels on a GPU: launches, grids, and blocks instead of vectors.

`choose_gpu` cuts a kernel into launches (`stages`), decides for each which axes are held whole, and leaves every other
block size, the warps and the pipeline's depth to the integer solver under a model written out from the kernel
(`gpu_model`). Weights stay as they are: nothing is packed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from effcc.errors import ScheduleError, UnsupportedError
from effcc.gpu import GpuTarget
from effcc.ir.dependences import online_axis, shared_axes
from effcc.ir.dims import elements
from effcc.ir.kernel import Kernel
from effcc.ir.program import Buffer, Launch, Program, Step, fresh_name
from effcc.ir.schedule import Schedule
from effcc.passes.tiling.build import Outline, TiledAxis, TiledNest, build
from effcc.passes.tiling.gpu_model import FEMTO, BlockModel, block_product, power_of_two, scatters_in_turn
from effcc.passes.tiling.nests import NestPlan, plan_nests
from effcc.passes.tiling.solver import solve
from effcc.passes.tiling.stages import cut_stages, recompute, split, store_between_nests

ROW_ELEMENTS = (8192, 1024, 128, 16, 1)
"""A program holds whole rows up to so many elements, the first that fits the device; longer ones it reads in passes."""


def choose_gpu(kernel: Kernel, target: GpuTarget) -> tuple[tuple[Kernel, Schedule], ...]:
    """The launches that compute `kernel` one after the other, each with its schedule on `target`.

    What one launch leaves for the next is an output of the one and a parameter of the other, under the same name.
    Raises ScheduleError where nothing fits the device, UnsupportedError for ragged axes, and for nested or
    scattering recurrences.
    """
    if kernel.spans:
        over = ", ".join(kernel.spans)
        raise UnsupportedError(f"kernel @{kernel.name}: no block of a GPU covers the ragged axis {over}")
    if kernel.scans:
        return (_recurrence(kernel, target),)
    found = [launch for stage in cut_stages(kernel) for launch in _launches(stage, target)]
    if len(found) > 1:
        found = [(replace(part, name=f"{kernel.name}_{n}"), schedule) for n, (part, schedule) in enumerate(found)]
    return tuple(found)


def _recurrence(kernel: Kernel, target: GpuTarget) -> tuple[Kernel, Schedule]:
    """One launch whose programs each go through all steps, with a barrier wherever one reads what it stored."""
    if len(kernel.scans) > 1 or any(s.scatter is not None for s in kernel.statements):
        raise UnsupportedError(
            f"kernel @{kernel.name}: the Triton backend has no nested recurrences and none that scatter; "
            f"expected one axis to run in order, got {', '.join(kernel.scans)}; compile it for the CPU"
        )
    plans = plan_nests(kernel, kernel.scans[0])
    stored = store_between_nests(kernel, [(*p.body, *p.reductions, *p.epilogue) for p in plans])
    return stored, _schedule(stored, target, 0)


def _launches(stage: Kernel, target: GpuTarget) -> list[tuple[Kernel, Schedule]]:
    """The launches of one stage, holding the longest rows for which the device has room."""
    for longest in ROW_ELEMENTS:
        try:
            return [(part, _schedule(part, target, longest)) for part in _with_whole_rows(stage, longest)]
        except ScheduleError as e:
            error = e
    raise ScheduleError(f"kernel @{stage.name} on {target.name}: {error}")


def tile_gpu(program: Program, target: GpuTarget) -> tuple[Program, Mapping[str, Schedule]]:
    """The program with every kernel cut into launches, and the schedule of each kernel by its name."""
    kernels: dict[str, Kernel] = {}
    schedules: dict[str, Schedule] = {}
    parts: dict[str, list[str]] = {}
    for name, kernel in program.kernels.items():
        parts[name] = []
        for part, schedule in choose_gpu(kernel, target):
            label = fresh_name(part.name, {*program.kernels, *kernels} - {name})
            kernels[label], schedules[label] = replace(part, name=label), schedule
            parts[name].append(label)
    buffers = {b.name: b for b in program.buffers}

    def launches(step: Step, number: int) -> list[Step]:
        if not isinstance(step, Launch):
            return [step]
        kernel = program.kernels[step.kernel]
        named = dict(zip((p.name for p in kernel.signature), step.touched, strict=True))
        found: list[Step] = []
        for part in (kernels[name] for name in parts[step.kernel]):
            for p in part.outputs:
                if p.name not in named:
                    named[p.name] = fresh_name(f"{step.kernel}.{number}.{p.name}", buffers)
                    buffers[named[p.name]] = Buffer(named[p.name], p.type, "arena")
            arguments, results = (tuple(named[p.name] for p in group) for group in (part.params, part.outputs))
            found.append(Launch(part.name, arguments, results))
        return found

    prepare = tuple(x for n, s in enumerate(program.prepare) for x in launches(s, n))
    steps = tuple(x for n, s in enumerate(program.steps, len(program.prepare)) for x in launches(s, n))
    return replace(program, buffers=tuple(buffers.values()), kernels=kernels, steps=steps, prepare=prepare), schedules


def sequential_axis(kernel: Kernel) -> str | None:
    """The axis whose blocks a program goes through in order: of online reductions, or of a recurrence."""
    return kernel.scans[0] if kernel.scans else online_axis(kernel)


# Rows: axes that a program covers alone ------------------------------------------------------------------------------


def _with_whole_rows(kernel: Kernel, longest: int) -> list[Kernel]:
    """The kernel, cut and with pointwise parts recomputed, so that no intermediate runs over an axis that is looped."""
    looped = set(_looped(kernel, longest))
    kernel = recompute(kernel, looped)
    extents = kernel.extents
    for position, s in enumerate(kernel.statements):
        if s.reduction is None or not {a for a in s.axes if extents[a] != 1} & looped:
            continue
        for later, other in enumerate(kernel.statements[position + 1 :], position + 1):
            if any(load.buffer == s.target for load in other.reads) and not _same_nest(kernel, position, later):
                first, rest = split(kernel, later)
                return [*_with_whole_rows(first, longest), *_with_whole_rows(rest, longest)]
    return [kernel]


def _same_nest(kernel: Kernel, a: int, b: int) -> bool:
    return any({a, b} <= {*p.body, *p.reductions, *p.epilogue} for p in plan_nests(kernel, online_axis(kernel)))


def _looped(kernel: Kernel, longest: int) -> list[str]:
    """The axes that some program loops over in blocks, the online axis apart."""
    whole = set(_whole(kernel, longest))
    return [a for a in _private(kernel) if a not in whole]


def _private(kernel: Kernel) -> list[str]:
    """The axes that are neither spread over the grid nor followed online."""
    outside = {*shared_axes_of(kernel), sequential_axis(kernel)}
    return [a for a, extent in kernel.axes if extent != 1 and a not in outside]


def _whole(kernel: Kernel, longest: int) -> list[str]:
    """The private axes that a program holds in one block: all but a product's own, while a row of them stays small."""
    plans = plan_nests(kernel, online_axis(kernel))
    stored = {a for s in kernel.statements for a in s.axes}
    products = [p for p in plans if any(block_product(kernel.statements[i]) is not None for i in p.reductions)]
    only_product = {a for p in products for a in p.reduced if a not in stored}
    extents = kernel.extents
    candidates = [a for a in _private(kernel) if isinstance(extents[a], int) and not scatters_in_turn(kernel)]
    if online_axis(kernel) is None:
        candidates = [a for a in candidates if a not in only_product]
    found: list[str] = []
    elements_held = 1
    for axis in sorted(candidates, key=lambda a: (a not in stored, power_of_two(elements((extents[a],))))):
        elements_held *= power_of_two(elements((extents[axis],)))
        if elements_held <= longest:
            found.append(axis)
    return found


def shared_axes_of(kernel: Kernel) -> tuple[str, ...]:
    """The axes of the grid: those whose points do not meet, or meet atomically. (A scatter is alone in its kernel.)"""
    first = kernel.statements[0]
    if first.scatter is not None:
        return () if scatters_in_turn(kernel) else tuple(a for a in first.axes if kernel.extents[a] != 1)
    return shared_axes(kernel)


# Blocks --------------------------------------------------------------------------------------------------------------


def _schedule(kernel: Kernel, target: GpuTarget, longest: int) -> Schedule:
    sequential = sequential_axis(kernel)
    plans = plan_nests(kernel, sequential)
    shared = shared_axes_of(kernel)
    model = BlockModel(kernel, plans, shared, frozenset(_whole(kernel, longest)), target)
    best = solve(model.problem())[0]
    blocks, warps, stages = model.blocks(best.values), best.values["warps"], best.values["stages"]
    private = _private(kernel)
    nests = tuple(_nest(p, {a: blocks[a] for a in (*p.kept, *p.reduced) if a in private}) for p in plans)
    shown = ", ".join(f"{a} {b}" for a, b in blocks.items())
    note = f"{target.name}: blocks {shown or 'of one point'}; {warps} warps, {stages} stages"
    outline = Outline(
        tuple(TiledAxis(a, blocks[a]) for a in shared),
        None if sequential is None else TiledAxis(sequential, blocks.get(sequential, 1)),
        together="block",
        stages=stages,
    )
    return Schedule(build(kernel, outline, nests), (), best.cost / FEMTO, (note,), warps)


def _nest(plan: NestPlan, blocks: Mapping[str, int]) -> TiledNest:
    return TiledNest(plan, {a: ("block", b) for a, b in blocks.items()})
