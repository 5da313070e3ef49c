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
