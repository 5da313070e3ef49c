"""Dead code goes, equal expressions are shared, and what must happen happens."""

from __future__ import annotations

import textwrap

from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_graph
from effcc.passes.dead_code import remove_dead_code, share_common_subexpressions


def text(source: str) -> str:
    return textwrap.dedent(source).strip()


def test_what_reaches_no_result_is_removed():
    graph = parse_graph("""
        graph @main(%x: f32[4]) {
          %a = exp %x : f32[4]
          %dead = neg %a : f32[4]
          %deader = neg %dead : f32[4]
          return %a
        }
    """)
    assert print_graph(remove_dead_code(graph)).strip() == text("""
        graph @main(%x: f32[4]) {
          %a = exp %x : f32[4]
          return %a
        }
    """)


def test_the_value_of_an_update_is_alive():
    graph = parse_graph("""
        graph @main(%cache: f32[4], %x: f32[4]) {
          %new = add %cache, %x : f32[4]
          %y = exp %x : f32[4]
          update %cache, %new
          return %y
        }
    """)
    assert remove_dead_code(graph) is graph


def test_equal_nodes_are_shared_whatever_depends_on_them():
    graph = parse_graph("""
        graph @main(%x: f32[4,8]) {
          %a = sum %x {axes=[1]} : f32[4]
          %b = sum %x {axes=[1]} : f32[4]
          %c = exp %a : f32[4]
          %d = exp %b : f32[4]
          %y = add %c, %d : f32[4]
          return %y
        }
    """)
    shared = share_common_subexpressions(graph)
    assert [n.op for n in shared.nodes] == ["sum", "exp", "add"]


def test_attributes_that_only_look_equal_keep_nodes_apart():
    graph = parse_graph("""
        graph @main(%x: f32[4]) {
          %zero = constant {value=0.0, dtype=f32, shape=[]} : f32[]
          %minus = constant {value=-0.0, dtype=f32, shape=[]} : f32[]
          %a = add %x, %zero : f32[4]
          %b = add %x, %minus : f32[4]
          %y = div %a, %b : f32[4]
          return %y
        }
    """)
    assert len(share_common_subexpressions(graph).nodes) == len(graph.nodes)


def test_two_outputs_keep_storage_of_their_own():
    graph = parse_graph("""
        graph @main(%x: f32[4]) {
          %a = exp %x : f32[4]
          %b = exp %x : f32[4]
          return %a, %b
        }
    """)
    assert len(share_common_subexpressions(graph).nodes) == 2
