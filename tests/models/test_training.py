"""Training through torch.compile: gradients as near to float64's as eager's, and the kernels that they come from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effcc.accuracy import check
from effcc.backend import programs_of
from effcc.ir.dependences import online_axis


def gradients(run: Callable[..., Tensor], leaves: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """The result of a function of `leaves`, and its gradients for them."""
    found = run(*leaves)
    return [found.detach(), *torch.autograd.grad(found, leaves, upstream)]


@pytest.mark.parametrize("mask", ["causal", "hidden rows"])
def test_attention_takes_one_pass_for_both_of_its_results(mask: str) -> None:
    torch.manual_seed(0)
    hidden = torch.ones(64, 64, dtype=torch.bool)
    hidden[3], hidden[:, 60:] = False, False
    options: dict[str, Any] = {"is_causal": True} if mask == "causal" else {"attn_mask": hidden}

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, **options)

    leaves = [torch.randn(1, 4, 64, 32, requires_grad=True) for _ in range(3)]
    upstream = torch.randn(1, 4, 64, 32)
    torch.compiler.reset()
    compiled = torch.compile(attend, backend="effcc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gradients(compiled, leaves, upstream)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    exact = gradients(attend, wide, upstream.double())
    check(exact, gradients(attend, copy.deepcopy(leaves), upstream), found).require("attention")
    forward = programs_of(compiled)[0].state.program
    assert forward is not None
    assert sum(online_axis(k) is not None for k in forward.kernels.values()) == 1
    assert sum(any(s.reduction is not None for s in k.statements) for k in forward.kernels.values()) == 1
