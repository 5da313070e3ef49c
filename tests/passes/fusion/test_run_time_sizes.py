"""Kernels over sizes known at run time only: what would need a buffer of such a size is cut, not refused."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.dependences import online_axis
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.parser import parse_any, parse_graph
from effcc.ir.printer import print_any
from effcc.ir.verifier import verify_any
from effcc.steps import State, run_steps
from effcc.target import Target

ROWS_OF_SCORES = """graph @rows(%x: f32[4,s0], %v: f32[s0,1]) where s0 in 2.. {
  %p = softmax %x {axis=-1, safe=false} : f32[4,s0]
  %y = matmul %p, %v : f32[4,1]
  return %y
}"""
COLUMNS_OF_VALUES = """graph @columns(%q: f32[2,1,s0], %k: f32[2,4,s0]) where s0 in 2.. {
  %s = einsum %q, %k {spec="bmd,bnd->bmn"} : f32[2,1,4]
  %p = softmax %s {axis=-1, safe=false} : f32[2,1,4]
  %y = matmul %p, %k : f32[2,1,s0]
  return %y
}"""
SCATTER_AFTER_TWO_READERS = """graph @g(%x: f32[9,s0,s0,1], %i: i64[7,4,s0,1], %v: f32[7,4,s0,1]) where s0 in 2.. {
  %r = relu %x : f32[9,s0,s0,1]
  %g = sigmoid %r : f32[9,s0,s0,1]
  %a = acos %g : f32[9,s0,s0,1]
  %s = scatter %r, %i, %v {axis=-3, combine="add"} : f32[9,s0,s0,1]
  return %a, %s
}"""
SUM_OF_A_PRODUCT = """graph @sum(%x: f32[s0,1,2], %y: f32[s0,2,s0]) where s0 in 2.. {
  %m = matmul %x, %y : f32[s0,1,s0]
  %t = tanh %m : f32[s0,1,s0]
  %s = sum %t {axes=[-1,-2], keepdim=false} : f32[s0]
  return %s
}"""
SCATTER_OF_KNOWN_SIZE = """graph @into(%x: f32[s0], %i: i64[3], %v: f32[3]) where s0 in 2.. {
  %s = scatter %x, %i, %v {axis=-1, combine="add"} : f32[s0]
  return %s
}"""

INDEX_WRAPPED_BY_A_SIZE_OF_ANOTHER = """graph @put(%x: f32[s1,2,s0], %v: f32[1,2,s0], %i: i64[1])
where s0 in 2.., s1 in 2.. {
  %y = index_put %x, %v, %i {axes=[0], combine="set"} : f32[s1,2,s0]
  return %y
}"""
TEXTS = [
    ROWS_OF_SCORES, COLUMNS_OF_VALUES, SUM_OF_A_PRODUCT, SCATTER_AFTER_TWO_READERS, SCATTER_OF_KNOWN_SIZE,
    INDEX_WRAPPED_BY_A_SIZE_OF_ANOTHER,
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [2, 37])
def test_a_graph_of_run_time_sizes_goes_through_all_steps(text: str, size: int) -> None:
    graph = parse_graph(text)
    random = np.random.default_rng(0)
    inputs = []
    for p in graph.params:
        shape = tuple(d if isinstance(d, int) else size for d in p.type.shape)
        drawn = random.uniform(-1, 1, shape) if p.type.dtype.is_float else random.integers(0, 2, shape)
        inputs.append(drawn.astype(p.type.dtype.numpy))
    state = run_steps(State(graph=graph), Target.parse("avx2"))
    assert state.program is not None
    found = run_program(state.program, inputs, nests=state.nests)
    for value in (state.program, *state.nests.values()):
        verify_any(value, state.program)
        assert print_any(parse_any(print_any(value))) == print_any(value)
    for got, expected in zip(found, run_graph(graph, inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_what_divides_by_a_size_for_each_element_is_no_epilogue_of_a_product() -> None:
    graph = parse_graph("""graph @g(%x: f32[4,8], %w: f32[8,s0], %v: f32[2,s0,2]) where s0 in 2.. {
      %m = matmul %x, %w : f32[4,s0]
      %r = reshape %v {shape=[4,s0]} : f32[4,s0]
      %y = add %m, %r : f32[4,s0]
      return %y
    }""")
    program = run_steps(State(graph=graph), Target.parse("avx2"), until="cluster").program
    assert program is not None and len(program.steps) == 2


ATTENTION = """graph @attention(%q: f32[2,s0,8], %k: f32[2,s1,8], %v: f32[2,s1,4]) where s0 in 2.., s1 in 2.. {
  %s = einsum %q, %k {spec="bmd,bnd->bmn"} : f32[2,s0,s1]
  %p = softmax %s {axis=-1, safe=false} : f32[2,s0,s1]
  %y = matmul %p, %v : f32[2,s0,4]
  return %y
}"""


@pytest.mark.parametrize("keys", [5, 130])
def test_attention_over_a_run_time_number_of_keys_takes_one_pass(keys: int) -> None:
    graph = parse_graph(ATTENTION)
    state = run_steps(State(graph=graph), Target.parse("avx2"))
    assert state.program is not None
    (kernel,) = state.program.kernels.values()
    assert online_axis(kernel) is not None
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal(s).astype(np.float32) for s in ((2, 9, 8), (2, keys, 8), (2, keys, 4)))
    (found,) = run_program(state.program, [q, k, v], nests=state.nests)
    np.testing.assert_allclose(found, run_graph(graph, [q, k, v])[0], rtol=1e-5, atol=1e-6)


def test_rows_of_run_time_length_that_one_pass_does_not_finish_are_kernels_of_their_own() -> None:
    weights_too = ATTENTION.replace("return %y", "return %y, %p")
    program = run_steps(State(graph=parse_graph(weights_too)), Target.parse("avx2")).program
    assert program is not None and len(program.kernels) > 1
    assert all(online_axis(kernel) is None for kernel in program.kernels.values())
