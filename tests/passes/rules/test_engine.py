"""The engine rewrites to a fixpoint, and only where nothing is lost: types, layouts, storage, work."""

from __future__ import annotations

import time

import numpy as np
import pytest

from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_graph
from effcc.passes.rules.engine import rewrite
from effcc.passes.rules.reader import load_all


def body(text: str) -> list[str]:
    """The nodes of the graph in `text` after rewriting by all rules, printed."""
    printed = print_graph(rewrite(parse_graph(text), load_all()).graph)
    return [line.strip() for line in printed.splitlines()[1:-1]]


def test_rules_apply_again_to_what_rules_made():
    assert body("""
        graph @main(%x: f32[4,6]) {
          %a = reshape %x {shape=[24]} : f32[24]
          %b = reshape %a {shape=[2,12]} : f32[2,12]
          %c = neg %b : f32[2,12]
          %d = neg %c : f32[2,12]
          %e = reshape %d {shape=[4,6]} : f32[4,6]
          %y = exp %e : f32[4,6]
          return %y
        }
    """) == ["%y = exp %x : f32[4,6]", "return %y"]


def test_symbolic_sizes_are_matched_where_they_are_provably_equal():
    assert body("""
        graph @main(%x: f32[s0,2*s1]) where s0 in 2..64, s1 in 2..64 {
          %a = reshape %x {shape=[2*s0*s1]} : f32[2*s0*s1]
          %b = reshape %a {shape=[s0,2*s1]} : f32[s0,2*s1]
          %y = exp %b : f32[s0,2*s1]
          return %y
        }
    """) == ["%y = exp %x : f32[s0,2*s1]", "return %y"]


def test_operands_of_commutative_ops_match_in_either_order():
    assert body("""
        graph @main(%x: f32[4]) {
          %one = constant {value=1.0, dtype=f32, shape=[]} : f32[]
          %a = mul %one, %x : f32[4]
          %y = exp %a : f32[4]
          return %y
        }
    """) == ["%y = exp %x : f32[4]", "return %y"]


def test_a_value_that_others_read_is_not_computed_twice():
    text = """
        graph @main(%x: f32[4,8], weight %w: f32[16,8], weight %b: f32[16]) {
          %h = linear %x, %w : f32[4,16]
          %a = add %h, %b : f32[4,16]
          %c = exp %h : f32[4,16]
          return %a, %c
        }
    """
    assert [line.split()[2] for line in body(text)[:-1]] == ["linear", "add", "exp"]


def test_a_bias_joins_a_product_that_nobody_else_reads():
    assert body("""
        graph @main(%x: f32[4,8], weight %w: f32[16,8], weight %b: f32[16]) {
          %h = linear %x, %w : f32[4,16]
          %y = add %h, %b : f32[4,16]
          return %y
        }
    """) == ["%y = linear %x, %w, %b : f32[4,16]", "return %y"]


def test_a_factor_does_not_go_into_values_that_are_no_weights():
    text = """
        graph @main(%x: f32[4,8], %w: f32[16,8]) {
          %c = constant {value=0.5, dtype=f32, shape=[]} : f32[]
          %h = linear %x, %w : f32[4,16]
          %y = mul %h, %c : f32[4,16]
          return %y
        }
    """
    assert any("mul %h, %c" in line for line in body(text))


def test_an_output_never_becomes_an_input():
    assert body("""
        graph @main(%x: f32[4]) {
          %y = reshape %x {shape=[4]} : f32[4]
          return %y
        }
    """) == ["%y = reshape %x {shape=[4]} : f32[4]", "return %y"]


def test_two_outputs_never_become_one():
    lines = body("""
        graph @main(%x: f32[4]) {
          %y = exp %x : f32[4]
          %z = reshape %y {shape=[4]} : f32[4]
          return %y, %z
        }
    """)
    assert lines[-1] == "return %y, %z"


def test_an_output_keeps_its_strides():
    assert body("""
        graph @main(%x: f32[4,8]) {
          %a = neg %x : f32[4,8]
          %b = abs %a : f32[4,8]{1,4}
          return %b
        }
    """) == ["%b = abs %x : f32[4,8]{1,4}", "return %b"]


def test_an_output_is_not_replaced_by_a_value_with_other_strides():
    lines = body("""
        graph @main(%x: f32[4,8]) {
          %a = exp %x : f32[4,8]
          %b = reshape %a {shape=[4,8]} : f32[4,8]{1,4}
          return %b
        }
    """)
    assert lines[-2].startswith("%b = reshape %a") and lines[-2].endswith("f32[4,8]{1,4}")


def test_a_constant_that_broadcasts_the_result_is_kept():
    lines = body("""
        graph @main(%x: f32[4]) {
          %ones = full {shape=[3,4], value=1.0, dtype=f32} : f32[3,4]
          %a = mul %x, %ones : f32[3,4]
          %y = exp %a : f32[3,4]
          return %y
        }
    """)
    assert any("mul" in line for line in lines)


def test_regions_are_rewritten_too():
    text = print_graph(rewrite(parse_graph("""
        graph @main(%c: bool[], %x: f32[4]) {
          %y = cond %c, %x
            graph @then(%x1: f32[4]) {
              %a = neg %x1 : f32[4]
              %b = neg %a : f32[4]
              %r1 = exp %b : f32[4]
              return %r1
            }
            graph @else(%x2: f32[4]) {
              %r2 = exp %x2 : f32[4]
              return %r2
            }
          : f32[4]
          return %y
        }
    """), load_all()).graph)  # fmt: skip
    assert "neg" not in text and "exp %x1" in text


@pytest.mark.parametrize("seed", range(5))
def test_rewriting_twice_changes_nothing_more(seed):
    graph = chain(40, seed)
    once = rewrite(graph, load_all()).graph
    again = rewrite(once, load_all())
    assert not again.fired and print_graph(again.graph) == print_graph(once)
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(run_graph(once, [x])[0], run_graph(graph, [x])[0])


def chain(length: int, seed: int):
    """A graph of views and signs, most of which do nothing."""
    random = np.random.default_rng(seed)
    lines, shape, at = [], (3, 4), "x"
    for i in range(length):
        kind = random.integers(4)
        if kind == 0:
            shape = [(3, 4), (4, 3), (12,), (2, 6)][random.integers(4)]
            node = f"reshape %{at} {{shape=[{','.join(map(str, shape))}]}}"
        elif kind == 1 and len(shape) == 2:
            shape = shape[::-1]
            node = f"transpose %{at} {{perm=[1,0]}}"
        else:
            node = f"{['neg', 'abs', 'relu'][random.integers(3)]} %{at}"
        at = f"v{i}"
        lines.append(f"%{at} = {node} : f32[{','.join(map(str, shape))}]")
    return parse_graph("graph @main(%x: f32[3,4]) {\n" + "\n".join(lines) + f"\nreturn %{at}\n}}")


def test_five_hundred_nodes_take_a_fraction_of_a_second():
    graph = chain(500, 0)
    rewrite(graph, load_all())
    began = time.process_time()
    rewrite(graph, load_all())
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(("number", "left"), [("4.0", "mul"), ("8388608.0", "div")])
def test_a_quotient_by_what_the_dtype_does_not_hold_stays_one(number: str, left: str) -> None:
    """2^23 is an infinity in f16, and 2^-23 is a number."""
    found = body(f"""
        graph @main(%x: f16[4]) {{
          %c = constant {{value={number}, dtype=f16, shape=[]}} : f16[]
          %y = div %x, %c : f16[4]
          return %y
        }}
    """)
    assert any(f"= {left} " in line for line in found)
