"""Calls that PyTorch runs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

import effcc
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


def test_results_that_only_pytorchs_traces_have_are_none_of_a_call() -> None:
    """The trace of `grid_sampler_2d_backward` has a gradient of the grid that the call does not give."""
    grid = torch.rand(2, 3, 4, 2) * 2 - 1

    def sampled(x: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(x, grid, align_corners=True).square().sum()

    x = torch.randn(2, 5, 6, 7, requires_grad=True)
    compiled = effcc.compile(sampled)
    (found,) = torch.autograd.grad(compiled(x), x)
    (expected,) = torch.autograd.grad(sampled(x), x)
    torch.testing.assert_close(found, expected)
