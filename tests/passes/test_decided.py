"""Control flow on constants leaves the graph, and what it would have chosen is computed."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from effcc.ir.verifier import verify_graph
from effcc.passes.simplify import simplify

BRANCH = """
    graph @main(%x: f32[3]) {{
      %c = constant {{value={value}, dtype=bool}} : bool[]
      %e = exp %x : f32[3]
      %a, %b = cond %c, %e, %x graph @then(%p: f32[3], %q: f32[3]) {{
        %e = sin %q : f32[3]
        return %e, %p
      }} graph @else(%p: f32[3], %q: f32[3]) {{
        %y = cos %p : f32[3]
        return %q, %y
      }} : f32[3], f32[3]
      %z = add %a, %b : f32[3]
      return %a, %z
    }}
"""
LOOP = """
    graph @main(%x: f32[3], %n: f32[3]) {
      %a, %b = while %x, %n {carried=2} graph @test(%p: f32[3], %q: f32[3]) {
        %no = constant {value=false, dtype=bool} : bool[]
        return %no
      } graph @body(%p: f32[3], %q: f32[3]) {
        return %q, %p
      } : f32[3], f32[3]
      %z = sub %a, %b : f32[3]
      return %z
    }
"""


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_branch_on_a_constant_is_its_way(value: str) -> None:
    graph = parse_graph(BRANCH.format(value=value))
    simple = simplify(graph)
    verify_graph(simple)
    assert not any(node.regions for node in simple.nodes)
    assert ("sin" in {node.op for node in simple.nodes}) == (value == "true")
    x = np.array([0.5, -1, 2], np.float32)
    for found, wanted in zip(run_graph(simple, [x]), run_graph(graph, [x]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_loop_that_never_turns_is_what_it_begins_with() -> None:
    simple = simplify(parse_graph(LOOP))
    assert [node.op for node in simple.nodes] == ["sub"]
