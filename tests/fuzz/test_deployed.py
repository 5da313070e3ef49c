"""Programs run as users run them: right ones pass, and one that misses a change of its weights does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from effcc.fuzz.deployed import Deployed
from effcc.fuzz.generate import Array, Case, case_of
from effcc.fuzz.oracles import examine
from effcc.fuzz.variation import Variation
from effcc.ir.parser import parse_graph
from effcc.target import Target

LAYER = """graph @layer(%x: f32[5,16], weight %w: f32[24,16], weight %b: f32[24]) {
  %y = linear %x, %w, %b : f32[5,24]
  %z = relu %y : f32[5,24]
  return %z
}"""


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    with Deployed() as made:
        yield made


def case_for(kind: str) -> Case:
    seed = 0 if kind == "executable" else 2
    case = case_of(parse_graph(LAYER), seed)
    return replace(case, variation=Variation(symbols=(5,)))


@pytest.mark.parametrize("kind", ["executable", "package"])
def test_a_right_program_is_right_when_deployed(kind: str, deployed: Deployed) -> None:
    examined = examine(case_for(kind), Target.detect())
    assert examined.failure is None and examined.second is not None
    assert deployed.judge(examined, Target.detect()) is None


@pytest.mark.parametrize("kind", ["executable", "package"])
def test_a_wrong_program_is_found(kind: str, deployed: Deployed) -> None:
    examined = examine(case_for(kind), Target.detect())
    state = examined.states[-1][1]
    kernels = tuple(replace(unit, text=unit.text.replace("0.0f", "1.0f")) for unit in state.source.kernels)
    wrong = replace(state, source=replace(state.source, kernels=kernels))
    assert wrong.source != state.source
    failure = deployed.judge(replace(examined, states=(("emit", wrong),)), Target.detect())
    assert failure is not None and failure.kind == f"{kind} is wrong"


def test_later_calls_of_an_executable_have_other_weights_and_the_first_sizes_again(deployed: Deployed) -> None:
    calls: list[tuple[Array, ...]] = []

    def ask(request: object) -> str:
        calls.extend(request.calls)  # type: ignore[attr-defined]
        return "not run"

    examined = examine(case_for("executable"), Target.detect())
    recording = Deployed()
    recording._ask = ask  # type: ignore[assignment,method-assign]
    assert recording.judge(examined, Target.detect()) is not None
    first, second, third, last = calls
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(second[1], third[1])
    np.testing.assert_array_equal(third[1], last[1])
    assert first[0].shape == last[0].shape != third[0].shape
