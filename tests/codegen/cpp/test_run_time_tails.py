"""A reduction along lanes whose last vector is cut by a run-time size: lanes beyond it must not take part."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.fuzz.generate import Case
from effcc.fuzz.native import Runner
from effcc.fuzz.oracles import examine, judge, native
from effcc.fuzz.variation import Variation
from effcc.ir.parser import parse_graph
from effcc.target import Target

MEAN_OF_RELU = """graph @mean(%x: f32[5,3], %y: f32[1,1]) {
  %a = add %x, %y : f32[5,3]
  %r = relu %a : f32[5,3]
  %m = mean %r {axes=[0,1], keepdim=false} : f32[]
  return %m
}"""


REPEATED = """graph @repeated(%x: f32[1,3,1]) {
  %b = broadcast %x {shape=[1,3,16]} : f32[1,3,16]
  %r = reshape %b {shape=[1,48]} : f32[1,48]
  %t = transpose %r {perm=[1,0]} : f32[48,1]
  return %t
}"""


@pytest.mark.parametrize("target", ["avx512", "avx2", "scalar"])
def test_an_element_for_lanes_that_are_not_there_is_not_read(target: str) -> None:
    machine = Target.parse(target)
    if not machine.runs_here():
        pytest.skip(f"this CPU has no {target}")
    case = Case(parse_graph(REPEATED), (np.ones((1, 3, 1), np.float32),), seed=1, variation=Variation((3,)))
    examined = examine(case, machine)
    program = native(examined)
    assert program is not None and not program.front  # the input ends where its page does
    with Runner() as runner:
        (outcome,) = runner.run([program], machine)
    assert judge(examined, outcome) is None


@pytest.mark.parametrize("target", ["avx512", "avx2", "scalar"])
def test_lanes_beyond_a_run_time_size_do_not_take_part(target: str) -> None:
    machine = Target.parse(target)
    if not machine.runs_here():
        pytest.skip(f"this CPU has no {target}")
    x = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)
    case = Case(parse_graph(MEAN_OF_RELU), (x, np.full((1, 1), 0.75, np.float32)), variation=Variation((3,)))
    examined = examine(case, machine)
    program = native(examined)
    assert program is not None
    with Runner() as runner:
        (outcome,) = runner.run([program], machine)
    assert judge(examined, outcome) is None
