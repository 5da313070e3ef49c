"""Functions whose sizes depend on data, compiled as one graph, give what eager gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import effcc


def numbers() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def write(x: Tensor) -> Tensor:
    """Reads what depends on data, then writes its input."""
    total = x[x > 0].sum()
    x.mul_(2)
    return total + 1


def draw(x: Tensor) -> Any:
    """Random numbers before, at and after the call whose size depends on data."""
    first = torch.rand(2)
    chosen = x[torch.rand(4, 6) > 0.5]
    return first, chosen * 2, torch.rand(3) + 1


CASES: dict[str, Callable[[Tensor], Any]] = {
    "mask": lambda x: x[x > 0] * 2,
    "nothing_chosen": lambda x: (x[x > 100] * 2 + 1, x[x > 100].sum()),
    "several": lambda x: (x[x > 0].sum() + x.nonzero().sum(), (x * 2)[x > 0.5] + 1),
    "one_after_the_other": lambda x: x[x > 0][(x[x > 0] * 2) > 1] + 1,
    "number": lambda x: x * (x.sum() * 2).item() + 1,
    "size": lambda x: x.sum() + torch.ones(int((x > 0).sum().item()) + 3),
    "counts": lambda x: torch.bincount(x.abs().long().flatten() * 2) + 1,
    "parts": lambda x: [part * 2 for part in torch.tensor_split(x, torch.tensor([1, 2]))],
    "unique": lambda x: [part * 2 for part in torch.unique(x.long() + 1, return_counts=True)],
    "reduced": lambda x: x.masked_select(x > 0).cumsum(0).softmax(0),
    "constant": lambda x: x[:, torch.tensor([0, 2, 5])][x[:, :3] > 0] + torch.arange(40)[3],
    "write": write,
    "draw": draw,
}


def both(function: Callable[[Tensor], Any]) -> tuple[Any, Any, Any]:
    """What eager and the compiled function give, each with its input as it left it; and the compiled function."""
    torch._dynamo.reset()
    compiled: Any = torch.compile(function, backend="effcc", fullgraph=True)
    found = []
    for run in (function, compiled):
        torch.manual_seed(0)
        x = numbers()
        with torch.no_grad():
            found.append((run(x), x))
    return found[0], found[1], compiled


@pytest.mark.parametrize("name", list(CASES))
def test_sizes_that_depend_on_data(name: str) -> None:
    expected, got, _ = both(CASES[name])
    torch.testing.assert_close(got, expected)
    for a, b in zip(pytree.tree_leaves(expected), pytree.tree_leaves(got), strict=True):
        assert a.stride() == b.stride()


def test_the_calls_between_stages_are_counted() -> None:
    _, _, compiled = both(CASES["several"])
    assert effcc.stats(compiled).externs == {"aten::index.Tensor": 2, "aten::nonzero.default": 1}
    assert "its sizes depend on data" in str(effcc.explain(compiled, measure=False))


def test_one_program_serves_other_counts() -> None:
    torch._dynamo.reset()
    compiled: Any = torch.compile(CASES["mask"], backend="effcc", fullgraph=True)
    with torch.no_grad():
        for shift in (0.0, 1.0, -9.0, 9.0):
            x = numbers() + shift
            torch.testing.assert_close(compiled(x), CASES["mask"](x))
    assert effcc.stats(compiled).programs == 2


def test_gradients_pass_through_stages() -> None:
    def loss(x: Tensor) -> Tensor:
        return (x[x > 0].exp() * x.sum()).sum()

    torch._dynamo.reset()
    gradients = []
    for run in (loss, torch.compile(loss, backend="effcc", fullgraph=True)):
        x = numbers().requires_grad_()
        run(x).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
