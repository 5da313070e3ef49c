"""Simplification by all rules together: the forms that real models arrive in, and what they become."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.dtypes import f64
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.parser import parse_graph
from effcc.passes.fusion.fuse import fuse
from effcc.passes.rules.reader import load_all
from effcc.passes.simplify import simplify, simplify_counted
from effcc.target import generic

# What attention looks like after PyTorch's decompositions: scaled factors, a mask, and a guard for rows of -inf.
ATTENTION = """
graph @attention(%x: f32[1,6,8], %mask: i64[1,6], weight %q: f32[8,8], weight %k: f32[8,8], weight %v: f32[8,8],
                 weight %b: f32[8]) {
  %truth = cast %mask {dtype=bool} : bool[1,6]
  %zero_row = full {shape=[1,1,1,1], value=0, dtype=i64} : i64[1,1,1,1]
  %i = iota {size=6} : i64[6]
  %columns = reshape %i {shape=[1,1,1,6]} : i64[1,1,1,6]
  %rows = reshape %i {shape=[1,1,6,1]} : i64[1,1,6,1]
  %zero = constant {value=0, dtype=i64, shape=[]} : i64[]
  %always = ge %rows, %zero : bool[1,1,6,1]
  %picked = index %truth, %zero_row, %columns {axes=[0,1]} : bool[1,1,1,6]
  %allowed = and %always, %picked : bool[1,1,6,6]
  %nothing = constant {value=0.0, dtype=f32, shape=[]} : f32[]
  %never = constant {value=-inf, dtype=f32, shape=[]} : f32[]
  %bias = where %allowed, %nothing, %never : f32[1,1,6,6]
  %root = constant {value=0.7071067811865476, dtype=f32, shape=[]} : f32[]
  %ql = linear %x, %q, %b : f32[1,6,8]
  %qh = reshape %ql {shape=[1,6,2,4]} : f32[1,6,2,4]
  %qt = transpose %qh {perm=[0,2,1,3]} : f32[1,2,6,4]
  %qs = mul %qt, %root : f32[1,2,6,4]
  %kl = linear %x, %k : f32[1,6,8]
  %kh = reshape %kl {shape=[1,6,2,4]} : f32[1,6,2,4]
  %kt = transpose %kh {perm=[0,2,3,1]} : f32[1,2,4,6]
  %ks = mul %kt, %root : f32[1,2,4,6]
  %vl = linear %x, %v : f32[1,6,8]
  %vh = reshape %vl {shape=[1,6,2,4]} : f32[1,6,2,4]
  %vt = transpose %vh {perm=[0,2,1,3]} : f32[1,2,6,4]
  %scores = matmul %qs, %ks : f32[1,2,6,6]
  %masked = add %scores, %bias : f32[1,2,6,6]
  %soft = softmax %masked {axis=3} : f32[1,2,6,6]
  %hidden = eq %masked, %never : bool[1,2,6,6]
  %visible = not %hidden : bool[1,2,6,6]
  %some = any %visible {axes=[3], keepdim=true} : bool[1,2,6,1]
  %none = not %some : bool[1,2,6,1]
  %zeros = full {shape=[1,2,6,6], value=0, dtype=f32} : f32[1,2,6,6]
  %safe = where %none, %zeros, %soft : f32[1,2,6,6]
  %o = matmul %safe, %vt : f32[1,2,6,4]
  %ot = transpose %o {perm=[0,2,1,3]} : f32[1,6,2,4]
  %y = reshape %ot {shape=[1,6,8]} : f32[1,6,8]
  return %y
}
"""


@pytest.mark.parametrize("fast_math", [False, True])
def test_attention_becomes_products_around_one_safe_softmax(fast_math):
    simple = simplify(parse_graph(ATTENTION), fast_math)
    found = [
        n.op
        for n in simple.nodes
        if n.op in ("linear", "matmul", "einsum", "softmax", "transpose", "any", "index", "broadcast")
    ]
    assert found == ["linear", "linear", "linear", "einsum", "softmax", "einsum"]
    (softmax,) = (n for n in simple.nodes if n.op == "softmax")
    assert softmax.attrs["safe"] is True
    producers = simple.producers()
    scores = producers[producers[softmax.operands[0]].operands[0]]
    assert scores.op == "einsum", "nothing stands between product and mask"
    scales = [n for n in simple.nodes if n.op == "mul" and n.operands[1].type.shape == ()]
    weights = {p for p in simple.params if p.name in simple.weights}
    of_weights = [n for n in scales if n.operands[0] in weights]
    assert len(of_weights) == (3 if fast_math else 0), "of two matrices and a bias"
    assert len(scales) - len(of_weights) == (0 if fast_math else 2), "of queries and keys"


@pytest.mark.parametrize("fast_math", [False, True])
@pytest.mark.parametrize("masked", [0, 2, 6])
def test_simplified_attention_is_as_near_to_float64_as_attention_was(masked, fast_math):
    graph = parse_graph(ATTENTION)
    random = np.random.default_rng(masked)
    shapes = [tuple(p.type.shape) for p in graph.params]
    inputs = [random.standard_normal(s).astype(np.float32) for s in shapes]
    inputs[1] = np.array([[1] * (6 - masked) + [0] * masked])
    (exact,) = run_graph(graph, inputs, dtype=f64)
    before, after = (np.abs(run_graph(g, inputs)[0] - exact).max() for g in (graph, simplify(graph, fast_math)))
    assert after <= 4 * before + 2 * np.finfo(np.float32).eps * np.abs(exact).max()


def test_the_count_says_which_rules_fired():
    fired = simplify_counted(parse_graph(ATTENTION), fast_math=True).fired
    assert fired["safe_softmax"] == 1 and fired["scale_linear"] == 1 and fired["scale_linear_with_bias"] == 1
    fired = simplify_counted(parse_graph(ATTENTION)).fired
    assert fired["safe_softmax"] == 1
    assert all(rule.claim.is_safe for rule in load_all().rules if fired[rule.name])


def test_a_simplified_graph_is_simple():
    once = simplify(parse_graph(ATTENTION))
    again = simplify_counted(once)
    assert again.graph is once and not again.fired


def test_with_fast_math_batch_norm_at_inference_leaves_one_convolution_to_run():
    simple = simplify(
        parse_graph("""
        graph @block(%x: f32[1,3,8,8], weight %w: f32[4,3,3,3],
                     weight %m: f32[4], weight %v: f32[4], weight %g: f32[4], weight %h: f32[4]) {
          %c = convolution %x, %w {stride=[1,1], padding=[1,1], dilation=[1,1]} : f32[1,4,8,8]
          %n = batch_norm %c, %m, %v, %g, %h {eps=1e-05} : f32[1,4,8,8]
          %y = relu %n : f32[1,4,8,8]
          return %y
        }
    """),
        fast_math=True,
    )
    depends_on_x = set(simple.params[:1])
    at_run_time = []
    for node in simple.nodes:
        if depends_on_x.intersection(node.operands):
            depends_on_x.update(node.results)
            at_run_time.append(node.op)
    assert at_run_time == ["convolution", "relu"]


def test_gelu_as_gpt2_writes_it_is_one_op():
    simple = simplify(
        parse_graph("""
        graph @gelu(%x: f32[4,8]) {
          %half = constant {value=0.5, dtype=f32, shape=[]} : f32[]
          %three = constant {value=3.0, dtype=f32, shape=[]} : f32[]
          %small = constant {value=0.044715, dtype=f32, shape=[]} : f32[]
          %root = constant {value=0.7978845608028654, dtype=f32, shape=[]} : f32[]
          %one = constant {value=1.0, dtype=f32, shape=[]} : f32[]
          %a = mul %x, %half : f32[4,8]
          %b = pow %x, %three : f32[4,8]
          %c = mul %b, %small : f32[4,8]
          %d = add %x, %c : f32[4,8]
          %e = mul %d, %root : f32[4,8]
          %f = tanh %e : f32[4,8]
          %g = add %f, %one : f32[4,8]
          %y = mul %a, %g : f32[4,8]
          return %y
        }
    """)
    )
    (node,) = simple.nodes
    assert (node.op, node.attrs["approximate"]) == ("gelu", "tanh")


def test_a_layer_norm_written_by_hand_is_one_op_whose_variance_stays_finite():
    graph = parse_graph("""
        graph @norm(%x: f32[2,5], %w: f32[5]) {
          %mean = mean %x {axes=[1], keepdim=true} : f32[2,1]
          %var = var %x {axes=[1], keepdim=true, correction=0} : f32[2,1]
          %eps = full {shape=[2,1], value=1e-05, dtype=f32} : f32[2,1]
          %sum = add %var, %eps : f32[2,1]
          %scale = rsqrt %sum : f32[2,1]
          %d = sub %x, %mean : f32[2,5]
          %n = mul %d, %scale : f32[2,5]
          %y = mul %n, %w : f32[2,5]
          return %y
        }""")
    simple = simplify(graph)
    assert [n.op for n in simple.nodes] == ["layer_norm"]
    x = (np.array([[-3, -1, 0, 1, 3], [1, 2, 3, 4, 5]]) * [[2e19], [1]]).astype(np.float32)
    w = np.ones(5, np.float32)
    (got,), (wanted,) = run_program(fuse(simple, generic("avx2")), [x, w]), run_graph(graph, [x, w])
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
