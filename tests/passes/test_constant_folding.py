"""What holds one number is computed once, here; what does not stays as it was."""

from __future__ import annotations

from effcc.ir.parser import parse_graph
from effcc.passes.constant_folding import fold_constants
from effcc.passes.dead_code import remove_dead_code


def last(source: str):
    """The node that computes the output, after folding."""
    graph = fold_constants(parse_graph(source))
    return remove_dead_code(graph).producers()[graph.outputs[0]]


def test_arithmetic_on_numbers_is_done_in_their_own_dtype():
    node = last("""
        graph @main() {
          %a = constant {value=2.0, dtype=f32, shape=[]} : f32[]
          %y = sqrt %a : f32[]
          return %y
        }
    """)
    assert node.op == "constant" and node.attrs["value"] == 1.4142135381698608


def test_numbers_fold_whatever_the_sizes():
    node = last("""
        graph @main(%x: f32[s0,4]) where s0 in 2..9 {
          %a = full {shape=[s0,4], value=3, dtype=i64} : i64[s0,4]
          %b = constant {value=2, dtype=i64, shape=[]} : i64[]
          %y = mul %a, %b : i64[s0,4]
          return %y
        }
    """)
    assert node.op == "full" and node.attrs["value"] == 6


def test_a_comparison_that_is_the_same_everywhere_is_a_constant():
    node = last("""
        graph @main() {
          %i = iota {size=8} : i64[8]
          %n = constant {value=100, dtype=i64, shape=[]} : i64[]
          %y = lt %i, %n : bool[8]
          return %y
        }
    """)
    assert node.op == "full" and node.attrs["value"] is True


def test_a_table_of_different_numbers_is_not_made():
    node = last("""
        graph @main() {
          %i = iota {size=8} : i64[8]
          %n = constant {value=4, dtype=i64, shape=[]} : i64[]
          %y = lt %i, %n : bool[8]
          return %y
        }
    """)
    assert node.op == "lt"


def test_the_two_zeros_are_different_numbers():
    node = last("""
        graph @main() {
          %c = constant {value=[0.0,-0.0], dtype=f32, shape=[2]} : f32[2]
          %y = neg %c : f32[2]
          return %y
        }
    """)
    assert node.op == "neg"


def test_what_depends_on_inputs_stays():
    graph = parse_graph("""
        graph @main(%x: f32[4]) {
          %y = exp %x : f32[4]
          return %y
        }
    """)
    assert fold_constants(graph) is graph
