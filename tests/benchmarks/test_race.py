"""Races are fair, and what a table says follows from what was measured."""

from __future__ import annotations

import time

import pytest

from benchmarks.race import Timing, race


def test_sides_run_in_turn_equally_often() -> None:
    order: list[str] = []
    race({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, (), "a", budget_s=0.0, rounds=(5, 5))
    warm_up, turns = order[:6], order[6:]
    assert warm_up == ["a"] * 3 + ["b"] * 3
    assert turns == ["a", "a", "b", "b"] * 5


def test_speed_is_how_many_times_as_fast_as_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    timings = race({"slow": lambda: advance(20.0), "fast": lambda: advance(5.0)}, (), "slow", budget_s=0.0)
    assert timings["slow"].speed == 1.0
    assert timings["fast"].speed == 4.0


def test_one_disturbed_round_does_not_move_the_medians() -> None:
    timing = Timing("x", (1.0, 1.0, 50.0, 1.0, 1.0), 1.0)
    assert timing.median == 1.0
    assert timing.best == 1.0
