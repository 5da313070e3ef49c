"""A checkpointed region is computed again for its gradient, with the random numbers that it drew the first time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        def region(x: Tensor) -> Tensor:
            return F.dropout(self.linear(x), 0.5).relu() + torch.rand_like(x) * x

        return checkpoint(region, F.dropout(x, 0.3), use_reentrant=False).sum()


def test_checkpointed_dropout_repeats_its_draws() -> None:
    torch.manual_seed(0)
    model = Checkpointed()
    given = torch.randn(4, 8)
    found = []
    for run in (model, torch.compile(model, backend="effcc")):
        model.zero_grad()
        x = given.clone().requires_grad_()
        torch.manual_seed(1)
        loss = run(x)
        loss.backward()
        found.append([loss.detach(), x.grad, model.linear.weight.grad, torch.get_rng_state()])
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager)
