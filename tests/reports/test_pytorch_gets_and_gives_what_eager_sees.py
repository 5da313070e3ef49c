"""Calls that PyTorch runs get tensors as eager has them, and only the results that somebody reads are taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import effcc
from effcc.errors import CaptureError

TABLE = torch.randn(10, 5, generator=torch.Generator().manual_seed(0))


def agree(function: Callable[..., Any], *args: Any) -> None:
    torch._dynamo.reset()
    torch.testing.assert_close(effcc.compile(function)(*args), function(*args))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_contiguous_copy_of_a_strided_input_is_one(mode: str) -> None:
    def bags(w: torch.Tensor, i: torch.Tensor, o: torch.Tensor) -> torch.Tensor:
        return F.embedding_bag(i, w, o, mode=mode)

    agree(bags, TABLE, torch.arange(5), torch.tensor([0, 9, 3, 9])[::2])
    agree(bags, TABLE, torch.arange(10)[::2], torch.tensor([0, 3]))
    agree(bags, TABLE, torch.arange(4)[:1].expand(6), torch.tensor([0, 3]))


def test_results_that_nobody_reads_may_have_other_sizes_than_capture_thought() -> None:
    agree(
        lambda w, i, o: F.embedding_bag(i, w, o, mode="sum", include_last_offset=True),
        TABLE, torch.arange(6), torch.tensor([0, 3, 6]),
    )  # fmt: skip
    agree(
        lambda w, i, o, p: F.embedding_bag(i, w, o, mode="sum", per_sample_weights=p),
        TABLE.bfloat16(), torch.arange(5), torch.tensor([0, 3]), torch.randn(5).bfloat16(),
    )  # fmt: skip


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bags_have_eagers_gradients(dtype: torch.dtype, last: bool) -> None:
    """PyTorch's description of a sum of bfloat16 bags gives one result elements that it does not have."""

    def gradients(w: torch.Tensor, i: torch.Tensor, o: torch.Tensor, p: torch.Tensor) -> Any:
        bags = F.embedding_bag(i, w, o, mode="sum", per_sample_weights=p, include_last_offset=last)
        return bags, *torch.autograd.grad(bags.square().sum(), (w, p))

    weight, scale = (t.to(dtype).requires_grad_() for t in (TABLE, torch.linspace(0.5, 2, 5)))
    bounds = torch.tensor([0, 3, 5] if last else [0, 3])
    agree(gradients, weight, torch.tensor([9, 0, 3, 9, 1]), bounds, scale)


@pytest.fixture
def misjudged() -> Any:
    """An operator that gives two elements where its description says three."""
    with torch.library._scoped_library("effcc_test_misjudged", "FRAGMENT") as library:
        library.define("pair(Tensor x) -> Tensor")
        library.impl("pair", lambda x: torch.stack([x.sum(), x.sum()]), "CPU")
        library.impl("pair", lambda x: x.new_empty(3), "Meta")
        yield torch.ops.effcc_test_misjudged.pair


def test_a_result_of_other_sizes_that_is_read_is_refused(misjudged: Any) -> None:
    torch._dynamo.reset()
    with pytest.raises(CaptureError, match=r"told that it gives \[3\], and it gave \[2\]"):
        effcc.compile(lambda x: misjudged(x) + 1)(torch.ones(4))


def test_a_row_major_tensor_is_read_as_one_though_it_is_returned_in_another_order() -> None:
    """Draws fill memory in the order of the tensor that they are like, and `as_strided` writes at places of memory."""

    def drawn() -> Any:
        torch.manual_seed(3)
        first = torch.randn(2, 3, 4, 5)
        return first.contiguous(memory_format=torch.channels_last), torch.rand_like(first)

    def written(x: torch.Tensor) -> Any:
        y = x + 1
        z = torch.as_strided_scatter(y, torch.zeros(7), (7,), (5,), 1)
        return y.contiguous(memory_format=torch.channels_last), z

    agree(drawn)
    agree(written, torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)))
