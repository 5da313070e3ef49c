"""The steps that fusion is made of: what each does to a graph, as text that parses again and computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.parser import parse_graph, parse_program
from effcc.ir.printer import print_program
from effcc.ir.verifier import verify_program
from effcc.steps import STEPS, State, run_steps, show
from effcc.target import generic

ATTENTION = """graph @attention(%q: f32[2,6,4], %k: f32[2,9,4], %v: f32[2,9,5]) {
  %t = transpose %k {perm=[0,2,1]} : f32[2,4,9]
  %s = matmul %q, %t : f32[2,6,9]
  %p = softmax %s {axis=-1} : f32[2,6,9]
  %o = matmul %p, %v : f32[2,6,5]
  return %o
}"""
GROUPS = """graph @groups(%x: f32[4,12], %w: f32[5,12]) {
  %r = reshape %x {shape=[4,3,4]} : f32[4,3,4]
  %m = sum %r {axes=[2]} : f32[4,3]
  %e = reshape %m {shape=[4,3,1]} : f32[4,3,1]
  %b = broadcast %e {shape=[4,3,4]} : f32[4,3,4]
  %f = reshape %b {shape=[4,12]} : f32[4,12]
  %d = sub %x, %f : f32[4,12]
  %y = linear %d, %w : f32[4,5]
  %a = relu %y : f32[4,5]
  %n = neg %a : f32[4,5]
  %z = transpose %n {perm=[1,0]} : f32[5,4]
  return %z
}"""
RUNNING = """graph @running(%x: f32[3,7]) {
  %c = cumsum %x {axis=1} : f32[3,7]
  %y = exp %c : f32[3,7]
  return %y
}"""
FUSION = tuple(STEPS)[tuple(STEPS).index("cascade") : tuple(STEPS).index("fuse") + 1]


def after(text: str, step: str) -> str:
    return show(run_steps(State(graph=parse_graph(text)), generic("avx2"), until=step), step)


@pytest.mark.parametrize("step", FUSION)
@pytest.mark.parametrize("text", [ATTENTION, GROUPS, RUNNING], ids=["attention", "groups", "running"])
def test_each_step_prints_a_program_that_computes_the_graph(text: str, step: str) -> None:
    printed = after(text, step)
    program = parse_program(printed)
    verify_program(program)
    assert print_program(program, locations=False) == printed
    random = np.random.default_rng(0)
    graph = parse_graph(text)
    inputs = [random.standard_normal([int(d) for d in p.type.shape]).astype(np.float32) for p in graph.params]
    for got, expected in zip(run_program(program, inputs), run_graph(graph, inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=3e-5, atol=1e-5)


def kernels(text: str) -> int:
    return text.count("kernel @")


def test_each_step_does_what_its_name_says() -> None:
    """Before `cluster`, every statement is a kernel of its own."""
    assert kernels(after(ATTENTION, "cascade")) == 6, "a transpose is read through: two products, softmax's four"
    assert kernels(after(GROUPS, "read_encoded")) == 5 and kernels(after(GROUPS, "inline")) == 4
    assert "x1[i,i1 // 4]" in after(GROUPS, "inline") and "x1[i,i1g]" in after(GROUPS, "group")
    assert kernels(after(ATTENTION, "cluster")) == kernels(after(GROUPS, "cluster")) == 1
    assert "k // 4" in after(GROUPS, "cluster") and "//" not in after(GROUPS, "split")
    assert "rescale" not in after(ATTENTION, "split")
    assert "rescale" in after(ATTENTION, "online")
