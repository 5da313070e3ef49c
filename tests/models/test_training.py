"""Training through torch.compile: gradients as near to float64's as eager's, and the kernels that they come from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from effcc.accuracy import check
from effcc.backend import programs_of
from effcc.ir.dependences import online_axis


def gradients(run: Callable[..., Tensor], leaves: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """The result of a function of `leaves`, and its gradients for them."""
    found = run(*leaves)
    return [found.detach(), *torch.autograd.grad(found, leaves, upstream)]


def test_attention_takes_one_pass_for_both_of_its_results() -> None:
    torch.manual_seed(0)
    hidden = torch.ones(64, 64, dtype=torch.bool)
    hidden[3], hidden[:, 60:] = False, False

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=hidden)

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


def test_steps_of_a_small_network_follow_eagers() -> None:
    """Sizes that no tile divides: weights are copied by panels, at every step others."""

    def curve(compiled: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(70, 90), nn.GELU(), nn.LayerNorm(90), nn.Linear(90, 10))
        run = torch.compile(model, backend="effcc") if compiled else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        inputs, wanted = torch.randn(132, 70), torch.randint(10, (132,))
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(run(inputs), wanted)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = curve(compiled=True)
    expected = curve(compiled=False)
    assert expected[-1] < expected[0] / 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
