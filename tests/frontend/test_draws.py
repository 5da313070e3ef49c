"""Dead calls that draw are found by asking each kind of call once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from effcc.frontend import draws


def _added(model: Callable[[Tensor], Tensor], x: Tensor, dynamic: bool = False) -> int:
    """How many results the draws that nobody reads add to Dynamo's graph of a function."""
    found = []

    def backend(graph_module: fx.GraphModule, inputs: list[Any], **_: Any) -> Callable[..., Any]:
        found.append(draws.return_unread_draws(graph_module))
        return lambda *arguments: graph_module.forward(*arguments)[: len(outputs)]

    outputs = [None]
    torch._dynamo.reset()
    with torch.no_grad():
        torch.compile(model, backend=backend, dynamic=dynamic, fullgraph=True)(x)
    (count,) = found
    return count


def _layers(x: Tensor) -> Tensor:
    for _ in range(20):
        x.sum(-1)
        x[:, None].expand(-1, 3, -1)
        x.view_as(x)
        x = x * 2
    return x


@pytest.mark.parametrize("dynamic", [False, True])
def test_equal_calls_are_asked_once(dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[fx.Node] = []
    ask = draws._draws

    def listening(node: fx.Node) -> bool:
        asked.append(node)
        return ask(node)

    monkeypatch.setattr(draws, "_draws", listening)
    assert _added(_layers, torch.randn(4, 5), dynamic) == 0
    assert 3 <= len(asked) <= 8


def _mixed(x: Tensor) -> Tensor:
    for p, training in ((0.5, False), (0.5, True), (0.5, True), (1, True), (1, False)):
        torch.nn.functional.dropout(x, p, training)
        torch.rand_like(x)
        torch.zeros_like(x)
    return x + 1


def test_calls_that_differ_in_a_number_or_a_flag_are_asked_apart() -> None:
    assert _added(_mixed, torch.randn(4, 5)) == 5 + _draws_of_dropout()


def _draws_of_dropout() -> int:
    """Of `_mixed`'s dropouts, how many move the generator in eager."""
    moved = 0
    for p, training in ((0.5, False), (0.5, True), (0.5, True), (1, True), (1, False)):
        before = torch.get_rng_state()
        torch.nn.functional.dropout(torch.randn(4, 5, generator=torch.Generator()), p, training)
        moved += not torch.equal(before, torch.get_rng_state())
    return moved
