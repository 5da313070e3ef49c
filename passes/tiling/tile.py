"""Tiling a program: a schedule for every kernel, and the packed operands that the schedules ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType

from effcc.errors import noting
from effcc.ir.dims import symbols
from effcc.ir.kernel import Kernel
from effcc.ir.parser.schedules import WrittenSchedule
from effcc.ir.program import Buffer, Launch, Program, Step, changed, fresh_name
from effcc.ir.schedule import Pack, Schedule
from effcc.passes.tiling.choose import choose, packed_for
from effcc.passes.tiling.merge import merge_axes
from effcc.passes.tiling.pack import pack
from effcc.passes.tiling.written import bounds, check, require_kernels
from effcc.target import Target

CONSTANT = ("weight", "prepared")
"""Where buffers lie that are packed once; others are packed at every call, just before they are read."""


@dataclass(frozen=True)
class Tiled:
    """A program whose kernels read packed operands, and each kernel's schedule by name."""

    program: Program
    schedules: Mapping[str, Schedule]


def tile(
    program: Program,
    target: Target,
    written: Mapping[str, WrittenSchedule] = MappingProxyType({}),
    prepare_once: bool = False,
) -> Tiled:
    """Choose a schedule for every kernel of settled axes; packing goes to the `prepare` steps, once for each form.

    written: schedules that are followed instead. prepare_once: whether the `prepare` steps run once for many calls, so
    that their code should be short. Raises ScheduleError for one that does not fit, UnknownNameError for
    one of no kernel.
    """
    machine = bounds(target)

    often = {s.kernel for s in program.launches}

    def scheduled(kernel: Kernel, at_call: bool = False) -> tuple[Kernel, Schedule]:
        one = written.get(kernel.name)
        if one is not None:
            return packed_for(kernel, check(one, kernel, machine))
        return choose(kernel, target, once=prepare_once and not at_call and kernel.name not in often)

    kernels: dict[str, Kernel] = {}
    schedules: dict[str, Schedule] = {}
    for name, kernel in program.kernels.items():
        with noting(location=kernel.location, kernel=kernel):
            kernels[name], schedules[name] = scheduled(kernel)
    buffers = {b.name: b for b in program.buffers}
    prepare: list[Step] = list(program.prepare)
    packed: dict[tuple[str, Kernel], str] = {}
    packers: dict[tuple[Kernel, bool], str] = {}

    @cache
    def packer_of(kernel: str, wanted: Pack) -> Kernel:
        return pack(program.kernels[kernel], wanted)[1]

    def pack_for(launch: Launch) -> list[Launch]:
        """The launch, reading what is packed; before it, those that pack what may differ at every call."""
        arguments = list(launch.arguments)
        before: list[Launch] = []
        for wanted in schedules[launch.kernel].packs:
            position = [p.name for p in program.kernels[launch.kernel].params].index(wanted.buffer)
            source = launch.arguments[position]
            packer = packer_of(launch.kernel, wanted)
            key = (source, packer)
            once = program.by_name[program.memory_of(source)].space in CONSTANT
            at_call = not once or bool(symbols(packer.outputs[0].type.shape))
            if key not in packed or at_call:
                if (packer, at_call) not in packers:
                    label = fresh_name("pack", {**program.kernels, **kernels})
                    packers[packer, at_call] = label
                    merged = merge_axes(replace(packer, name=label, weights=frozenset()))
                    kernels[label], schedules[label] = scheduled(merged, at_call)
                name = fresh_name(f"{source}.packed", buffers)
                buffers[name] = Buffer(name, packer.outputs[0].type, "arena" if at_call else "prepared")
                (before if at_call else prepare).append(Launch(packers[packer, at_call], (source,), (name,)))
                packed[key] = name
            arguments[position] = packed[key]
        return [*before, replace(launch, arguments=tuple(arguments))]

    steps = changed(program.steps, lambda s: pack_for(s) if isinstance(s, Launch) else [s])
    done = replace(program, buffers=tuple(buffers.values()), kernels=kernels, steps=steps, prepare=tuple(prepare))
    require_kernels(written, done)
    return Tiled(done, schedules)
