"""Gradients through calls that PyTorch runs, of views, and of graphs that are kept and run backward again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "a determinant, which reads memory as it lies": lambda x: torch.linalg.det(x + torch.eye(4) * 5),
    "a softmax": lambda x: x.softmax(-1) @ x,
    "an update in place": lambda x: (x * 2).index_fill_(0, torch.tensor([1]), 0.0).sin(),
}


def _gradients(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The gradient accumulated after each run, then that of a matrix whose columns are given."""
    torch.manual_seed(0)
    x, found = torch.randn(4, 4, requires_grad=True), []
    for keep in (False, True, False):
        loss = function(x).pow(2).sum()
        loss.backward(retain_graph=keep)
        if keep:
            loss.backward()
        assert x.grad is not None
        found.append(x.grad.clone())
    whole = torch.randn(8, 8, requires_grad=True)
    function(whole[::2, 1:5].t()).sum().backward()
    assert whole.grad is not None
    return [*found, whole.grad]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_accumulate_and_graphs_can_be_kept(name: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(FUNCTIONS[name], backend="effcc", fullgraph=True)
    torch.testing.assert_close(_gradients(compiled), _gradients(FUNCTIONS[name]), rtol=1e-4, atol=1e-4)
