"""What a GPU is, as far as the compiler cares: multiprocessors, registers, shared memory, peak and bandwidth.

The numbers are those of the vendors' public data sheets and programming guides. Nothing here needs a GPU, a driver or
Triton: code for any of these machines can be chosen, printed and compiled anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from effcc.errors import UnknownNameError
from effcc.target import GENERIC, KIB, MIB, Target, generic
from effcc.target import parse as parse_cpu


@dataclass(frozen=True)
class GpuTarget:
    """A GPU. `f32_flops` is the peak of float32 on the vector units (exact products), `half_flops` that of f16 and bf16
    on the matrix units, dense, both over the whole device in FLOP/s; `memory_bandwidth` in bytes/s.

    `shared_bytes` is what one program (thread block) may use, `registers` the 32-bit registers of a multiprocessor and
    `thread_registers` the most that one thread may hold; `l2_bytes` is the cache that all multiprocessors share.

    >>> parse("sm_90").multiprocessors
    132
    """

    name: str
    device: str
    backend: str
    arch: int | str
    warp: int
    multiprocessors: int
    shared_bytes: int
    registers: int
    thread_registers: int
    max_warps: int
    f32_flops: float
    half_flops: float
    memory_bandwidth: float
    l2_bytes: int

    def as_target(self) -> Target:
        """What fusion asks of a machine: processors to keep busy, and a cache in which shared operands stay.

        The processors are few: a launch costs more than multiprocessors that idle through a small kernel.
        """
        return replace(
            generic("scalar"), name=self.name, cores=max(1, self.multiprocessors // 32), l2_bytes=self.l2_bytes,
            l3_bytes=self.l2_bytes, peak_flops=self.f32_flops, memory_bandwidth=self.memory_bandwidth,
        )  # fmt: skip


TARGETS: dict[str, GpuTarget] = {
    t.name: t
    for t in [
        GpuTarget(
            "sm_80", "A100 SXM 80 GB", backend="cuda", arch=80, warp=32, multiprocessors=108,
            shared_bytes=163 * KIB, registers=65536, thread_registers=255, max_warps=32,
            f32_flops=19.5e12, half_flops=312e12, memory_bandwidth=2.039e12, l2_bytes=40 * MIB,
        ),
        GpuTarget(
            "sm_90", "H100 SXM", backend="cuda", arch=90, warp=32, multiprocessors=132,
            shared_bytes=227 * KIB, registers=65536, thread_registers=255, max_warps=32,
            f32_flops=66.9e12, half_flops=989e12, memory_bandwidth=3.35e12, l2_bytes=50 * MIB,
        ),
        GpuTarget(
            "sm_100", "B200", backend="cuda", arch=100, warp=32, multiprocessors=148,
            shared_bytes=227 * KIB, registers=65536, thread_registers=255, max_warps=32,
            f32_flops=75e12, half_flops=2250e12, memory_bandwidth=7.7e12, l2_bytes=126 * MIB,
        ),
        GpuTarget(
            "gfx942", "MI300X", backend="hip", arch="gfx942", warp=64, multiprocessors=304,
            shared_bytes=64 * KIB, registers=131072, thread_registers=512, max_warps=16,
            f32_flops=163.4e12, half_flops=1307e12, memory_bandwidth=5.3e12, l2_bytes=256 * MIB,
        ),
    ]
}  # fmt: skip


def parse(name: str) -> GpuTarget:
    """The GPU that a user names: `sm_80`, `sm_90`, `sm_100` or `gfx942`; raises UnknownNameError with near misses."""
    try:
        return TARGETS[name.strip().lower()]
    except KeyError:
        raise UnknownNameError("GPU target", name, TARGETS) from None


def machine(name: str) -> Target:
    """The machine that a user names: a GPU as its `as_target`, or a CPU as `effcc.target.parse` reads it.

    Raises UnknownNameError with the near misses.
    """
    wanted = name.strip().lower()
    if wanted in TARGETS:
        return TARGETS[wanted].as_target()
    try:
        return parse_cpu(name)
    except UnknownNameError:
        raise UnknownNameError("target", name, ["host", "native", *GENERIC, *TARGETS]) from None


def device_of(target: Target) -> GpuTarget | None:
    """The GPU that a machine stands for; None for a CPU."""
    return TARGETS.get(target.name)
