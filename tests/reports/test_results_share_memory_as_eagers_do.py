"""Who writes a result writes what eager would have written: views of inputs and of one another share memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor


def views_of_an_input(x: Tensor) -> tuple[Tensor, ...]:
    return x[x.shape[0] - 1], x.chunk(2)[1], x.t(), x.detach()


def views_of_an_updated_input(x: Tensor) -> tuple[Tensor, ...]:
    x[0].mul_(3)
    return x[x.shape[0] - 1], x[1:], x


def views_of_an_intermediate(x: Tensor) -> tuple[Tensor, ...]:
    y = x * 2
    return y, y[1:], y.t(), y.view(-1), y.detach(), y.diagonal()


def views_without_what_they_view(x: Tensor) -> tuple[Tensor, ...]:
    return (x * 2).unbind(0)[:3] + (x.exp()).split(2)[:2]


def an_updated_intermediate(x: Tensor) -> tuple[Tensor, ...]:
    y = x * 2
    view = y[1:]
    view.add_(1)
    y.mul_(2)
    return view, y


def elements_that_share_memory(x: Tensor) -> tuple[Tensor, ...]:
    return x.sum(0).expand(3, x.shape[1]), (x * 2).unfold(0, 2, 1)


def axes_of_size_1(x: Tensor) -> tuple[Tensor, ...]:
    return (x * 2)[1:].t()[1:].unsqueeze(0), x.sum(1, keepdim=True)


def copies(x: Tensor) -> tuple[Tensor, ...]:
    y = x + 1
    x.copy_(y)
    return y, y.clone(), x.clone(), x[1:]


def other_dtypes(x: Tensor) -> tuple[Tensor, ...]:
    y = x * 2
    return y, y.view(torch.int32), x.view(torch.int16)


def a_view_turned_in_place(x: Tensor) -> tuple[Tensor, ...]:
    y = x.movedim(0, -1)
    y.t_()
    y.triu_()
    return (y,)


def an_intermediate_turned_in_place(x: Tensor) -> tuple[Tensor, ...]:
    y = x[1:] * 2
    y.t_()
    z = (x + 1).unsqueeze_(0)
    return y, z, y.transpose_(0, 1)


FUNCTIONS = (
    views_of_an_input, views_of_an_updated_input, views_of_an_intermediate, views_without_what_they_view,
    an_updated_intermediate, elements_that_share_memory, axes_of_size_1, copies,
    other_dtypes, a_view_turned_in_place, an_intermediate_turned_in_place,
)  # fmt: skip
MODES: dict[str, Callable[[], Any]] = {"grad": nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def _shared(tensors: Sequence[Tensor]) -> list[int]:
    """For each tensor, the first that has its storage."""
    storages = [t.untyped_storage().data_ptr() for t in tensors]
    return [storages.index(s) for s in storages]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_writes_after_the_call_reach_what_eager_lets_them_reach(function: Callable[..., Any], mode: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(function, backend="effcc", fullgraph=True, dynamic=mode != "no_grad")
    for rows in (4, 6) if mode != "no_grad" else (4,):
        x = torch.randn(rows, 4)
        y = x.clone()
        with MODES[mode]():
            wanted, found = [x, *function(x)], [y, *compiled(y)]
            assert _shared(found) == _shared(wanted)
            assert [t.stride() for t in found] == [t.stride() for t in wanted]
            for k, (a, b) in enumerate(zip(wanted, found, strict=True)):
                for written in (a, b):
                    if 0 not in written.stride() and written.dtype == torch.float32:
                        written.select(0, 0).add_(k + 1)
                torch.testing.assert_close(found, wanted)


def test_views_of_what_needs_gradients_share_memory_too() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = x.exp()
        return y, y[1:], y.view(-1), x[1:], y.detach(), y[1].detach()

    torch.compiler.reset()
    x = torch.randn(4, 4, requires_grad=True)
    wanted, found = function(x), torch.compile(function, backend="effcc", fullgraph=True)(x)
    assert _shared([x, *found]) == _shared([x, *wanted])
    assert [t.requires_grad for t in found] == [t.requires_grad for t in wanted]
    expected = torch.autograd.grad(wanted[1].sum() + wanted[3].sum(), x)
    torch.testing.assert_close(torch.autograd.grad(found[1].sum() + found[3].sum(), x), expected)


def rows_at(x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
    n = at.item()
    return x[n], x.narrow(0, 1, n), x.select(1, n).unsqueeze(0)


def expanded_to(x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
    n = at.item()
    return x[:1].expand(n, 4), (x * 2)[:1].expand(n, 4)


def views_at(x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
    n = at.item()
    y = x * 2
    return y[n], y, y[n:].t(), y.sum(0)


@pytest.mark.parametrize("function", [rows_at, expanded_to, views_at])
def test_views_at_places_that_depend_on_data_are_eagers(function: Callable[..., Any]) -> None:
    torch.compiler.reset()
    compiled = torch.compile(function, backend="effcc", fullgraph=True)
    x = torch.randn(4, 4)
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        for n in (1, 2):
            wanted, found = [x, *function(x, torch.tensor(n))], [x, *compiled(x, torch.tensor(n))]
            torch.testing.assert_close(found, wanted)
            assert _shared(found) == _shared(wanted)
            assert [t.stride() for t in found] == [t.stride() for t in wanted]
            assert [t.storage_offset() for t in found] == [t.storage_offset() for t in wanted]
