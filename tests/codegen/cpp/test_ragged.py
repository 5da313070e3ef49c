"""Kernels over ragged axes, from text to machine code: rows of compressed matrices, groups of experts, sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.ir.interpreter import run_kernel, run_loops
from effcc.ir.parser import parse_kernel
from effcc.ir.verifier import verify_any
from effcc.ir.verifier.schedules import verify_schedule
from effcc.passes.balance import cut_spans
from effcc.passes.fusion.polyhedra import guard_accesses
from effcc.passes.tiling.axes import settle_axes
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.merge import merge_axes
from effcc.runtime.cache import CompileCache
from effcc.target import Target
from tests.codegen.cpp.running import run_nest

Arrays = dict[str, np.ndarray[Any, Any]]

COMPRESSED_ROWS = """
    kernel @csr(P: i32[7], C: i32[z], V: f32[z], X: f32[12,40]) -> (Y: f32[6,40]) over i=6, f=40, j=z {
      S[i,f] = sum(j in cast<i64>(P[i])..cast<i64>(P[i + 1]): V[j] * X[cast<i64>(C[j]),f])
      Y[i,f] = maximum(S[i,f], 0.0)
    }
"""
SUMS = """
    kernel @sums(P: i64[7], V: f32[z]) -> (Y: f32[6], M: f32[6]) over i=6, j=z {
      Y[i] = sum(j in P[i]..P[i + 1]: V[j] * V[j])
      M[i] = max(j in P[i]..P[i + 1]: V[j])
    }
"""
EXPERTS = """
    kernel @experts(P: i64[5], X: f32[z,24], V: f32[z,40]) -> (W: f32[4,24,40]) over e=4, k=24, f=40, t=z {
      W[e,k,f] = sum(t in P[e]..P[e + 1]: X[t,k] * V[t,f])
    }
"""
ROUTED = """
    kernel @routed(P: i64[5], V: f32[z,24], W: f32[4,24,70], B: f32[4,70]) -> (Y: f32[z,70])
      over g=4, j=z, n=70, k=24, r=z, m=70 {
      T[g,j,n] = sum(k: V[j,k] * W[g,k,n])
      U[g,j,n] = maximum(T[g,j,n] + B[g,n], 0.0)
      Y[j,n] set= U[g,j,n] for g, j in P[g]..P[g + 1], n
      Y[r,m] set= 0.0 for r in P[4]..z, m
    }
"""
SEQUENCES = """
    kernel @attention(Q: f32[21,8], K: f32[21,8], V: f32[21,16], B: i64[21], P: i64[5]) -> (O: f32[21,16])
      over m=21, n=21, d=8, f=16 {
      S[m,n] = sum(d: Q[m,d] * K[n,d])
      M[m] = max(n in P[B[m]]..P[B[m] + 1]: S[m,n])
      W[m,n] = exp(S[m,n] - M[m])
      D[m] = sum(n in P[B[m]]..P[B[m] + 1]: W[m,n])
      A[m,f] = sum(n in P[B[m]]..P[B[m] + 1]: W[m,n] * V[n,f])
      O[m,f] = A[m,f] / D[m]
    }
"""


def computed(text: str, arrays: Arrays, target: Target, cache: CompileCache) -> Arrays:
    """The outputs of a kernel's machine code; the interpreters of kernel and loops must agree."""
    (found,) = computed_by_teams(text, arrays, target, cache, (2,))
    return found


def computed_by_teams(
    text: str, arrays: Arrays, target: Target, cache: CompileCache, teams: Sequence[int]
) -> list[Arrays]:
    """What `computed` gives, for each of some numbers of threads: interpreters have none, and run once."""
    kernel = guard_accesses(merge_axes(parse_kernel(text)))
    verify_any(kernel)
    kernel, schedule = choose(kernel, target)
    verify_schedule(kernel, schedule)
    nest = lower(kernel, schedule)
    verify_any(nest)
    meant, looped = run_kernel(kernel, arrays), run_loops(nest, arrays)
    results = []
    for threads in teams:
        found = {name: np.full_like(value, np.nan) for name, value in meant.items()}
        run_nest(nest, {**arrays, **found}, target, cache, {"z": len(arrays["V"])}, threads)
        for name, value in meant.items():
            np.testing.assert_allclose(looped[name], value, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
        results.append(found)
    return results


SPANS = {
    "rows of all lengths": [0, 1, 1, 18, 19, 30, 30],
    "all in one row": [0, 0, 0, 30, 30, 30, 30],
    "none": [0, 0, 0, 0, 0, 0, 0],
    "outside and backwards": [-5, 3, 90, 7, 2, 30, 1 << 30],
}


@pytest.mark.parametrize("ends", SPANS.values(), ids=SPANS)
def test_a_compressed_matrix_times_a_dense_one(target: Target, cache: CompileCache, ends: list[int]) -> None:
    random = np.random.default_rng(0)
    arrays: Arrays = {
        "P": np.array(ends, np.int32),
        "C": random.integers(-1, 13, 30).astype(np.int32),  # now and then outside, which counts as 0
        "V": random.standard_normal(30).astype(np.float32),
        "X": random.standard_normal((12, 40)).astype(np.float32),
    }
    (y,) = computed(COMPRESSED_ROWS, arrays, target, cache).values()
    if ends == SPANS["rows of all lengths"]:
        dense = np.zeros((6, 12))
        rows = np.repeat(np.arange(6), np.diff(ends))
        inside = (arrays["C"] >= 0) & (arrays["C"] < 12)
        np.add.at(dense, (rows[inside], arrays["C"][inside]), arrays["V"][inside])
        np.testing.assert_allclose(y, np.maximum(dense @ arrays["X"], 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 33, 100, 1000])
def test_sums_of_segments_with_lanes_along_them(target: Target, cache: CompileCache, count: int) -> None:
    v = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    ends = np.array([0, 0, count // 3, count // 2, count // 2, count, count])
    found = computed(SUMS, {"P": ends, "V": v}, target, cache)
    np.testing.assert_allclose(
        found["Y"][2], (v[count // 3 : count // 2].astype(float) ** 2).sum(), rtol=1e-5, atol=1e-6
    )
    assert found["M"][0] == -np.inf


def test_weights_of_experts_learn_from_their_own_tokens(target: Target, cache: CompileCache) -> None:
    random = np.random.default_rng(3)
    ends = np.array([0, 70, 70, 71, 100])
    x, v = ((random.standard_normal((100, n)) / 4).astype(np.float32) for n in (24, 40))
    (w,) = computed(EXPERTS, {"P": ends, "X": x, "V": v}, target, cache).values()
    for e, (start, stop) in enumerate(pairwise(ends)):
        np.testing.assert_allclose(w[e], x[start:stop].astype(float).T @ v[start:stop], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ends", [[0, 1, 9, 9, 40], [0, 0, 0, 0, 0], [0, 40, 40, 40, 47]], ids=str)
def test_rows_of_groups_times_their_own_matrices(target: Target, cache: CompileCache, ends: list[int]) -> None:
    random = np.random.default_rng(4)
    arrays: Arrays = {
        "P": np.array(ends),
        "V": random.standard_normal((47, 24)).astype(np.float32),
        "W": random.standard_normal((4, 24, 70)).astype(np.float32),
        "B": random.standard_normal((4, 70)).astype(np.float32),
    }
    (y,), (one,) = (found.values() for found in computed_by_teams(ROUTED, arrays, target, cache, (3, 1)))
    assert (y == one).all()
    for g, (start, stop) in enumerate(pairwise(ends)):
        x, w, b = (arrays[n].astype(float) for n in "VWB")
        np.testing.assert_allclose(y[start:stop], np.maximum(x[start:stop] @ w[g] + b[g], 0), rtol=1e-4, atol=1e-4)
    assert not y[ends[-1] :].any()


CUT = (
    COMPRESSED_ROWS.replace("[z]", "[900]")
    .replace("j=z", "j=900")
    .replace("cast<i64>(P[i + 1])", "where(holds(P[i] <= P[i + 1], 0), cast<i64>(P[i + 1]), 0)")
)


def test_rows_in_pieces_are_the_same_for_any_threads(target: Target, cache: CompileCache) -> None:
    two = replace(target, cores=2)
    kernel = cut_spans(guard_accesses(parse_kernel(CUT)), 2, shortest=16, least=0)
    assert kernel is not None
    kernel, schedule = choose(settle_axes(kernel, two), two)
    verify_schedule(kernel, schedule)
    nest = lower(kernel, schedule)
    verify_any(nest)
    random = np.random.default_rng(5)
    for ends in ([0, 3, 700, 710, 890, 900, 900], [0, 150, 300, 450, 600, 750, 900], [0] * 7, [0, 900, *[900] * 5]):
        arrays: Arrays = {
            "P": np.array(ends, np.int32),
            "C": random.integers(0, 12, 900).astype(np.int32),
            "V": random.standard_normal(900).astype(np.float32),
            "X": random.standard_normal((12, 40)).astype(np.float32),
        }
        results = []
        for threads in (1, 2, 3):
            made = {p.name: np.zeros([int(d) for d in p.type.shape], p.type.dtype.numpy) for p in nest.outputs}
            run_nest(nest, {**arrays, **made}, target, cache, threads=threads)
            results.append(made["Y"])
        np.testing.assert_allclose(results[0], run_kernel(parse_kernel(CUT), arrays)["Y"], rtol=1e-4, atol=1e-4)
        assert all((r == results[0]).all() for r in results)


def test_attention_within_sequences(target: Target, cache: CompileCache) -> None:
    random = np.random.default_rng(1)
    ends = np.array([0, 1, 9, 9, 21])
    arrays: Arrays = {n: random.standard_normal((21, w)).astype(np.float32) for n, w in (("Q", 8), ("K", 8), ("V", 16))}
    arrays |= {"P": ends, "B": np.repeat(np.arange(4), np.diff(ends))}
    (o,) = computed(SEQUENCES, arrays, target, cache).values()
    for start, stop in pairwise(ends):
        q, k, v = (arrays[n][start:stop].astype(float) for n in "QKV")
        weights = np.exp(q @ k.T)
        np.testing.assert_allclose(o[start:stop], weights / weights.sum(1, keepdims=True) @ v, rtol=1e-4, atol=1e-5)


def test_results_do_not_depend_on_the_number_of_threads(target: Target, cache: CompileCache) -> None:
    random = np.random.default_rng(2)
    arrays: Arrays = {
        "P": np.array([0, 1, 1, 700, 701, 1000, 1000], np.int32),
        "C": random.integers(0, 12, 1000).astype(np.int32),
        "V": random.standard_normal(1000).astype(np.float32),
        "X": random.standard_normal((12, 40)).astype(np.float32),
    }
    one, *others = (found["Y"] for found in computed_by_teams(COMPRESSED_ROWS, arrays, target, cache, (1, 2, 3)))
    assert all((other == one).all() for other in others)
