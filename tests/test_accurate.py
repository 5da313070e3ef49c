"""Compiled sums are as accurate as eager's where rounding errors would pile up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from effcc.accuracy import check
from effcc.frontend.widened import reference


def seeded(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


CASES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "a product over 3072 terms": (F.linear, (seeded(40, 3072), seeded(64, 3072) / 55)),
    "a convolution over 576 terms": (F.conv2d, (seeded(1, 64, 9, 9), seeded(32, 64, 3, 3) / 24)),
    "a sum over 5000 rows": (lambda x: x.sum(0), (seeded(5000, 70),)),
    "a mean over a row of 50000": (lambda x: x.mean(-1), (seeded(20, 50000),)),
    "a running sum": (lambda x: x.cumsum(-1), (seeded(20, 3000),)),
    "a running product": (lambda x: x.cumprod(-1), (1 + seeded(20, 600) / 100,)),
    "a norm over 3000": (lambda x: F.layer_norm(x, (3000,)), (seeded(20, 3000) + 5,)),
    "fused attention": (
        F.scaled_dot_product_attention,
        (seeded(1, 2, 90, 16), seeded(1, 2, 700, 16), seeded(1, 2, 700, 16)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_long_sums_keep_the_measure(case: str) -> None:
    function, args = CASES[case]
    with torch.no_grad():
        torch._dynamo.reset()
        check(reference(function, *args), function(*args), torch.compile(function, backend="effcc")(*args)).require(
            case
        )
