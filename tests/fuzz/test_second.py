"""The second call of a case: other inputs in the same ranges, other sizes where they are known at run time only."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.errors import EffccError
from effcc.fuzz.generate import Case, case_of, generate
from effcc.fuzz.second import at_sizes, second
from effcc.fuzz.variation import Variation
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from tests.fuzz.equal import assert_equal_values

ROWS = """graph @rows(%x: f32[5,3], %i: i64[2], weight %w: f32[4,3]) {
  %g = index_select %x, %i {axis=0} : f32[2,3]
  %y = linear %g, %w : f32[2,4]
  return %y
}"""


def varied_case(text: str, variation: Variation) -> Case:
    case = case_of(parse_graph(text))
    return Case(case.graph, case.inputs, variation=variation)


def test_weights_stay_and_positions_stay_inside() -> None:
    case = varied_case(ROWS, Variation(symbols=(5,)))
    found = second(case)
    assert found is not None
    called, sizes = found
    assert sizes["s0"] > 5 and called.inputs[0].shape == (sizes["s0"], 3)
    np.testing.assert_array_equal(called.inputs[2], case.inputs[2])
    assert not np.array_equal(called.inputs[0][:5], case.inputs[0])
    assert called.inputs[1].min() >= 0 and called.inputs[1].max() < 5
    run_graph(called.graph, called.inputs)


def test_sizes_at_which_a_formula_counts_below_0_are_refused() -> None:
    graph = parse_graph("""graph @cut(%x: f32[6,s0]) where s0 in 2.. {
      %y = slice %x {axis=0, start=5, end=2*s0, step=1} : f32[2*s0-5,s0]
      return %y
    }""")
    assert at_sizes(graph, {"s0": 3}).outputs[0].type.shape == (1, 3)
    with pytest.raises(EffccError, match="s0"):
        at_sizes(graph, {"s0": 2})


def test_writes_that_may_coincide_are_not_called_again() -> None:
    text = """graph @put(%x: f32[5], %v: f32[2], %i: i64[2]) {
      %y = index_put %x, %v, %i {axes=[0], combine="set"} : f32[5]
      return %y
    }"""
    assert second(case_of(parse_graph(text))) is None


@pytest.mark.parametrize("seed", range(40))
def test_other_sizes_make_a_graph_that_computes_what_the_symbolic_one_does(seed: int) -> None:
    case = generate(seed)
    found = second(case)
    if found is None:
        return
    called, sizes = found
    known = at_sizes(case.compiled, sizes) if sizes else case.graph
    for got, wanted in zip(run_graph(known, called.inputs), run_graph(case.compiled, called.inputs), strict=True):
        assert_equal_values(got, wanted)
