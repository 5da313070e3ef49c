"""Times callables in turn in one process: A B C, A B C, ... after warm-up; medians, and ratios within each round.

A machine that others use slows all sides of a round alike, so the median of the rounds' ratios is steadier than the
ratio of medians. Runtimes let their threads spin for a while after a call: each turn begins with a rest, in which the
last side's fall asleep, and with a call that is not timed, which wakes this side's.
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
                time.sleep(rest_s)
                run(*args)
                before = clock()
                run(*args)
                taken[name].append(clock() - before)
            if done + 1 >= least and time.perf_counter() - started > budget_s:
                break
    return {name: Timing(name, tuple(seconds), _speed(taken[baseline], seconds)) for name, seconds in taken.items()}


def _speed(baseline: Sequence[float], seconds: Sequence[float]) -> float:
    return statistics.median(b / s for b, s in zip(baseline, seconds, strict=True))
