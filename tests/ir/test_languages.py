"""One model in all three languages: after each step its text parses back, verifies, and computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.dims import evaluate
from effcc.ir.dtypes import f64
from effcc.ir.graph import Graph
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.parser import parse_any, parse_graph, parse_loops, parse_program
from effcc.ir.printer import print_any, print_graph, print_loops, print_program
from effcc.ir.verifier import verify_any
from effcc.steps import State, run_steps
from effcc.target import Target

MODELS = {
    "mlp": """graph @mlp(%x: f32[7,12], weight %w: f32[20,12], weight %b: f32[20]) {
      %t = transpose %w {perm=[1,0]} : f32[12,20]
      %h = matmul %x, %t : f32[7,20]
      %s = add %h, %b : f32[7,20]
      %y = gelu %s {approximate="none"} : f32[7,20]
      return %y
    }""",
    "attention": """graph @attention(%q: f32[2,9,8], %k: f32[2,37,8], %v: f32[2,37,8]) {
      %t = transpose %k {perm=[0,2,1]} : f32[2,8,37]
      %s = matmul %q, %t : f32[2,9,37]
      %p = softmax %s {axis=-1, safe=false} : f32[2,9,37]
      %o = matmul %p, %v : f32[2,9,8]
      return %o
    }""",
    "running sums of any length": """graph @sums(%x: f32[s0,33]) where s0 in 1..100 {
      %m = mean %x {axes=[1], keepdim=true} : f32[s0,1]
      %d = sub %x, %m : f32[s0,33]
      %e = exp %d : f32[s0,33]
      %c = cumsum %e {axis=1} : f32[s0,33]
      return %c, %d
    }""",
}
SIZES = {"s0": 5}


@pytest.mark.parametrize("name", MODELS)
def test_every_step_keeps_the_meaning_and_has_a_text(name: str) -> None:
    graph = parse_graph(MODELS[name])
    random = np.random.default_rng(3)
    shapes = [[evaluate(d, SIZES) for d in p.type.shape] for p in graph.params]
    inputs = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    expected = run_graph(graph, inputs, dtype=f64)
    reached = set()

    def check(step: str, state: State) -> None:
        if state.program is None:
            reached.update(_round_trip(g) for g in (state.graph, state.prepare) if g is not None)
            return
        program = parse_program(print_program(state.program))
        assert print_program(program) == print_program(state.program, locations=False)
        verify_any(program)
        reached.add("program")
        nests = {key: parse_loops(print_loops(nest)) for key, nest in state.nests.items()}
        if nests:
            assert nests == dict(state.nests)
            reached.add("loops")
        for function in state.vectors.values():
            assert parse_any(print_any(function)) == function
            reached.add("vectors")
        outputs = run_program(program, [i.copy() for i in inputs], nests=nests)
        for output, value in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(output.ravel(), value.ravel(), rtol=1e-4, atol=1e-5, err_msg=step)

    run_steps(State(graph=graph), Target.detect(), see=check)
    assert reached == {"graph", "program", "loops", "vectors"}


def _round_trip(graph: Graph) -> str:
    text = print_graph(graph, locations=False)
    parsed = parse_any(text)
    verify_any(parsed)
    assert print_any(parsed) == text
    return "graph"
