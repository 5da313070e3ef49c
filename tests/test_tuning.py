"""Schedules are timed, the fastest one is taken and remembered; what crashes, hangs or is wrong is never taken."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import effcc
from effcc import tuning
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_schedule
from effcc.runtime.worker import LostError, Worker
from effcc.steps import State, run_steps
from effcc.target import Target
from effcc.tuning import Timing, rank_correlation, tuned

GRAPH = """graph @g(%x: f32[48,64], %w: f32[96,64]) {
  %h = linear %x, %w : f32[48,96]
  %y = softmax %h {axis=-1} : f32[48,96]
  return %y
}"""
RIGHT, WRONG = [np.ones(3)], [np.zeros(3)]


@pytest.fixture
def arranged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "CANDIDATES", 3)
    return run_steps(State(graph=parse_graph(GRAPH)), TARGET, until="settle")


TARGET = Target.detect()


def answers(monkeypatch: pytest.MonkeyPatch, *given: tuple[float, Any] | None) -> None:
    """Have the worker answer so: seconds of every step and results, or nothing."""
    turns = itertools.chain(given, itertools.repeat(None))

    def ask(worker: Any, request: tuple[State, Target, int], patience: float) -> Any:
        turn, program = next(turns), request[0].program
        assert program is not None
        if turn is None:
            raise LostError("crashed")
        return [turn[0]] * len(program.steps), turn[1]

    monkeypatch.setattr(Worker, "ask", ask)


def texts(found: dict[str, Any]) -> dict[str, str]:
    return {name: print_schedule("k", one.schedule) for name, one in found.items()}


def chosen_when(monkeypatch: pytest.MonkeyPatch, state: State, *given: tuple[float, Any] | None) -> dict[str, str]:
    answers(monkeypatch, *given)
    found = texts(tuned(state, TARGET))
    for file in (tuning.CompileCache.default().folder / "tuned").iterdir():
        file.unlink()
    return found


def test_the_fastest_that_is_right_is_taken(arranged: State, monkeypatch: pytest.MonkeyPatch) -> None:
    first = chosen_when(monkeypatch, arranged, (1.0, RIGHT), (2.0, RIGHT), (3.0, RIGHT))
    second = chosen_when(monkeypatch, arranged, (1.0, RIGHT), (0.5, RIGHT), (0.7, RIGHT))
    assert all(first[name] != second[name] for name in first)
    assert chosen_when(monkeypatch, arranged, (1.0, RIGHT), (0.5, WRONG), (2.0, RIGHT)) == first  # wrong
    assert chosen_when(monkeypatch, arranged, (1.0, RIGHT), None, (2.0, RIGHT)) == first  # it crashed
    assert chosen_when(monkeypatch, arranged, (1.0, RIGHT), (0.99, RIGHT), (2.0, RIGHT)) == first  # that is noise
    assert chosen_when(monkeypatch, arranged, (1.0, RIGHT), None, (0.5, RIGHT)).keys() == first.keys()


def test_what_was_fastest_is_remembered_unless_its_file_is_damaged(
    arranged: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, (1.0, RIGHT), (0.5, RIGHT))
    found = texts(tuned(arranged, TARGET))
    answers(monkeypatch)  # nothing is timed
    assert texts(tuned(arranged, TARGET)) == found
    assert tuned(arranged, TARGET, threads=torch.get_num_threads() + 1) == {}  # another machine, so to speak
    files = list((tuning.CompileCache.default().folder / "tuned").iterdir())
    assert len(files) == len(found)
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"by", b"in"))
    assert tuned(arranged, TARGET) == {}
    tuning.CompileCache.default().clear()
    assert not any(file.exists() for file in files)


def test_a_worker_that_crashes_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Worker("effcc.tuning:serve") as worker:
        assert tuning._ask(worker, State(), TARGET, 1) is None


def test_ranks_agree_or_are_opposite() -> None:
    written: Any = None
    pairs = [(1.0, 3.0), (2.0, 4.0), (3.0, 4.5)]
    timings = [Timing("k", written, a, b) for a, b in pairs]
    assert rank_correlation(timings) == pytest.approx(1.0)
    assert rank_correlation([replace(t, measured=-t.measured) for t in timings]) == pytest.approx(-1.0)
    assert rank_correlation([replace(t, predicted=1.0) for t in timings]) == 0.0


def test_a_model_is_right_when_it_is_tuned(
    arranged: State, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "CANDIDATES", 2)  # each is timed for a second on all threads
    model, x = nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.LayerNorm(40)).eval(), torch.randn(9, 24)
    with torch.no_grad():
        for threads in (usual := torch.get_num_threads(), usual + 1):  # each is timed for itself
            torch.compiler.reset()
            compiled = effcc.compile(model, mode="max-autotune", threads=threads)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
            assert "effcc: timed" in capfd.readouterr().err
        torch.compiler.reset()
        torch.compile(model, backend="effcc", mode="max-autotune")(x)
        assert "effcc: timed" not in capfd.readouterr().err
