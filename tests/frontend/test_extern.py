"""Calls that PyTorch runs."""

from __future__ import annotations

from typing import Any

import torch

from effcc.frontend.extern import bind
from effcc.ir.program import Extern


def test_results_that_a_mask_leaves_out_are_no_results() -> None:
    def numbers(*values: int) -> Any:
        return ("list", *(("value", v) for v in values))

    operands = (torch.randn(3, 16, 1, 9), torch.randn(3, 64, 1, 9), torch.randn(16, 64, 1, 1))
    mask = ("list", ("value", True), ("value", False), ("value", True))
    args = (
        *(("tensor", k) for k in range(3)), numbers(16), numbers(1, 1), numbers(0, 0), numbers(1, 1), ("value", False),
        numbers(0, 0), ("value", 1), mask,
    )  # fmt: skip
    attrs = {"target": "aten::convolution_backward.default", "template": (args, ())}
    found = bind(Extern("extern", (), (), attrs, "no-op", ""))(operands, {})
    assert [tuple(t.shape) for t in found] == [(3, 64, 1, 9), (16,)]
