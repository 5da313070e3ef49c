"""Norms of half types with parameters in float32, as autocast and diffusion models have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

NORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]]] = {
    "layer": lambda x, w, b: torch.native_layer_norm(x, (16,), w, b, 1e-5),
    "group": lambda x, w, b: (F.group_norm(x, 4, w, b),),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=list(NORMS))
def test_moments_are_in_float32_and_gradients_read_them_so(norm: Callable[..., Sequence[Tensor]]) -> None:
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(4, 16, generator=numbers).bfloat16()
    weight, bias, factor = (torch.randn(n, generator=numbers) for n in ((16,), (16,), (4, 16)))

    def called(norm: Callable[..., Sequence[Tensor]], dtype: torch.dtype | None = None) -> tuple[Any, Tensor]:
        given = [t.to(dtype or t.dtype).requires_grad_() for t in (x.clone(), weight.clone(), bias.clone())]
        results = norm(*given)
        (gradient,) = torch.autograd.grad(results[0], given[1], factor.to(results[0].dtype))
        return results, gradient

    results, gradient = called(torch.compile(norm, backend="effcc", fullgraph=True))
    expected, _ = called(norm)
    assert [r.dtype for r in results] == [e.dtype for e in expected]
    for got, eager in zip(results, expected, strict=True):
        torch.testing.assert_close(got, eager)
    factor = factor.bfloat16().double()  # what the gradient of a half tensor is
    torch.testing.assert_close(gradient.double(), called(norm, torch.float64)[1], rtol=1e-4, atol=1e-4)
