"""Axes that every access walks as one become one; axes that any access takes apart stay."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.errors import IRTypeError
from effcc.gpu import parse
from effcc.ir.interpreter import run_kernel
from effcc.ir.parser import parse_graph, parse_kernel
from effcc.ir.program import Buffer, Launch, Program
from effcc.ir.verifier import verify_kernel
from effcc.passes.tiling.axes import settle, verify_settled
from effcc.passes.tiling.merge import merge_axes
from effcc.steps import State, run_steps
from effcc.target import generic


def axes(text: str) -> dict[str, str]:
    merged = merge_axes(parse_kernel(text))
    verify_kernel(merged)
    return {name: str(extent) for name, extent in merged.axes}


LINEAR = """
    kernel @linear(X: f32[2,7,5,9], W: f32[6,9], B: f32[6]) -> (Y: f32[2,7,5,6]) over b=2, y=7, x=5, n=6, k=9 {
      H[b,y,x,n] = sum(k: X[b,y,x,k] * W[n,k])
      Y[b,y,x,n] = exp(H[b,y,x,n] + B[n])
    }
"""


def test_batch_and_rows_become_one_axis():
    assert axes(LINEAR) == {"b_y_x": "70", "n": "6", "k": "9"}


def test_a_merged_kernel_computes_the_same():
    kernel, random = parse_kernel(LINEAR), np.random.default_rng(0)
    arrays = {p.name: random.standard_normal(p.type.shape).astype(np.float32) for p in kernel.params}
    merged = merge_axes(kernel)
    seen = {p.name: arrays[p.name].reshape(p.type.shape) for p in merged.params}
    (wanted,), (got,) = run_kernel(kernel, arrays).values(), run_kernel(merged, seen).values()
    np.testing.assert_array_equal(got.reshape(wanted.shape), wanted)


def test_reduced_axes_are_merged_too():
    assert axes("""
        kernel @mean(X: f32[4,7,5]) -> (Y: f32[4]) over c=4, y=7, x=5 {
          Y[c] = sum(y, x: X[c,y,x])
        }
    """) == {"c": "4", "y_x": "35"}


def test_axes_that_are_one_index_already_are_merged_with_those_that_stand_side_by_side():
    text = """
        kernel @k(X: f32[3,2,8], Q: f32[6,48], S: f32[6,6]) -> (Y: f32[6]) over n=6, h=3, g=2, k=8 {
          Y[n] = sum(h, g, k: X[h,g,k] * Q[n,(h * 2 + g) * 8 + k] * S[n,h * 2 + g])
        }
    """
    assert axes(text) == {"n": "6", "h_g": "6", "k": "8"}, "S has no k"
    assert axes(text.replace("h * 2 + g]", "g * 3 + h]")) == {"n": "6", "h": "3", "g": "2", "k": "8"}
    kernel, random = parse_kernel(text), np.random.default_rng(0)
    arrays = {p.name: random.integers(-9, 9, p.type.shape).astype(np.float32) for p in kernel.params}
    merged = merge_axes(kernel)
    given = {p.name: arrays[p.name].reshape([int(str(n)) for n in p.type.shape]) for p in merged.params}
    np.testing.assert_array_equal(run_kernel(merged, given)["Y"], run_kernel(kernel, arrays)["Y"])


def test_a_run_time_size_may_be_the_outer_one():
    assert axes("""
        kernel @k(X: f32[s0,5]) -> (Y: f32[s0,5]) over i=s0, j=5 {
          Y[i,j] = exp(X[i,j])
        }
    """) == {"i_j": "5*s0"}
    assert axes("""
        kernel @k(X: f32[5,s0]) -> (Y: f32[5,s0]) over i=5, j=s0 {
          Y[i,j] = exp(X[i,j])
        }
    """) == {"i": "5", "j": "s0"}


@pytest.mark.parametrize(
    ("why", "statement"),
    [
        ("read alone", "Y[i,j] = X[i,j] + B[j]"),
        ("offset", "Y[i,j] = X[i,j] + where(j > 0, X[i,j - 1], 0.0)"),
        ("compared", "Y[i,j] = where(i <= j, X[i,j], 0.0)"),
        ("transposed", "Y[i,j] = X[i,j] + X[j,i]"),
        ("one reduced, one kept", "Z[i] = sum(j: X[i,j])\n  Y[i,j] = X[i,j] - Z[i]"),
    ],
)
def test_axes_that_an_access_takes_apart_stay(why, statement):
    text = f"kernel @k(X: f32[6,6], B: f32[6]) -> (Y: f32[6,6]) over i=6, j=6 {{\n  {statement}\n}}"
    assert axes(text) == {"i": "6", "j": "6"}, why


def test_rows_that_are_padded_apart_in_memory_stay():
    text = "kernel @k(X: f32[6,6]{8,1}) -> (Y: f32[6,6]) over i=6, j=6 {\n  Y[i,j] = exp(X[i,j])\n}"
    assert axes(text) == {"i": "6", "j": "6"}
    dense = "kernel @k(X: f32[3,6,6]{40,6,1}) -> (Y: f32[3,6,6]) over c=3, i=6, j=6 {\n  Y[c,i,j] = exp(X[c,i,j])\n}"
    assert axes(dense) == {"c": "3", "i_j": "36"}


def test_an_axis_in_an_online_reduction_or_a_scan_stays():
    assert axes("""
        kernel @k(X: f32[4,3,5]) -> (Y: f32[4,3,5]) over t=4, i=3, j=5 scan t {
          Y[t,i,j] = where(t > 0, Y[t - 1,i,j], 0.0) + X[t,i,j]
        }
    """) == {"t": "4", "i_j": "15"}


def test_axes_are_settled_once_and_the_verifier_says_where_they_are_not():
    kernel = parse_kernel("""
    kernel @copy(X: f32[4,8]) -> (Y: f32[4,8]) over i=4, j=8 {
      Y[i,j] = exp(X[i,j])
    }""")
    buffers = tuple(Buffer(p.name, p.type, s) for p, s in zip(kernel.signature, ("input", "output"), strict=True))
    program = Program("p", buffers, ("X",), ("Y",), {"copy": kernel}, (Launch("copy", ("X",), ("Y",)),))
    with pytest.raises(IRTypeError, match="kernel @copy: all accesses walk i, j as one axis"):
        verify_settled(program)
    for target in (generic("avx2"), parse("sm_80").as_target()):
        settled = settle(program, target)
        verify_settled(settled)
        assert settle(settled, target) == settled


def test_a_filter_is_packed_along_all_that_it_sums_at_once():
    graph = parse_graph("""graph @layer(%x: f32[1,64,20,20], weight %w: f32[64,64,3,3]) {
      %y = convolution %x, %w {stride=[1,1], padding=[1,1], dilation=[1,1], groups=1} : f32[1,64,20,20]
      return %y
    }""")
    program = run_steps(State(graph=graph), generic("avx512"), until="tile").program
    packers = [program.kernels[s.kernel] for s in program.prepare]
    assert [dict(k.axes) for k in packers] == [{"o_panel": 2, "c_k_k1": 576, "o_lane": 32}]
