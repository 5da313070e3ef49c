"""Numbers computed from sizes that are known at run time only: a ratio of two sizes is not rounded to a size."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from effcc.explanation import explain


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_an_image_is_resized_to_a_run_time_size(mode: str) -> None:
    def resize(image: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(image, size=(like.shape[-2] // 8, like.shape[-1] // 8), mode=mode, align_corners=False)

    image = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch._dynamo.reset()
    compiled = torch.compile(resize, backend="effcc", dynamic=True)
    for height, width in ((40, 24), (56, 48)):
        like = torch.zeros(1, 3, height, width)
        torch.testing.assert_close(compiled(image, like), resize(image, like), rtol=1e-5, atol=1e-5)


def test_an_image_is_resized_to_even_sizes() -> None:
    """As MobileViT does before it cuts an image into patches; factors of the axes hold sizes that are rounded up."""

    def resize(image: Tensor) -> Tensor:
        height, width = (math.ceil(n / 2) * 2 for n in image.shape[-2:])
        return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)

    torch._dynamo.reset()
    compiled = torch.compile(resize, backend="effcc", dynamic=True)
    for height, width in ((7, 9), (11, 5)):
        image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(compiled(image), resize(image), rtol=1e-5, atol=1e-5)
    assert not any(program.externs for program in explain(compiled, measure=False).programs)
