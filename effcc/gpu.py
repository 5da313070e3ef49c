"""What a GPU is, as far as the compiler cares: multiprocessors, registers, shared memory, peak and bandwidth.

The numbers are those of the vendors' public data sheets and programming guides. Nothing here needs a GPU, a driver or
Triton: code for any of these machines can be chosen, printed and compiled anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from effcc.errors import UnknownNameError

KIB = 1 << 10


@dataclass(frozen=True)
class GpuTarget:
    """A GPU. `f32_flops` is the peak of float32 on the vector units (exact products), `half_flops` that of f16 and bf16
    on the matrix units, dense, both over the whole device in FLOP/s; `memory_bandwidth` in bytes/s.

    `shared_bytes` is what one program (thread block) may use, `registers` the 32-bit registers of a multiprocessor and
    `thread_registers` the most that one thread may hold.

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


TARGETS: dict[str, GpuTarget] = {
    t.name: t
    for t in [
        GpuTarget("sm_80", "A100 SXM 80 GB", "cuda", 80, 32, 108, 163 * KIB, 65536, 255, 32, 19.5e12, 312e12, 2.039e12),
        GpuTarget("sm_90", "H100 SXM", "cuda", 90, 32, 132, 227 * KIB, 65536, 255, 32, 66.9e12, 989e12, 3.35e12),
        GpuTarget("sm_100", "B200", "cuda", 100, 32, 148, 227 * KIB, 65536, 255, 32, 75e12, 2250e12, 7.7e12),
        GpuTarget("gfx942", "MI300X", "hip", "gfx942", 64, 304, 64 * KIB, 131072, 512, 16, 163.4e12, 1307e12, 5.3e12),
    ]
}


def parse(name: str) -> GpuTarget:
    """The GPU that a user names: `sm_80`, `sm_90`, `sm_100` or `gfx942`; raises UnknownNameError with near misses."""
    try:
        return TARGETS[name.strip().lower()]
    except KeyError:
        raise UnknownNameError("GPU target", name, TARGETS) from None
