"""Times callables in turn in one process: A B C, A B C, ... after warm-up; medians, and ratios within each round.

A machine that others use slows all sides of a round alike, so the median of the rounds' ratios is steadier than the
ratio of medians. Runtimes let their threads spin for a while after a call (ONNX Runtime's for 50 ms), which takes a
core from whoever is next: each turn begins with a rest, until the last side's threads sleep, and with a call that is
not timed, which wakes this side's.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class Timing:
    """One side of a race: seconds a call, and how many times as fast as the baseline it was in the median round."""

    name: str
    seconds: tuple[float, ...]
    speed: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)


def race(
    sides: Mapping[str, Callable[..., Any]],
    args: Sequence[Any],
    baseline: str,
    budget_s: float = 10.0,
    rounds: tuple[int, int] = (7, 400),
    rest_s: float = 0.02,
    clock: Callable[[], float] | None = None,
) -> dict[str, Timing]:
    """Time every side on `args` under no_grad for about `budget_s` seconds, in at least and at most `rounds` rounds.

    clock: the time of day by default; `time.process_time` tells more where one thread runs and others use the machine.
    """
    clock = clock or time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in sides}
    with torch.no_grad():
        for run in sides.values():
            for _ in range(3):
                run(*args)
        started, least, most = time.perf_counter(), *rounds
        for done in range(most):
            for name, run in sides.items():
                _rest(rest_s)
                run(*args)
                before = clock()
                run(*args)
                taken[name].append(clock() - before)
            if done + 1 >= least and time.perf_counter() - started > budget_s:
                break
    return {name: Timing(name, tuple(seconds), _speed(taken[baseline], seconds)) for name, seconds in taken.items()}


def _rest(least_s: float, step_s: float = 0.01, most_s: float = 0.25) -> None:
    """Sleep for at least and at most so long, until this process has used no core for a step."""
    time.sleep(least_s)
    until = time.perf_counter() + most_s - least_s
    while time.perf_counter() < until:
        before = time.process_time()
        time.sleep(step_s)
        if time.process_time() - before < 0.1 * step_s:
            return


def _speed(baseline: Sequence[float], seconds: Sequence[float]) -> float:
    return statistics.median(b / s for b, s in zip(baseline, seconds, strict=True))
