"""Kernels, graphs, loop nests and programs run with NumPy mean what the same computation written in NumPy means."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.errors import InputError, IRTypeError, UnsupportedError
from effcc.ir import dtypes
from effcc.ir.dtypes import f32, f64
from effcc.ir.graph import GraphBuilder
from effcc.ir.interpreter import evaluate as evaluation
from effcc.ir.interpreter import run_graph, run_kernel, run_loops, run_program
from effcc.ir.parser import parse_graph, parse_kernel, parse_loops, parse_program
from effcc.ir.types import tensor

RANDOM = np.random.default_rng(7)

ATTENTION = """
kernel @attention(Q: f32[m,8], K: f32[n,8], V: f32[n,4]) -> (O: f32[m,4]) over i=m, j=n, d=8, f=4 {
  S[i,j] = sum(d: Q[i,d] * K[j,d])
  M[i] = max(j: S[i,j])
  P[i,j] = exp(S[i,j] - M[i])
  D[i] = sum(j: P[i,j])
  A[i,f] = sum(j: P[i,j] * V[j,f])
  O[i,f] = A[i,f] / D[i]
}
"""


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    scores = q.astype(np.float64) @ k.T.astype(np.float64)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return p @ v / p.sum(axis=1, keepdims=True)


def test_softmax_rows_add_up_to_one() -> None:
    kernel = parse_kernel(
        "kernel @softmax(X: f32[4,n]) -> (P: f32[4,n]) over i=4, j=n {\n"
        "  M[i] = max(j: X[i,j])\n  E[i,j] = exp(X[i,j] - M[i])\n  D[i] = sum(j: E[i,j])\n  P[i,j] = E[i,j] / D[i]\n}"
    )
    x = normal(4, 9)
    p = run_kernel(kernel, {"X": x})["P"]
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(p, shifted / shifted.sum(axis=1, keepdims=True), rtol=1e-6)
    assert p.dtype == np.float32


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_online_attention_equals_three_passes(rows: int) -> None:
    factor = "rescale exp(M'[i] - M[i])"
    online = ATTENTION.replace("sum(j: P[i,j])", f"sum(j: P[i,j]) {factor}")
    online = online.replace("sum(j: P[i,j] * V[j,f])", f"sum(j: P[i,j] * V[j,f]) {factor}")
    arrays = {"Q": normal(5, 8), "K": 3 * normal(rows, 8), "V": normal(rows, 4)}
    expected = attention(arrays["Q"], arrays["K"], arrays["V"])
    for text in (ATTENTION, online):
        kernel = parse_kernel(text)
        np.testing.assert_allclose(run_kernel(kernel, arrays)["O"], expected, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(run_kernel(kernel, arrays, dtype=f64)["O"], expected, rtol=1e-12)


def test_a_wrong_rescale_factor_gives_a_wrong_sum() -> None:
    wrong = ATTENTION.replace("sum(j: P[i,j])", "sum(j: P[i,j]) rescale exp(M[i] - M'[i])")
    arrays = {"Q": normal(5, 8), "K": 3 * normal(16, 8), "V": normal(16, 4)}
    result = run_kernel(parse_kernel(wrong), arrays, dtype=f64)["O"]
    assert not np.allclose(result, attention(arrays["Q"], arrays["K"], arrays["V"]))


def test_padding_is_a_branch_that_guards_its_loads() -> None:
    kernel = parse_kernel(
        "kernel @conv(X: f32[n], W: f32[3]) -> (Y: f32[n]) over i=n, r=3 {\n"
        "  Y[i] = sum(r: W[r] * where(i + r - 1 >= 0 and i + r - 1 < n, X[i + r - 1], 0.0))\n}"
    )
    x, w = normal(11), normal(3)
    np.testing.assert_allclose(run_kernel(kernel, {"X": x, "W": w})["Y"], np.convolve(x, w[::-1], "same"), rtol=1e-5)


def test_a_load_outside_its_buffer_is_an_error_where_it_counts() -> None:
    text = "kernel @shift(X: f32[n]) -> (Y: f32[n]) over i=n {{\n  Y[i] = where(i > {}, X[i - 1], 0.0)\n}}"
    assert run_kernel(parse_kernel(text.format(0)), {"X": np.ones(3, np.float32)})["Y"].tolist() == [0, 1, 1]
    with pytest.raises(InputError, match="load of 'X': index -1 in dimension 0, whose size is 3"):
        run_kernel(parse_kernel(text.format(-1)), {"X": np.ones(3, np.float32)})


def test_concatenation_is_a_piecewise_domain() -> None:
    kernel = parse_kernel(
        "kernel @concat(A: f32[2,n], B: f32[3,n]) -> (Y: f32[5,n]) over i=5, j=n {\n"
        "  Y[i,j] = where(i < 2, A[i,j], B[i - 2,j])\n}"
    )
    a, b = normal(2, 4), normal(3, 4)
    np.testing.assert_array_equal(run_kernel(kernel, {"A": a, "B": b})["Y"], np.concatenate([a, b]))


def test_a_scan_axis_runs_in_order() -> None:
    kernel = parse_kernel(
        "kernel @cumsum(X: f32[3,n]) -> (Y: f32[3,n]) over i=3, t=n scan t {\n"
        "  Y[i,t] = where(t > 0, Y[i,t - 1], 0.0) + X[i,t]\n}"
    )
    x = normal(3, 6)
    np.testing.assert_allclose(run_kernel(kernel, {"X": x})["Y"], np.cumsum(x, axis=1), rtol=1e-5)


def test_statements_of_one_recurrence_advance_together() -> None:
    kernel = parse_kernel(
        "kernel @rnn(X: f32[n,2], U: f32[2,2]) -> (Y: f32[n,2]) over t=n, a=2, b=2 scan t {\n"
        "  G[t,a] = sum(b: U[a,b] * where(t > 0, H[t - 1,b], 0.0)) + X[t,a]\n"
        "  H[t,a]: f32 = tanh(G[t,a])\n  Y[t,a] = 2.0 * H[t,a]\n}"
    )
    x, u = normal(5, 2), normal(2, 2)
    state, expected = np.zeros(2), []
    for step in x:
        state = np.tanh(u @ state + step)
        expected.append(2 * state)
    np.testing.assert_allclose(run_kernel(kernel, {"X": x, "U": u})["Y"], expected, rtol=1e-5)


@pytest.mark.parametrize(("combine", "expected"), [("set", [3, 0, 4]), ("add", [4, 0, 6]), ("max", [3, 0, 4])])
def test_scatter_combines_in_order(combine: str, expected: list[float]) -> None:
    kernel = parse_kernel(
        "kernel @scatter(X: f32[4], I: i64[4]) -> (Y: f32[3]) over i=4, j=3 {\n"
        f"  Y[j] = 0.0\n  Y[I[i]] {combine}= X[i] for i\n}}"
    )
    arrays = {"X": np.array([1, 2, 3, 4], np.float32), "I": np.array([0, 2, 0, 2])}
    assert run_kernel(kernel, arrays)["Y"].tolist() == expected
    with pytest.raises(InputError, match="store to 'Y': index 3"):
        run_kernel(kernel, {**arrays, "I": np.array([0, 3, 0, 2])})


def test_an_output_can_be_updated_in_place() -> None:
    kernel = parse_kernel("kernel @put(X: f32[2]) -> (C: f32[4,2]) over j=2 {\n  C[1,j] set= X[j] for j\n}")
    cache = np.arange(8, dtype=np.float32).reshape(4, 2)
    result = run_kernel(kernel, {"X": np.array([-1, -2], np.float32), "C": cache})["C"]
    assert result.tolist() == [[0, 1], [-1, -2], [4, 5], [6, 7]]
    assert cache[1].tolist() == [2, 3]


def test_accumulators_have_the_dtype_they_say() -> None:
    text = "kernel @sum(X: f16[4096]) -> (Y: f32[]) over k=4096 {{\n  Y[] = {}\n}}"
    ones = {"X": np.full(4096, 1.001, np.float16)}
    wide = run_kernel(parse_kernel(text.format("sum(k: X[k])")), ones)["Y"]
    narrow = run_kernel(parse_kernel(text.format("cast<f32>(sum<f16>(k: X[k] * f16(16.0)))")), ones)["Y"]
    assert wide == 4096 * np.float32(np.float16(1.001))
    assert narrow == np.inf
    dot = (
        "kernel @dot(A: u8[300], B: i8[300]) -> (Y: i32[]) over k=300 {\n"
        "  Y[] = sum<i32>(k: cast<i32>(A[k]) * cast<i32>(B[k]))\n}"
    )
    arrays = {"A": np.full(300, 255, np.uint8), "B": np.full(300, -128, np.int8)}
    assert run_kernel(parse_kernel(dot), arrays)["Y"] == -128 * 255 * 300


def test_an_empty_axis_gives_the_identity() -> None:
    kernel = parse_kernel(
        "kernel @empty(X: f32[n]) -> (S: f32[], M: f32[]) over k=n {\n  S[] = sum(k: X[k])\n  M[] = max(k: X[k])\n}"
    )
    results = run_kernel(kernel, {"X": np.zeros(0, np.float32)})
    assert results["S"] == 0 and results["M"] == -np.inf


def test_large_boxes_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = parse_kernel(
        "kernel @sumexp(X: f32[6,50], Y: f32[7,50]) -> (Z: f32[6,7]) over i=6, j=7, k=50 {\n"
        "  Z[i,j] = sum(k: exp(X[i,k] + Y[j,k]))\n}"
    )
    arrays = {"X": normal(6, 50), "Y": normal(7, 50)}
    whole = run_kernel(kernel, arrays, dtype=f64)["Z"]
    for budget in (1, 10, 99):
        monkeypatch.setattr(evaluation, "BUDGET", budget)
        np.testing.assert_allclose(run_kernel(kernel, arrays, dtype=f64)["Z"], whole, rtol=1e-12)


def test_wrong_arrays_are_refused() -> None:
    kernel = parse_kernel("kernel @k(X: f32[n], Y: f32[n,2]) -> (Z: f32[n]) over i=n {\n  Z[i] = X[i] + Y[i,0]\n}")
    with pytest.raises(InputError, match="needs the parameter 'Y'"):
        run_kernel(kernel, {"X": normal(2)})
    with pytest.raises(InputError, match="'X': expected f32, got float64"):
        run_kernel(kernel, {"X": np.zeros(2), "Y": normal(2, 2)})
    with pytest.raises(InputError, match="'Y': expected size 2 in dimension 0"):
        run_kernel(kernel, {"X": normal(2), "Y": normal(3, 2)})
    with pytest.raises(InputError, match="'Y': expected 2 dimensions, got 1"):
        run_kernel(kernel, {"X": normal(2), "Y": normal(2)})


def test_a_graph_runs_by_the_references_of_its_ops() -> None:
    graph = parse_graph(
        "graph @g(%x: f32[n,3], weight %w: f32[4,3]) {\n  %t = transpose %w {perm=[1,0]} : f32[3,4]\n"
        "  %y = matmul %x, %t : f32[n,4]\n  %m = max %y {axes=[1], keepdim=false} : f32[n]\n"
        "  update %w, %w\n  return %m\n}"
    )
    x, w = normal(5, 3), normal(4, 3)
    result, update = run_graph(graph, [x, w])
    np.testing.assert_allclose(result, (x @ w.T).max(axis=1), rtol=1e-6)
    assert update is w
    assert run_graph(graph, [x, w], dtype=f64)[0].dtype == np.float64


def test_casts_to_narrow_floats_are_widened_with_the_rest() -> None:
    b = GraphBuilder("g")
    x = b.param("x", tensor(f32, 3))
    graph = b.build((b.emit("cast", b.emit("cast", x, dtype=dtypes.f16), dtype=f32),))
    values = np.array([1 / 3, 1e6, 1e-9])
    np.testing.assert_array_equal(run_graph(graph, [values], dtype=f64)[0], values)
    assert run_graph(graph, [values.astype(np.float32)])[0][1] == np.inf


def test_externs_need_a_callback() -> None:
    text = (
        'graph @g(%x: f32[2]) {\n  %y = extern %x {target="aten::rand_like", template=[], results=[[f32,[2]]], '
        'reason="random"} : f32[2]\n  return %y\n}'
    )
    graph = parse_graph(text)
    with pytest.raises(UnsupportedError, match="extern"):
        run_graph(graph, [normal(2)])
    (y,) = run_graph(graph, [normal(2)], externs=lambda node, arrays: [np.zeros(2, np.float32)])
    assert y.tolist() == [0, 0]


LOOPS = """
loops @matmul(A: f32[m,12], B: f32[4,12,8]) -> (O: f32[m,32]) {
  parallel m0 in 0..m step 4 {
    parallel n0 in 0..4 step 1 {
      alloc acc: f32[4,8] in register
      tile i=4 unroll, n=8 lanes: acc[i,n] = 0.0
      for k in 0..12 step 2 {
        tile i=4 unroll limit m - m0, n=8 lanes, u=2 loop: acc[i,n] add= A[m0 + i,k + u] * B[n0,k + u,n]
      }
      if m0 + 4 <= m {
        tile i=4 unroll, n=8 lanes: O[m0 + i,8 * n0 + n] = acc[i,n]
      } else {
        tile i=4 unroll limit m - m0, n=8 lanes: O[m0 + i,8 * n0 + n] = acc[i,n]
      }
    }
  }
}
"""


def test_loops_compute_what_their_tiles_say() -> None:
    a, b = normal(10, 12), normal(4, 12, 8)
    result = run_loops(parse_loops(LOOPS), {"A": a, "B": b})["O"]
    np.testing.assert_allclose(result, np.einsum("mk,jkn->mjn", a, b).reshape(10, 32), rtol=1e-5, atol=1e-5)


def test_what_a_loop_nest_never_wrote_is_nan() -> None:
    nest = parse_loops(LOOPS.replace("parallel n0 in 0..4", "parallel n0 in 1..4"))
    result = run_loops(nest, {"A": normal(4, 12), "B": normal(4, 12, 8)})["O"]
    assert np.isnan(result[:, :8]).all() and not np.isnan(result[:, 8:]).any()


def test_a_masked_tile_does_not_read_beyond_its_limit() -> None:
    nest = parse_loops(LOOPS.replace("i=4 unroll limit m - m0, n=8 lanes, u=2", "i=4 unroll, n=8 lanes, u=2"))
    with pytest.raises(InputError, match="load of 'A'"):
        run_loops(nest, {"A": normal(10, 12), "B": normal(4, 12, 8)})


def test_a_program_sees_memory_through_its_kernels_types() -> None:
    program = parse_program(
        """
        program @p(x, state) -> (y) {
          buffer x: f32[n,4] in input
          buffer state: f32[n,4] in input
          buffer turned: f32[4,n]{1,4} in arena
          buffer y: f32[4*n] in output
          kernel @turn(X: f32[n,4]) -> (Y: f32[4,n]{1,4}) over i=n, j=4 {
            Y[j,i] = maximum(X[i,j], 0.0)
          }
          kernel @flat(X: f32[4*n]) -> (Y: f32[4*n]) over i=4*n {
            Y[i] = -X[i]
          }
          main {
            launch @turn(x) -> (turned)
            launch @flat(turned) -> (y)
            launch @flat(y) -> (state)
          }
        }
        """
    )
    x, state = normal(3, 4), normal(3, 4)
    (y,) = run_program(program, [x, state])
    np.testing.assert_array_equal(y, -np.maximum(x, 0).ravel())
    np.testing.assert_array_equal(state, np.maximum(x, 0))


def test_an_alias_shares_memory() -> None:
    program = parse_program(
        """
        program @p(x) -> (y) {
          buffer x: f32[4] in input
          buffer y: f32[2,2] in output alias x
          kernel @add(X: f32[4]) -> (Y: f32[4]) over i=4 {
            Y[i] = X[i] + 1.0
          }
          main {
            launch @add(x) -> (x)
          }
        }
        """
    )
    x = np.zeros(4, np.float32)
    assert run_program(program, [x])[0].tolist() == [[1, 1], [1, 1]]
    assert x.tolist() == [1, 1, 1, 1]


def test_a_rescale_needs_a_running_reduction_over_its_axes() -> None:
    text = ATTENTION.replace("sum(j: P[i,j])", "sum(j: P[i,j]) rescale exp(S'[i,0] - M[i])")
    with pytest.raises(IRTypeError, match="no earlier reduction over"):
        run_kernel(parse_kernel(text), {"Q": normal(2, 8), "K": normal(3, 8), "V": normal(3, 4)})
