"""`mode="max-autotune"`: of every kernel the few schedules that are predicted to be fastest, timed on this machine.

The program runs once with the best schedule of each kernel, once with the second best, and so on, with a clock between
its steps and random inputs, in a process of its own: where a candidate crashes, hangs or computes something else, only
that candidate is lost. What was fastest is remembered in the cache, by machine, target, threads and the kernel's text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from effcc.errors import CacheError, EffccError, UnknownNameError
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_schedule
from effcc.ir.parser.schedules import WrittenSchedule
from effcc.ir.printer import print_kernel, print_schedule
from effcc.ir.program import Launch, size_hints
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.written import bounds, check
from effcc.runtime.cache import CompileCache
from effcc.runtime.cache_files import read_private
from effcc.runtime.cache_keys import sources_digest
from effcc.runtime.files import aside
from effcc.runtime.toolchain import compile_timeout
from effcc.runtime.trust import make_private, require_private_part
from effcc.runtime.worker import LostError, Worker, answer_requests
from effcc.steps import State, run_steps
from effcc.target import Target, cpu_model
from effcc.timing import Clocked, random_tensor

Array = np.ndarray[Any, Any]

MODES = ("default", "max-autotune")
CANDIDATES = 6
"""Schedules of a kernel that are timed, the solver's first among them."""
GAIN = 0.97
"""What another schedule must take of the first one's time to be preferred: less is noise."""
SECONDS = 0.5
"""How long a candidate of all kernels runs."""
PATIENCE = 30.0
"""Seconds that a candidate may take beyond what compiling may."""


@dataclass(frozen=True)
class Timing:
    """One schedule of a kernel: seconds of a launch, as predicted and as measured."""

    kernel: str
    schedule: WrittenSchedule
    predicted: float
    measured: float


def tuned(state: State, target: Target, threads: int | None = None) -> dict[str, WrittenSchedule]:
    """The fastest schedules found of a program's kernels; those without one are left to the solver.

    state: before the step `tile`. Prints to standard error what was gained and how well predictions rank.
    """
    program = state.program
    assert program is not None
    threads = threads or torch.get_num_threads()
    launched = dict.fromkeys(s.kernel for s in program.steps if isinstance(s, Launch) and s.kernel not in state.written)
    kernels = {name: program.kernels[name] for name in launched}
    memory = _Memory(target, threads)
    known = {n: found for n, k in kernels.items() if (found := memory.recalled(k)) is not None}
    unknown = {n: k for n, k in kernels.items() if n not in known}
    if not unknown:
        return known
    timings = _time_all(replace(state, written={**state.written, **known}), unknown, target, threads)
    for name in unknown:
        own = [t for t in timings if t.kernel == name]
        if own:
            best = min(own, key=lambda t: t.measured)
            best = best if best.measured < GAIN * own[0].measured else own[0]
            known[name] = best.schedule
            memory.remember(unknown[name], best.schedule)
    _report(timings, known)
    return known


def require_mode(mode: str | None) -> None:
    """Raise UnknownNameError for a mode that there is none of."""
    if mode is not None and mode not in MODES:
        raise UnknownNameError("mode", str(mode), MODES)


def _time_all(state: State, kernels: Mapping[str, Kernel], target: Target, threads: int) -> list[Timing]:
    """The candidates of kernels, timed; of a kernel that has fewer different ones, those once."""
    machine = bounds(target)
    timings: list[Timing] = []
    seen: dict[str, set[str]] = {name: set() for name in kernels}
    expected: list[Array] | None = None
    first: _Answer | None = None
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        Worker("effcc.tuning:serve") as worker,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task(f"timing schedules of {len(kernels)} kernels", total=CANDIDATES)
        for rank in range(CANDIDATES):
            written, predicted, fresh = {}, {}, set()
            for name, kernel in kernels.items():
                _, schedule = choose(kernel, target, rank)
                one = parse_schedule(print_schedule(name, replace(schedule, seconds=0.0, notes=())))
                check(one, kernel, machine)
                written[name], predicted[name] = one, schedule.seconds
                text = print_schedule("", one.schedule)
                if text not in seen[name]:
                    seen[name].add(text)
                    fresh.add(name)
            if not fresh:
                break
            answer = _run(worker, replace(state, written={**state.written, **written}), target, threads)
            bar.advance(task)
            if answer is None or (expected is not None and not _alike(answer.results, expected)):
                if expected is None:
                    return []  # not even the solver's own choice runs here: it will be told when it is loaded
                continue
            expected, first = expected or answer.results, first or answer
            for name in sorted(fresh):
                timings.append(Timing(name, written[name], predicted[name], answer.seconds_of(name)))
        # The first one ran while its process still found out how many threads to use: it gets a second turn.
        found = _ask(worker, first.state, target, threads) if first is not None else None
    if first is None or found is None:
        return timings
    again = replace(first, seconds=found[0])
    best = {t.kernel: min(t.measured, again.seconds_of(t.kernel)) for t in timings[: len(kernels)]}
    return [*(replace(t, measured=best[t.kernel]) for t in timings[: len(kernels)]), *timings[len(kernels) :]]


@dataclass(frozen=True)
class _Answer:
    state: State
    seconds: list[float]
    results: list[Array]

    def seconds_of(self, kernel: str) -> float:
        """Of a launch of the kernel, on the average."""
        assert self.state.program is not None
        steps = zip(self.state.program.steps, self.seconds, strict=True)
        own = [seconds for step, seconds in steps if isinstance(step, Launch) and step.kernel == kernel]
        return sum(own) / len(own)


def _run(worker: Worker, state: State, target: Target, threads: int) -> _Answer | None:
    """A program with its schedules, timed; None where it does not compile, run or return."""
    try:
        made = run_steps(state, target, start="settle")
    except EffccError:
        return None
    made = replace(made, written={}, begin=None)
    found = _ask(worker, made, target, threads)
    return None if found is None else _Answer(made, *found)


def _ask(worker: Worker, state: State, target: Target, threads: int) -> _Timed | None:
    try:
        found: _Timed | None = worker.ask((state, target, threads), compile_timeout() + PATIENCE)
    except LostError:
        return None  # it crashed or hung
    return found


def _alike(found: Sequence[Array], expected: Sequence[Array]) -> bool:
    """Whether results are equal up to the order of sums."""

    def equal(a: Array, b: Array) -> bool:
        if a.dtype.kind != "f":
            return bool(np.array_equal(a, b))
        largest = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
        return bool(np.allclose(a, b, rtol=1e-2, atol=1e-3 * largest, equal_nan=True))

    return len(found) == len(expected) and all(equal(a, b) for a, b in zip(found, expected, strict=True))


# What is told ---------------------------------------------------------------------------------------------------------


def _report(timings: Sequence[Timing], chosen: Mapping[str, WrittenSchedule]) -> None:
    """One line: the time before and after, and whether predictions rank as measurements do."""
    if not timings:
        return
    kernels = list(dict.fromkeys(t.kernel for t in timings))
    first = sum(next(t.measured for t in timings if t.kernel == k) for k in kernels)
    best = sum(t.measured for k in kernels for t in timings if t.kernel == k and t.schedule is chosen[k])
    ranks = [rank_correlation(own) for k in kernels if len(own := [t for t in timings if t.kernel == k]) > 2]
    said = f"rank correlation of prediction and measurement {sum(ranks) / len(ranks):.2f}" if ranks else "few schedules"
    print(
        f"effcc: timed {len(timings)} schedules of {len(kernels)} kernels: {first * 1e3:.3f} ms as predicted, "
        f"{best * 1e3:.3f} ms as measured; {said}",
        file=sys.stderr,
    )


def rank_correlation(timings: Sequence[Timing]) -> float:
    """Spearman's: 1 where a kernel's schedules were predicted in the order in which they were measured, 0 for none."""
    predicted, measured = (_ranks([getattr(t, which) for t in timings]) for which in ("predicted", "measured"))
    spread = float(predicted.std() * measured.std())
    return float(((predicted - predicted.mean()) * (measured - measured.mean())).mean()) / spread if spread else 0.0


def _ranks(values: Sequence[float]) -> Array:
    """Ranks, equal ones shared."""
    array = np.asarray(values)
    return (array[:, None] > array).sum(1) + ((array[:, None] == array).sum(1) - 1) / 2


# What is remembered ---------------------------------------------------------------------------------------------------


class _Memory:
    """The schedules that were fastest on this machine, as files `tuned/<key>` of the cache: a digest and the text."""

    def __init__(self, target: Target, threads: int) -> None:
        cache = CompileCache.default()
        self.folder, self.writable = cache.folder / "tuned", cache.writable
        self.target = target
        self.machine = [cpu_model(), target.isa, sorted(target.features), target.cores, threads, sources_digest()]

    def recalled(self, kernel: Kernel) -> WrittenSchedule | None:
        """What was remembered of a kernel, if it is whole, ours alone, and fits the kernel."""
        try:
            require_private_part(self.folder, "set EFFCC_CACHE_DIR to a folder of your own")
            inside = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                digest, _, text = read_private(inside, self._key(kernel)).partition(b"\n")
            finally:
                os.close(inside)
            if digest.decode() != hashlib.sha256(text).hexdigest():
                return None
            found = parse_schedule(text.decode())
            check(found, kernel, bounds(self.target))
        except (OSError, CacheError, EffccError, UnicodeDecodeError):
            return None  # absent or damaged: timed again
        return found

    def remember(self, kernel: Kernel, schedule: WrittenSchedule) -> None:
        """Write it aside and rename it; a cache that cannot be written to remembers nothing."""
        if not self.writable:
            return
        text = print_schedule("kernel", schedule.schedule).encode()
        with contextlib.suppress(OSError):
            make_private(self.folder)
            place = self.folder / self._key(kernel)
            with aside(place) as staged:
                staged.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
                os.replace(staged, place)

    def _key(self, kernel: Kernel) -> str:
        parts = [self.machine, print_kernel(replace(kernel, name="kernel"))]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


# In a process of its own ----------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until the input ends."""
    answer_requests(_answer)


def _answer(request: tuple[State, Target, int]) -> _Timed | None:
    state, target, threads = request
    torch.set_num_threads(threads)
    try:
        return _timed(state, target)
    except (EffccError, RuntimeError, IndexError, ValueError):
        return None  # a program that random inputs do not suit, or that the compiler refuses


_Timed = tuple[list[float], list[Array]]
"""Seconds of every step, and the results."""


def _timed(state: State, target: Target) -> _Timed:
    program = state.program
    assert program is not None
    sizes = size_hints(program)
    torch.manual_seed(0)
    inputs = [random_tensor(program.buffer(n), sizes) for n in program.inputs]
    clocked = Clocked(state, target)
    with torch.no_grad():
        results = [_array(r) for r in clocked([i.clone() for i in inputs])]
    return clocked.seconds(inputs, SECONDS, min), results  # other processes make some calls slower, none faster


def _array(result: torch.Tensor) -> Array:
    return (result.double() if result.is_floating_point() else result).numpy()


__all__ = ["CANDIDATES", "MODES", "Timing", "rank_correlation", "require_mode", "tuned"]
