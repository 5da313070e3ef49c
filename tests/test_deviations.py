"""A kernel's deviation from float64 is its own, and one that is wrong shows."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from effcc import deviations as module
from effcc.deviations import Deviation, deviations
from effcc.ir.parser import parse_graph
from effcc.runtime.measure import host_target
from effcc.steps import State, run_steps

GRAPH = """graph @two(%x: f32[8,16], weight %w: f32[4,16]) {
  %p = linear %x, %w : f32[8,4]
  %y = softmax %p {axis=1, safe=false} : f32[8,4]
  return %y
}"""


@pytest.fixture(scope="module")
def state() -> State:
    return run_steps(State(graph=parse_graph(GRAPH)), host_target())


def test_right_kernels_are_within_roundings(state: State) -> None:
    assert state.program is not None
    found = deviations(state, host_target(), {}, {"x": torch.ones(8, 16) / 3})
    assert found.keys() == {s.kernel for s in state.program.steps}  # type: ignore[union-attr]
    assert all(0 < d.rms < 1e-6 and d.largest < 1e-6 and not d.skipped for d in found.values())


def test_a_wrong_kernel_alone_deviates(state: State) -> None:
    """The float64 side is given another first kernel: the second, which is given what the first gave, stays right."""
    program = state.program
    assert program is not None
    first, second = (s.kernel for s in program.steps)  # type: ignore[union-attr]
    largest = tuple(
        s if s.reduction is None else dataclasses.replace(s, value=dataclasses.replace(s.reduction, operator="max"))
        for s in program.kernels[first].statements
    )
    other = program.kernels[first].with_statements(largest)
    changed = dataclasses.replace(program, kernels={**program.kernels, first: other})
    found = deviations(dataclasses.replace(state, program=changed), host_target(), {}, {})
    assert found[first].rms > 0.1 and found[second].rms < 1e-6


def test_what_is_too_large_says_so(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OPERATIONS", 1000.0)
    found = deviations(state, host_target(), {}, {})
    assert any(d.skipped == "1e+03 operations are too many for NumPy" for d in found.values())


def test_a_value_that_should_be_finite_is_infinitely_far() -> None:
    exact, got = np.array([1.0, np.nan]), np.array([np.inf, np.nan])
    assert module._distance(exact, got) == Deviation(math.inf, math.inf)
    assert module._distance(exact, exact) == Deviation()
    assert module._distance(np.array([2.0, 0.0]), np.array([2.0, 0.5])).largest == 0.25
