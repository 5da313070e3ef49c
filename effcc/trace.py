"""When each thread ran each kernel in one call, and that as a trace that ui.perfetto.dev and chrome://tracing open.

The program is built once more, with readings of the clock after every step (`effcc/ticks.h`); its kernels are the same
objects, and threads meet where they meet without. Of several calls the quickest is kept.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from effcc.codegen.cpp.program import emit_program, entry_points
from effcc.driver import build, load
from effcc.errors import InputError
from effcc.ir.program import Extern
from effcc.runtime.executable import ExternCall
from effcc.runtime.files import aside
from effcc.steps import State, with_vectors
from effcc.target import Target
from effcc.timing import random_inputs

_CALLS = 12
_TICKS = "effcc_ticks"


_Raw = tuple[str, str, int, int, int]
"""A tick before it is counted from the call's begin: its name, kind and thread, begin and end in nanoseconds."""


@dataclass(frozen=True)
class Tick:
    """What a thread did from `begin` to `end`, in seconds from the call's first tick.

    name: of the kernel, or of the operator that PyTorch ran. kind: `kernel`, `PyTorch`, `copy`, or `wait` for the other
    threads.
    """

    name: str
    kind: str
    thread: int
    begin: float
    end: float


def ticks(
    state: State, target: Target, sizes: Mapping[str, int], given: Mapping[str, torch.Tensor]
) -> tuple[Tick, ...]:
    """The ticks of one call, in the order in which they began. given: as `effcc.timing.time_steps` takes them."""
    state = with_vectors(state, target)
    program, plan = state.program, state.plan
    assert program is not None and plan is not None
    source = emit_program(
        program, state.nests, target, offsets=plan.offsets, functions=state.vectors, units=state.units, ticks=True,
        no_alias=frozenset(b.name for b in program.buffers if b.space == "prepared"),
    )  # fmt: skip
    watched = replace(state, source=source)
    outside: list[_Raw] = []
    executable = load(watched, target, externs=lambda call: _timed(call, outside))
    threads, marks = torch.get_num_threads(), len(source.ticks)
    table = (ctypes.c_int64 * (threads * marks))()
    library = build(watched, target, openmp=True) if entry_points(program) else None
    inputs = random_inputs(program, sizes, given)
    before = {i: inputs[i].clone() for i, n in enumerate(program.inputs) if n in program.written}
    calls: list[tuple[Tick, ...]] = []
    if library is not None:
        watch = library.function(_TICKS, (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64), None)
        watch(table, marks, threads)
    try:
        with torch.no_grad():
            for _ in range(_CALLS):
                ctypes.memset(table, 0, ctypes.sizeof(table))
                outside.clear()
                executable(*inputs)
                calls.append(_from_zero([*outside, *_read(table, source.ticks, threads)]))
                for i, value in before.items():
                    inputs[i].copy_(value)
    finally:
        if library is not None:
            watch(None, 0, 0)
    return min(calls[2:], key=lambda call: max((t.end for t in call), default=0.0))


def _timed(call: Extern, into: list[_Raw]) -> ExternCall:
    """A call of PyTorch that notes when it ran."""
    from effcc.frontend.extern import bind

    bound = bind(call)

    def run(operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> list[Any]:
        begin = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        results = bound(operands, sizes)
        name = str(call.attrs.get("target", call.op))
        into.append((name, "PyTorch", 0, begin, time.clock_gettime_ns(time.CLOCK_MONOTONIC)))
        return results

    return run


def _read(table: Any, marks: Sequence[str], threads: int) -> Iterable[_Raw]:
    """What threads wrote: each mark ends what began with the one before it."""
    for thread in range(threads):
        times = table[thread * len(marks) : (thread + 1) * len(marks)]
        for n, what in enumerate(marks):
            if what != "begin" and times[n]:
                kind = what if what in ("wait", "copy") else "kernel"
                yield what, kind, thread, times[n - 1], times[n]


def _from_zero(found: Sequence[_Raw]) -> tuple[Tick, ...]:
    first = min((begin for *_, begin, _ in found), default=0)
    moved = [
        Tick(name, kind, thread, (begin - first) / 1e9, (end - first) / 1e9) for name, kind, thread, begin, end in found
    ]
    return tuple(sorted(moved, key=lambda t: (t.begin, t.thread)))


def trace_events(programs: Sequence[tuple[str, Sequence[Tick], Mapping[str, Mapping[str, Any]]]]) -> dict[str, Any]:
    """A trace in Chrome's format, a process for each program, of which are given: its name, its ticks, and what is told
    of each kernel."""
    events: list[dict[str, Any]] = []
    for process, (name, found, told) in enumerate(programs, 1):
        events.append(_named("process_name", process, 0, f"effcc: {name}"))
        events += [_named("thread_name", process, t, f"thread {t}") for t in sorted({t.thread for t in found})]
        events += [
            {
                "name": tick.name, "cat": tick.kind, "ph": "X", "pid": process, "tid": tick.thread,
                "ts": tick.begin * 1e6, "dur": (tick.end - tick.begin) * 1e6, "args": dict(told.get(tick.name, {})),
            }
            for tick in found
        ]  # fmt: skip
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def write_trace(events: Mapping[str, Any], path: Path) -> Path:
    """Write a trace to a file, which is whole or absent. Raises InputError where it cannot be written."""
    try:
        with aside(path, mode=0o666) as staged:
            staged.write_text(json.dumps(events))
            os.replace(staged, path)
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be written, for the trace: {error}") from error
    return path
