"""What is prepared is computed one type wider and rounded once, where nothing discontinuous looks on."""

from __future__ import annotations

import numpy as np

from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_graph
from effcc.ir.verifier import verify_graph
from effcc.passes.widen import widen

FOLDED = """
    graph @prepare(weight %w: f32[16,3], weight %v: f32[16]) {
      %s = rsqrt %v : f32[16]
      %c = reshape %s {shape=[16,1]} : f32[16,1]
      %f = mul %w, %c : f32[16,3]
      return %f
    }
"""


def test_a_chain_of_arithmetic_is_rounded_once():
    graph = parse_graph(FOLDED)
    widened = widen(graph)
    verify_graph(widened)
    random = np.random.default_rng(0)
    w, v = random.standard_normal((16, 3)).astype(np.float32), random.uniform(0.1, 9, 16).astype(np.float32)
    (result,) = run_graph(widened, [w, v])
    exact = w.astype(np.float64) / np.sqrt(v.astype(np.float64))[:, None]
    np.testing.assert_array_equal(result, exact.astype(np.float32))
    assert not np.array_equal(run_graph(graph, [w, v])[0], exact.astype(np.float32))


def test_inputs_are_cast_once_and_only_results_are_cast_back():
    widened = widen(parse_graph(FOLDED))
    assert [n.op for n in widened.nodes] == ["cast", "rsqrt", "reshape", "cast", "mul", "cast"]
    assert [str(o.type) for o in widened.outputs] == ["f32[16,3]"]


def test_half_types_are_computed_in_f32():
    widened = widen(parse_graph(FOLDED.replace("f32", "bf16")))
    assert str(widened.producers()[widened.outputs[0]].operands[0].type) == "f32[16,3]"


def test_what_a_rounding_reads_keeps_the_numbers_of_eager():
    graph = parse_graph("""
        graph @prepare(weight %w: f32[8], weight %s: f32[8]) {
          %q = div %w, %s : f32[8]
          %r = round %q : f32[8]
          %b = mul %r, %s : f32[8]
          return %b
        }
    """)
    assert [n.op for n in widen(graph).nodes] == ["div", "round", "cast", "cast", "mul", "cast"]


def test_a_graph_without_arithmetic_stays_as_it_is():
    graph = parse_graph("""
        graph @prepare(weight %w: f32[8,2]) {
          %t = transpose %w {perm=[1,0]} : f32[2,8]
          return %t
        }
    """)
    assert print_graph(widen(graph)) == print_graph(graph)
