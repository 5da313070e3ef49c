"""Schedules that somebody wrote, or printed earlier: followed instead of choosing, once they are found to fit."""

from __future__ import annotations

from collections.abc import Mapping

from effcc.errors import InputError, ScheduleError, UnknownNameError, noting
from effcc.gpu import GpuTarget
from effcc.ir.kernel import Kernel
from effcc.ir.parser.schedules import WrittenSchedule
from effcc.ir.program import Program
from effcc.ir.schedule import Schedule
from effcc.ir.verifier.schedules import Machine
from effcc.passes.tiling.pack import packable
from effcc.target import Target


def bounds(target: Target) -> Machine:
    """What a schedule has to fit on a CPU. What is held in the cache may spill to a core's share of L3."""
    cache = target.l2_bytes + target.l3_bytes // target.cores
    return Machine(
        target.name, target.vector_bytes, target.vector_registers, cache, tile_registers=target.tile_registers
    )


def device_bounds(device: GpuTarget) -> Machine:
    """What a schedule has to fit on a GPU."""
    return Machine(device.name, 4 * device.warp, device.thread_registers, device.shared_bytes, True, device.max_warps)


def check(one: WrittenSchedule, kernel: Kernel, machine: Machine) -> Schedule:
    """The schedule, if it fits the kernel and the machine, and packs what can be packed; else ScheduleError."""
    for number, pack in enumerate(one.check(kernel, machine).packs):
        load = next((x for s in kernel.statements for x in s.reads if x.buffer == pack.buffer), None)
        constant = pack.buffer in kernel.weights and load is not None and packable(kernel, load, pack.axis)
        if not constant or sum(p.buffer == pack.buffer for p in one.schedule.packs) > 1:
            with one.source.at(one.places[-1 - number,]):
                raise ScheduleError(
                    f"{pack.buffer} cannot be packed: expected a weight, read at one index that depends on no data, "
                    "packed once"
                )
    return one.schedule


def follow(program: Program, written: Mapping[str, WrittenSchedule], machine: Machine) -> dict[str, Schedule]:
    """The schedules of a program's kernels, which read packed operands already, each as it is written.

    Raises InputError for a kernel without one, ScheduleError for one that does not fit.
    """
    require_kernels(written, program)
    found = {}
    for name, kernel in program.kernels.items():
        if name not in written:
            raise InputError(
                f"kernel @{name} has no schedule: what the step 'tile' prints has one for each kernel; "
                "or take up the program alone with --from arrange"
            )
        with noting(location=kernel.location, kernel=kernel):
            found[name] = written[name].check(kernel, machine)
    return found


def require_kernels(written: Mapping[str, WrittenSchedule], program: Program) -> None:
    """Raise UnknownNameError, at its line, for a schedule of no kernel."""
    for name, one in written.items():
        if name not in program.kernels:
            with one.source.at(one.places[()]):
                raise UnknownNameError("kernel", f"@{name}", (f"@{known}" for known in program.kernels))
