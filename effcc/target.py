"""What a machine is, as far as the compiler cares: vectors, registers, caches, cores, peak and bandwidths.

A `Target` is a value. `detect()` describes the machine this process runs on, `generic(isa)` a documented machine that
is the same everywhere (for tests and for compiling ahead of time for somebody else), `parse(name)` what a user writes.
Peak and bandwidths are defaults derived from the instruction set until `effcc.runtime.measure` has measured them.
Nothing here imports torch or runs code of the machine's compiler.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict

from effcc.errors import UnknownNameError

Isa = Literal["avx512", "avx2", "scalar"]

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# What a CPU must report (spelled as in /proc/cpuinfo) before an instruction set may be used.
REQUIRED_FEATURES: dict[Isa, tuple[str, ...]] = {
    "avx512": ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    "avx2": ("avx2", "fma", "f16c"),
    "scalar": (),
}
AMX_FEATURES = ("amx_tile", "amx_bf16", "amx_int8")
"""A matrix unit, which a process has to ask Linux for."""
# What generated code uses where it is present.
OPTIONAL_FEATURES: dict[Isa, tuple[str, ...]] = {
    "avx512": (
        "avx_vnni",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "avx512vbmi",
        "avx512_vpopcntdq",
        *AMX_FEATURES,
    ),
    "avx2": ("avx_vnni",),
    "scalar": (),
}
VECTOR_BYTES: dict[Isa, int] = {"avx512": 64, "avx2": 32, "scalar": 4}
VECTOR_REGISTERS: dict[Isa, int] = {"avx512": 32, "avx2": 16, "scalar": 16}

GENERIC: dict[str, tuple[Isa, tuple[str, ...]]] = {
    "avx512": ("avx512", ()),
    "avx512_bf16": ("avx512", ("avx512_bf16",)),
    "avx512_vnni": ("avx512", ("avx512_vnni",)),
    "amx": ("avx512", ("avx512_vnni", "avx512_bf16", *AMX_FEATURES)),
    "avx2": ("avx2", ()),
    "avx2_vnni": ("avx2", ("avx_vnni",)),
    "scalar": ("scalar", ()),
}
"""The machines that are the same wherever they are asked for, by the name that users write: what they can do beyond
their instruction set."""

PAGE_BYTES = 4096
"""Addresses that differ by a multiple of this share a set of the L1 cache (64 sets of 64 bytes)."""
_NOMINAL_HZ = 2.5e9  # not the clock of the moment, which would make schedules differ from run to run
_FMA_UNITS = 2
_FMA_CYCLES = 5
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA = 158, 0x1023, 18
_L2_BANDWIDTH_PER_CORE, _L3_BANDWIDTH_PER_CORE, _MEMORY_BANDWIDTH_PER_CORE = 100e9, 40e9, 15e9
_MEMORY_BANDWIDTH_LIMIT = 60e9


class Rates(TypedDict):
    """How fast a machine is: FLOP/s, vector instructions/s and bytes/s over all cores together."""

    peak_flops: float
    instructions: float
    chained: float
    l2_bandwidth: float
    l3_bandwidth: float
    memory_bandwidth: float


@dataclass(frozen=True)
class Target:
    """A machine: sizes in bytes, rates in FLOP/s (a fused multiply-add counts two) and bytes/s over all cores together.

    `instructions` are those in vectors that codes take to become numbers and be multiplied: shifts, masks, conversions
    and multiply-adds by turns, of which there are more in a second than of multiply-adds alone on some machines.
    `chained` are multiply-adds of which each waits for the one before.

    `l1_bytes` (data) and `l2_bytes` are of one core, `l3_bytes` is shared by all. `features` are named as in
    /proc/cpuinfo and hold only those that generated code may rely on. `measured` tells whether the rates were measured
    on the machine or are the defaults that `default_rates` documents.

    >>> Target.parse("avx2").vector_lanes
    8
    """

    name: str
    isa: Isa
    vector_bytes: int
    vector_registers: int
    features: tuple[str, ...]
    cores: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    peak_flops: float
    instructions: float
    chained: float
    l2_bandwidth: float
    l3_bandwidth: float
    memory_bandwidth: float
    measured: bool = False

    @property
    def vector_lanes(self) -> int:
        """How many float32 one vector register holds."""
        return self.vector_bytes // 4

    @property
    def tile_registers(self) -> int:
        """The registers of its matrix unit, 0 where it has none."""
        return 8 if set(AMX_FEATURES) <= set(self.features) else 0

    @property
    def sums_bf16(self) -> bool:
        """Whether it has dot products of packed bf16."""
        return "avx512_bf16" in self.features

    @property
    def sums_bytes(self) -> bool:
        """Whether it has dot products of unsigned with signed bytes (vpdpbusd) in its widest vectors."""
        return ("avx512_vnni" if self.isa == "avx512" else "avx_vnni") in self.features

    @staticmethod
    def detect() -> Target:
        """The machine this process runs on, as `detect()`."""
        return detect()

    @staticmethod
    def parse(name: str) -> Target:
        """The target a user names, as `parse(name)`."""
        return parse(name)

    def one_core(self) -> Target:
        """One core of this machine while the others work too: its share of the rates."""
        rates = {f: getattr(self, f) / self.cores for f in Rates.__annotations__}
        return replace(self, cores=1, **rates)

    def with_isa(self, isa: Isa) -> Target:
        """This machine, restricted (or, for code that is only printed, extended) to one instruction set."""
        if isa == self.isa:
            return self
        allowed = REQUIRED_FEATURES[isa] + OPTIONAL_FEATURES[isa]
        features = REQUIRED_FEATURES[isa] + tuple(f for f in self.features if f in allowed)
        planned = default_rates(isa, self.cores)
        return replace(
            self,
            name=isa,
            isa=isa,
            vector_bytes=VECTOR_BYTES[isa],
            vector_registers=VECTOR_REGISTERS[isa],
            features=tuple(dict.fromkeys(features)),
            peak_flops=planned["peak_flops"],
            instructions=planned["instructions"],
            chained=planned["chained"],
            measured=False,
        )

    def runs_here(self) -> bool:
        """Whether this process's CPU has every feature that code for this target may use."""
        return set(self.features) <= cpu_features()


def default_rates(isa: Isa, cores: int) -> Rates:
    """Rates to plan with until a machine is measured.

    The peak is `cores * 2.5 GHz * 2 FMA units * lanes * 2`, instructions are two a cycle, and a chained
    multiply-add takes 5; bandwidths are 100, 40 and 15 GB/s a core for L2, L3 and memory, memory's no more than 60 GB/s
    together: the middle of what servers of the last ten years give.
    """
    lanes = VECTOR_BYTES[isa] // 4
    return {
        "peak_flops": cores * _NOMINAL_HZ * _FMA_UNITS * lanes * 2,
        "instructions": cores * _NOMINAL_HZ * _FMA_UNITS,
        "chained": cores * _NOMINAL_HZ / _FMA_CYCLES,
        "l2_bandwidth": cores * _L2_BANDWIDTH_PER_CORE,
        "l3_bandwidth": cores * _L3_BANDWIDTH_PER_CORE,
        "memory_bandwidth": min(cores * _MEMORY_BANDWIDTH_PER_CORE, _MEMORY_BANDWIDTH_LIMIT),
    }


def generic(name: str) -> Target:
    """A machine of `GENERIC`, the same wherever it is asked for: 4 cores, 32 KiB L1, 1 MiB L2 a core, 16 MiB L3."""
    isa, more = GENERIC[name]
    return _describe(name, isa, (*REQUIRED_FEATURES[isa], *more), cores=4, caches=(32 * KIB, MIB, 16 * MIB))


def detect() -> Target:
    """The machine this process runs on, read from /proc/cpuinfo and sysfs; rates are `default_rates`.

    Cores are the physical ones that this process may run on. Where the system tells nothing (no Linux), the instruction
    set is `scalar` and the caches are those of `generic`.
    """
    found = cpu_features()
    isa: Isa = next(isa for isa in ("avx512", "avx2", "scalar") if set(REQUIRED_FEATURES[isa]) <= found)
    features = REQUIRED_FEATURES[isa] + tuple(f for f in OPTIONAL_FEATURES[isa] if f in found)
    return _describe("host", isa, features, cores=physical_cores(), caches=_cache_sizes())


def parse(name: str) -> Target:
    """The target that a user names: `host` (or `native`), or one of the generic machines.

    Raises UnknownNameError with the near misses for any other name.
    """
    wanted = name.strip().lower()
    if wanted in ("host", "native"):
        return detect()
    if wanted in GENERIC:
        return generic(wanted)
    raise UnknownNameError("target", name, ["host", "native", *GENERIC])


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The feature flags of the first CPU, as Linux names them, that this process may use; empty where there is no such
    file.
    """
    found = _cpu_flags(cpuinfo)
    return found if not found.intersection(AMX_FEATURES) or _may_use_tiles() else found.difference(AMX_FEATURES)


@functools.cache
def _may_use_tiles() -> bool:
    """Ask Linux for the registers of the matrix unit, for all threads of this process: it may refuse."""
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return False
    return bool(ctypes.CDLL(None, use_errno=True).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA) == 0)


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    try:
        text = cpuinfo.read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the CPU calls itself, or the architecture where it does not say."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def physical_cores(devices: Path = Path("/sys/devices/system/cpu")) -> int:
    """Physical cores this process may run on: hyper-threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    siblings = {_read(devices / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu) for cpu in allowed}
    return max(1, len(siblings))


def _cache_sizes(caches: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> tuple[int, int, int]:
    """Bytes of the L1 data, L2 and L3 cache that the first CPU uses; a missing L3 counts as the L2."""
    found: dict[int, int] = {}
    for index in sorted(caches.glob("index*")):
        level, kind, size = (_read(index / part) for part in ("level", "type", "size"))
        if kind in ("Data", "Unified") and level.isdigit() and size:
            found[int(level)] = _parse_cache_size(size)
    l1, l2 = found.get(1, 32 * KIB), found.get(2, MIB)
    return l1, l2, found.get(3, l2 if found else 16 * MIB)


def _parse_cache_size(text: str) -> int:
    scale = {"K": KIB, "M": MIB, "G": GIB}.get(text[-1], 1)
    return int(text.rstrip("KMG")) * scale


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _describe(name: str, isa: Isa, features: tuple[str, ...], cores: int, caches: tuple[int, int, int]) -> Target:
    l1, l2, l3 = caches
    return Target(
        name=name,
        isa=isa,
        vector_bytes=VECTOR_BYTES[isa],
        vector_registers=VECTOR_REGISTERS[isa],
        features=features,
        cores=cores,
        l1_bytes=l1,
        l2_bytes=l2,
        l3_bytes=l3,
        **default_rates(isa, cores),
    )
