"""Operators that come apart keep eager's steps: what it rounds in between, and what it does not cancel."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("mixed", [False, True], ids=["half parameters", "float32 parameters"])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_batch_norm_rounds_its_statistics_where_eager_does(dtype: torch.dtype, mixed: bool) -> None:
    """To the parameters' type, before they are used: that is several units of the result."""
    layer = torch.nn.BatchNorm2d(3).to(torch.float32 if mixed else dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 1.7, 3))
        layer.bias.copy_(torch.linspace(-1, 1, 3))
    other = copy.deepcopy(layer)
    x = torch.randn(4, 3, 5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    got, expected = torch.compile(other, backend="effcc")(x), layer(x)
    assert (got == expected).double().mean() > 0.98
    for name, statistic in other.named_buffers():
        torch.testing.assert_close(statistic, layer.get_buffer(name), rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_product_with_a_logarithm_rounds_the_logarithm(dtype: torch.dtype) -> None:
    def products(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return torch.xlogy(x, y), torch.xlogy(0.7, y), torch.xlogy(x, 3.3)

    x = torch.linspace(-3, 3, 301).to(dtype)
    y = torch.cat([torch.linspace(0, 60, 299), torch.tensor([torch.nan, -1.0])]).to(dtype)
    for got, expected in zip(torch.compile(products, backend="effcc")(x, y), products(x, y), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_the_gradient_of_a_soft_margin_keeps_its_digits_where_the_margin_is_large() -> None:
    x = torch.linspace(-40, 40, 41).requires_grad_()
    target = torch.tensor([1.0, -1.0]).repeat(21)[:41]
    compiled = torch.compile(lambda x, y: F.soft_margin_loss(x, y), backend="effcc")
    (got,) = torch.autograd.grad(compiled(x, target), x)
    (expected,) = torch.autograd.grad(F.soft_margin_loss(x, target), x)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
