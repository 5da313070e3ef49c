"""Draws come in eager's order, also those that nobody reads, and leave the generator in eager's state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F


def _results(function: Callable[..., Any], seed: int, training: bool) -> list[Any]:
    torch.manual_seed(seed)
    x = torch.randn(4, 4, requires_grad=training)
    given = function(x)
    results = list(given) if isinstance(given, Sequence) else [given]
    found = [*results, torch.get_rng_state()]
    losses = [r.sum() for r in results if r.requires_grad]
    if losses:
        torch.stack(losses).sum().backward()
        found.append(x.grad)
    return [f.detach() for f in found]


def two_dropouts(x: Tensor) -> Tensor:
    return F.dropout(x, 0.3) + F.dropout(x * 2, 0.5)


def a_late_draw_first(x: Tensor) -> tuple[Tensor, ...]:
    late = torch.rand_like((x @ x).softmax(-1) @ x)
    return torch.rand(4, 4), late, torch.randint(0, 9, (3,))


def an_unread_draw(x: Tensor) -> Tensor:
    F.dropout(x, 0.5).relu()
    torch.rand(3)
    return F.dropout(x, 0.2)


def draws_of_equal_length(x: Tensor) -> Tensor:
    return F.dropout2d(x.reshape(1, 4, 2, 2)).reshape(1, 4, 4) + F.dropout1d(x.reshape(1, 4, 4), 0.3)


def draws_that_need_none(x: Tensor) -> Tensor:
    return F.dropout(x, 0.0) + F.dropout(x, 1.0) + F.dropout(x, 0.5)


def other_distributions(x: Tensor) -> tuple[Tensor, ...]:
    picked = torch.multinomial(x.softmax(-1), 3)
    return picked, torch.normal(0.0, 1.0, (3,)), torch.normal(x.detach(), 1.0), torch.empty(4).exponential_()


def attention(x: Tensor) -> Tensor:
    q = x.reshape(1, 1, 4, 4)
    return F.scaled_dot_product_attention(q, q, q, dropout_p=0.3) + F.dropout(x, 0.2)


def a_loop(x: Tensor) -> Tensor:
    for _ in range(3):
        x = F.dropout(x @ x * 0.1, 0.2) + torch.randn_like(x)
    return x


def draws_in_the_order_of_memory(x: Tensor) -> tuple[Tensor, ...]:
    image = x.reshape(1, 2, 2, 4).to(memory_format=torch.channels_last) * 2
    columns = (x * 2).detach().t()
    return F.dropout(x.t(), 0.4), torch.rand_like(columns[::2]), F.dropout(image, 0.5), columns.bernoulli(0.5)


FUNCTIONS = (
    two_dropouts, a_late_draw_first, an_unread_draw, draws_of_equal_length, draws_that_need_none, other_distributions,
    attention, a_loop, draws_in_the_order_of_memory,
)  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_draws_are_eagers(function: Callable[..., Any], training: bool) -> None:
    torch.compiler.reset()
    compiled = torch.compile(function, backend="effcc", fullgraph=True)
    for seed in range(2):
        expected, found = _results(function, seed, training), _results(compiled, seed, training)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_branch_that_draws_keeps_its_place() -> None:
    def function(x: Tensor) -> Tensor:
        first = torch.cond(x.sum() > 0, lambda x: x + torch.rand(4, 4), lambda x: x - torch.randn(4, 4), (x,))
        return first / torch.rand(4, 4)

    torch.compiler.reset()
    compiled = torch.compile(function, backend="effcc", fullgraph=True)
    for seed in range(4):
        torch.testing.assert_close(_results(compiled, seed, False), _results(function, seed, False))
