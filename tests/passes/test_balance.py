"""Spans in pieces: rows of any lengths come to the same, with any number of threads, and few short rows are touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import effcc
from effcc.ir.interpreter import run_kernel
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.verifier import verify_any
from effcc.passes.balance import cut_spans
from effcc.passes.fusion.polyhedra import guard_accesses

ROWS = """
    kernel @rows(P: i64[7], C: i64[90], V: f32[90], X: f32[12,40], B: f32[6]) -> (Y: f32[6,40], M: f32[6,40])
      over i=6, f=40, j=90 {
      S[i,f] = sum(j in where(in_range(P[i], 91, 0), P[i], 0)..STOP: V[j] * X[C[j],f])
      M[i,f] = max(j in where(in_range(P[i], 91, 0), P[i], 0)..STOP: X[C[j],f])
      Y[i,f] = tanh(S[i,f] + B[i])
    }
""".replace("STOP", "where(in_range(P[i + 1], 91, 0) and holds(P[i] <= P[i + 1], 1), P[i + 1], 0)")

ENDS = {
    "one row has most": [0, 1, 2, 70, 71, 90, 90],
    "one row has all": [0, 0, 0, 90, 90, 90, 90],
    "two long ones meet": [0, 10, 45, 90, 90, 90, 90],
    "at the ends of pieces": [0, 8, 32, 64, 72, 88, 90],
    "even": [0, 15, 30, 45, 60, 75, 90],
    "from the middle": [40, 40, 80, 81, 82, 83, 84],
    "none": [0, 0, 0, 0, 0, 0, 0],
}


def rows() -> Kernel:
    return guard_accesses(parse_kernel(ROWS))


def operands(ends: list[int]) -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "P": np.array(ends),
        "C": random.integers(0, 12, 90),
        "V": random.standard_normal(90).astype(np.float32),
        "X": random.standard_normal((12, 40)).astype(np.float32),
        "B": random.standard_normal(6).astype(np.float32),
    }


@pytest.mark.parametrize("shortest", [1, 8, 16])
@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
def test_pieces_come_to_what_rows_do(ends: list[int], shortest: int) -> None:
    cut = cut_spans(rows(), 1, shortest, least=0)
    assert cut is not None
    verify_any(cut)
    arrays = operands(ends)
    meant, found = run_kernel(rows(), arrays), run_kernel(cut, arrays)
    for name, value in meant.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
    short = np.diff(ends) <= 2 * shortest
    np.testing.assert_array_equal(found["Y"][short], meant["Y"][short])


@pytest.mark.parametrize(
    ("changed", "into"),
    [
        ("holds(P[i] <= P[i + 1], 1)", "P[i] <= P[i + 1]"),  # spans may overlap, and nothing says so
        ("tanh(S[i,f] + B[i])", "tanh(S[5 - i,f] + B[i])"),  # another row's result
        ("tanh(S[i,f] + B[i])", "sum(j: X[0,f])"),
    ],
)
def test_what_is_not_a_row_alone_stays_whole(changed: str, into: str) -> None:
    assert cut_spans(parse_kernel(ROWS.replace(changed, into)), 2, shortest=8, least=0) is None
    assert cut_spans(rows(), 2, shortest=8, least=1 << 20) is None


def test_a_row_that_holds_half_of_a_matrix() -> None:
    def product(x: Tensor, values: Tensor, at: Tensor, rows: Tensor) -> Tensor:
        return F.embedding_bag(at, x, rows, mode="mean", include_last_offset=True).tanh() * values

    torch.manual_seed(0)
    lengths = torch.full((100,), 300)
    lengths[70] = 30_000
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    x, at, values = torch.randn(500, 40), torch.randint(0, 500, (int(ends[-1]),)), torch.randn(100, 40)
    with torch.no_grad():
        compiled = effcc.compile(product, fullgraph=True, target="avx2")
        torch.testing.assert_close(compiled(x, values, at, ends), product(x, values, at, ends), rtol=1e-4, atol=1e-5)
    assert "_pieces" in str(effcc.explain(compiled, measure=False))


def test_rows_of_run_time_width_that_others_read_stay_whole() -> None:
    """Held for who reads them, they would be as long as is known at run time only."""
    text = ROWS.replace("[12,40]", "[12,d]").replace("[6,40]", "[6,d]").replace("f=40", "f=d")
    assert cut_spans(guard_accesses(parse_kernel(text)), 1, 8, least=0) is None
