"""Long reductions in parts: both kernels together compute what the one did, and only what pays is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effcc.ir.interpreter import run_kernel, run_program
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.printer import print_kernel
from effcc.ir.program import Buffer, Launch, Program
from effcc.ir.verifier import verify_any
from effcc.passes.parts import cut, share_rows
from effcc.target import generic

SUM = "kernel @sum(X: f32[24]) -> (Y: f32[]) over n=24 { Y[] = sum(n: X[n]) }"
STATISTICS = """
    kernel @k(X: f32[2,24], W: f32[24]) -> (Y: f32[2], L: f32[2]) over m=2, n=24 {
      E[m,n] = X[m,n] * W[n]
      S[m] = sum(n: E[m,n])
      L[m] = max(n: where(n < m + 5, E[m,n], -inf))
      Y[m] = S[m] / L[m]
    }"""
DECODE = """
    kernel @k(Q: f32[3,4], K: f32[3,24,4], V: f32[3,24,5], I: i64[]) -> (O: f32[3,5]) over b=3, n=24, k=4, f=5 {
      H[b,k] = Q[b,k] * 0.5
      S[b,n] = sum(k: H[b,k] * K[b,n,k])
      M[b] = max(n: S[b,n] + where(n <= I[], 0.0, -inf))
      P[b,n] = exp(S[b,n] + where(n <= I[], 0.0, -inf) - where(M[b] == -inf, 0.0, M[b]))
      D[b] = sum(n: P[b,n]) rescale where(M'[b] == M[b], 1.0, exp(M'[b] - M[b]))
      A[b,f] = sum(n: P[b,n] * V[b,n,f]) rescale where(M'[b] == M[b], 1.0, exp(M'[b] - M[b]))
      O[b,f] = A[b,f] / where(D[b] == 0.0, 1.0, D[b])
    }"""


def test_a_sum_in_parts_is_a_sum_of_sums() -> None:
    found = cut(parse_kernel(SUM), "n", 4)
    assert found is not None
    assert "Y_part[part] = sum(n: X[part * 6 + n])" in print_kernel(found.first)
    assert "Y[] = sum(part: Y_part[part])" in print_kernel(found.second)


@pytest.mark.parametrize("text", [SUM, STATISTICS, DECODE], ids=["sum", "statistics", "decode"])
@pytest.mark.parametrize("seen", [-1, 3, 23])
def test_both_kernels_compute_what_the_one_did(text: str, seen: int) -> None:
    kernel = parse_kernel(text)
    found = cut(kernel, "n", 4)
    assert found is not None
    verify_any(found.first)
    verify_any(found.second)
    random = np.random.default_rng(0)
    arrays = {p.name: random.standard_normal(p.type.shape).astype(p.type.dtype.numpy) for p in kernel.params}
    arrays |= {"I": np.array(seen)} if "I" in arrays else {}
    between = run_kernel(found.first, arrays)
    for name, expected in run_kernel(kernel, arrays).items():
        np.testing.assert_allclose(run_kernel(found.second, {**arrays, **between})[name], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "statements",
    [
        "S[] = sum(n: X[n])  C[n] = X[n] - S[]  Y[] = sum(n: C[n] * C[n])",
        "S[] = sum(n: X[n])  M[] = S[] / 24.0  Y[] = sum(n: (X[n] - M[]) * (X[n] - M[]))",
        "E[n] = X[n] * 2.0  S[] = sum(n: E[n])  Y[] = S[] + E[3]",
    ],
    ids=["passes over its row again", "passes again with its mean", "reads what is computed in its row"],
)
def test_what_needs_the_whole_row_stays_whole(statements: str) -> None:
    assert cut(parse_kernel(f"kernel @k(X: f32[24]) -> (Y: f32[]) over n=24 {{ {statements} }}"), "n", 4) is None


def program(kernel: Kernel) -> Program:
    buffers = tuple(Buffer(p.name, p.type, "input") for p in kernel.params)
    results = tuple(Buffer(p.name, p.type, "output") for p in kernel.outputs)
    inputs, outputs = (tuple(b.name for b in some) for some in (buffers, results))
    return Program(
        "p", (*buffers, *results), inputs, outputs, {kernel.name: kernel}, (Launch(kernel.name, inputs, outputs),)
    )


@pytest.mark.parametrize(
    ("text", "launches"),
    [
        (SUM.replace("24", "4194304"), 2),
        (SUM.replace("24", "4096"), 1),
        ("kernel @k(X: f32[512,8192]) -> (Y: f32[512]) over m=512, n=8192 { Y[m] = sum(n: X[m,n]) }", 1),
    ],
    ids=["one long row", "a short row", "many rows"],
)
def test_rows_are_cut_where_that_is_predicted_to_be_faster(text: str, launches: int) -> None:
    machine = replace(generic("avx512"), cores=2)
    before = program(parse_kernel(text))
    after = share_rows(before, machine)
    assert len(after.steps) == launches
    if launches > 1:
        x = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32)
        np.testing.assert_allclose(run_program(after, [x])[0], x.sum(dtype=np.float64), rtol=1e-4, atol=1e-2)
        assert share_rows(before, replace(machine, cores=1)) is before
