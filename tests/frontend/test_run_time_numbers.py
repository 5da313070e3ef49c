"""Numbers computed from sizes that are known at run time only: a ratio of two sizes is not rounded to a size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F


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
