"""What a kernel must do at least is arithmetic on numbers and bytes, not the conditions that say where numbers are."""

from __future__ import annotations

import pytest

from effcc.ir.parser import parse_kernel
from effcc.roofline import work

CONVOLUTION = """kernel @k(X: f32[8], W: f32[3]) -> (Y: f32[8]) over i=8, k=3 {{
  Y[i] = sum(k: {x} * W[k])
}}"""
JOINED = """kernel @k(X: f32[4], Z: f32[4]) -> (Y: f32[8]) over i=8 {
  Y[i] = where(i < 4, exp(X[i]), Z[i - 4] * Z[i - 4] + 1.0)
}"""
GATHERED = """kernel @k(X: f32[9], I: i64[8]) -> (Y: f32[8]) over i=8 {
  Y[i] = X[I[i] + 1] * 2.0
}"""
CHOSEN = """kernel @k(X: f32[8]) -> (Y: f32[8]) over i=8 {
  Y[i] = where(X[i] < 0.0, 0.0, X[i])
}"""


@pytest.mark.parametrize(
    ("text", "flops"),
    [
        (CONVOLUTION.format(x="X[i + k - 1 - k]"), 2 * 8 * 3),
        (CONVOLUTION.format(x="where(0 <= i + k - 1 and i + k - 1 < 8, X[i + k - 1], 0.0)"), 2 * 8 * 3),
        (JOINED, 2 * 8), (GATHERED, 8), (CHOSEN, 8),
    ],
    ids=["plain", "padded", "joined", "gathered", "chosen by data"],
)  # fmt: skip
def test_conditions_on_indices_are_no_operations(text: str, flops: float) -> None:
    assert work(parse_kernel(text), {}).flops == flops
