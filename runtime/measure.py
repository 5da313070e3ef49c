"""The rates that this machine really reaches, measured once and remembered in the cache folder.

Tiling ranks schedules by a roofline, and a roofline is only as good as the machine's own figures: the fused
multiply-adds a second that registers allow, the instructions where others stand beside them, multiply-adds that
wait for one another, and the bytes a second that stream from L2, L3 and memory, all cores busy.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
from dataclasses import replace
from pathlib import Path

from effcc.errors import ToolchainError
from effcc.runtime.cache import CompileCache
from effcc.runtime.files import aside
from effcc.target import GIB, MIB, Rates, Target, cpu_model, detect

_FORMAT = 4
_PROBE = Path(__file__).absolute().parent / "probe.cpp"


def host_target(*, measure: bool = False, cache: CompileCache | None = None) -> Target:
    """This machine with the rates measured earlier, if they were; with `measure`, they are measured if they were not.

    Raises ToolchainError if measuring is asked for and there is no compiler.
    """
    return measured(detect(), cache) if measure else recalled(detect(), cache)


def recalled(target: Target, cache: CompileCache | None = None) -> Target:
    """`target` with the rates that were measured earlier on this machine, or unchanged if there are none."""
    try:
        rates = json.loads(_record(target, cache or CompileCache.default()).read_text())["rates"]
        return _with_rates(target, {name: float(rates[name]) for name in Rates.__annotations__})
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: measured again when asked for
        return target


def measured(target: Target, cache: CompileCache | None = None, *, again: bool = False) -> Target:
    """`target`, which must be able to run here, with rates measured on this machine: now (about a second), or recalled.

    Raises ToolchainError if there is no compiler or the probe fails.
    """
    cache = cache or CompileCache.default()
    known = recalled(target, cache)
    if known.measured and not again:
        return known
    rates = _probe(target, cache)
    record = _record(target, cache)
    record.parent.mkdir(mode=0o700, exist_ok=True)
    with aside(record) as staged:
        staged.write_text(json.dumps({"machine": _identity(target), "rates": rates}, indent=1))
        os.replace(staged, record)
    return _with_rates(target, rates)


def _probe(target: Target, cache: CompileCache) -> dict[str, float]:
    library = cache.load(_PROBE.read_text(), target, contract=True)
    probe = library.function(
        "effcc_probe", (ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_double)), ctypes.c_int
    )
    rates = (ctypes.c_double * len(Rates.__annotations__))()
    if probe(target.cores, (ctypes.c_int64 * 3)(*_working_sets(target)), rates) != 0:
        raise ToolchainError("the machine could not be measured: the probe got too little memory or too few threads")
    return dict(zip(Rates.__annotations__, map(float, rates), strict=True))


def _working_sets(target: Target) -> tuple[int, int, int]:
    """Bytes a thread reads: half its L2; of L3 what is well past L2; and for memory twice the L3, within 1 GiB."""
    in_l2 = target.l2_bytes // 2
    in_l3 = max(2 * target.l2_bytes, min(target.l3_bytes // 2, 64 * MIB) // target.cores)
    in_memory = max(min(2 * target.l3_bytes, GIB), 256 * MIB) // target.cores
    return in_l2, in_l3, max(in_memory, 2 * in_l3)


def _with_rates(target: Target, rates: dict[str, float]) -> Target:
    if not all(math.isfinite(rate) and rate > 0 for rate in rates.values()):
        raise ValueError(f"rates must be positive numbers, got {rates}")
    return replace(
        target,
        peak_flops=rates["peak_flops"],
        instructions=rates["instructions"],
        chained=rates["chained"],
        l2_bandwidth=rates["l2_bandwidth"],
        l3_bandwidth=rates["l3_bandwidth"],
        memory_bandwidth=rates["memory_bandwidth"],
        measured=True,
    )


def _identity(target: Target) -> dict[str, object]:
    caches = [target.l1_bytes, target.l2_bytes, target.l3_bytes]
    return {
        "format": _FORMAT,
        "cpu": cpu_model(),
        "isa": target.isa,
        "features": list(target.features),
        "cores": target.cores,
        "caches": caches,
    }


def _record(target: Target, cache: CompileCache) -> Path:
    digest = hashlib.sha256(json.dumps(_identity(target), sort_keys=True).encode()).hexdigest()[:20]
    return cache.folder / "machines" / f"{digest}.json"
