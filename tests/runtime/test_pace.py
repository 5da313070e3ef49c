"""The number of threads follows what other processes leave of the machine."""

from __future__ import annotations

import random
import statistics
from collections import deque
from collections.abc import Callable

import pytest

from effcc.runtime.pace import Pace

Machine = Callable[[int], float]


def calm(threads: int) -> float:
    return 8e-3 / threads


def busy(threads: int) -> float:
    """One of the cores is taken: one thread has the other to itself, more wait for one that has half a core."""
    return 8e-3 if threads == 1 else 16e-3


def run(pace: Pace, machine: Machine, calls: int, wanted: int = 2, noise: float = 0.0, seed: int = 0) -> list[int]:
    """The numbers of threads of some calls."""
    rng = random.Random(seed)
    chosen = []
    for _ in range(calls):
        threads = pace.threads(wanted)
        chosen.append(threads)
        pace.note(wanted, machine(threads) * (1 + noise * rng.random()))
    return chosen


@pytest.mark.parametrize("noise", [0.0, 0.5, 0.9])
def test_a_calm_machine_runs_all_threads(noise: float) -> None:
    assert set(run(Pace(), calm, 2000, noise=noise)) == {2}


def test_a_taken_core_is_left_to_others_and_taken_back() -> None:
    pace = Pace()
    run(pace, calm, 100)
    chosen = run(pace, busy, 2000)
    assert chosen[:8] == [2, 2, 2, 2, 1, 1, 1, 1]
    assert chosen.count(2) < 60  # trials are few, and fewer as time goes on
    back = run(pace, calm, 2000)
    assert back.index(2) <= 520 and set(back[600:]) == {2}


def test_long_calls_do_not_wait_for_minutes() -> None:
    pace = Pace()
    run(pace, lambda threads: 50 * calm(threads), 100)
    run(pace, lambda threads: 50 * busy(threads), 2000)
    assert run(pace, lambda threads: 50 * calm(threads), 100).index(2) <= 40


def test_calls_that_are_slow_on_any_number_of_threads_keep_all() -> None:
    pace = Pace()
    run(pace, calm, 100)
    chosen = run(pace, lambda threads: 3 * calm(threads), 2000)
    assert chosen.count(1) < 100 and chosen[-300:].count(1) <= 3


def test_more_than_one_thread_may_be_left_out() -> None:
    pace = Pace()
    run(pace, calm, 100, wanted=4)
    crowded = {1: 8e-3, 2: 4e-3, 3: 12e-3, 4: 20e-3}
    chosen = run(pace, crowded.__getitem__, 400, wanted=4)
    assert max(set(chosen), key=chosen.count) == 2


def test_one_thread_stays_one() -> None:
    pace = Pace()
    run(pace, calm, 10, wanted=1)
    assert set(run(pace, lambda _: 100.0, 100, wanted=1)) == {1}


def test_a_change_of_the_number_wanted_is_heeded() -> None:
    pace = Pace()
    run(pace, calm, 10)
    run(pace, busy, 10)
    assert pace.threads(2) == 1 and pace.threads(1) == 1 and 1 <= pace.threads(8) <= 8


def test_a_call_that_ends_while_another_is_noted_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pace, median = Pace(), statistics.median

    def interrupted(times: deque[float]) -> float:
        pace.note(2, busy(2))  # as another thread would that ends its call just now
        return median(times)

    monkeypatch.setattr(statistics, "median", interrupted)
    run(pace, calm, 100)
    assert run(pace, busy, 8) == [2, 2, 2, 2, 1, 1, 1, 1]
