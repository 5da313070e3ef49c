"""Windows of random shapes against eager: groups, dilation, long strides, padding on one side, odd sizes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
POOLS = {1: (F.max_pool1d, F.avg_pool1d), 2: (F.max_pool2d, F.avg_pool2d), 3: (F.max_pool3d, F.avg_pool3d)}
CASES = 10
"""In one program: they compile together."""
KINDS = ("plain", "channels", "groups", "transposed", "padded", "pool")


class Window(nn.Module):
    """A random convolution or pooling, perhaps of a padded or strided image, with what often follows it."""

    def __init__(self, r: random.Random) -> None:
        super().__init__()
        self.spatial = spatial = r.choice([1, 2, 2, 2, 3])
        self.kind = r.choice(KINDS)
        self.groups = (
            r.choice([3, 16, 17]) if self.kind == "channels" else r.choice([2, 3]) if self.kind == "groups" else 1
        )
        per_group = 1 if self.kind == "channels" else r.choice([1, 3, 17])
        self.channels, out = self.groups * per_group, self.groups * r.choice([1, 2, 17])
        self.kernel = [r.choice([1, 2, 3, 3, 5]) for _ in range(spatial)]
        self.stride = [r.choice([1, 1, 2, 4]) for _ in range(spatial)]
        self.dilation = [r.choice([1, 1, 2]) for _ in range(spatial)]
        self.padding = [r.choice([0, 1, k // 2, k]) for k in self.kernel]
        self.around = [r.choice([0, 1, 3]) for _ in range(2 * spatial)]
        self.batch, self.sizes = r.choice([1, 2, 9]), [r.randint(1, 17 if spatial < 3 else 7) for _ in range(spatial)]
        self.largest, self.channels_last = r.random() < 0.5, r.random() < 0.3
        shape = (self.channels, out // self.groups) if self.kind == "transposed" else (out, per_group)
        self.weight = nn.Parameter(torch.randn(*shape, *self.kernel) / (per_group * 3), requires_grad=False)
        self.bias = nn.Parameter(torch.randn(out), requires_grad=False) if r.random() < 0.7 else None

    def image(self, more: int = 0) -> Tensor:
        x = torch.randn(self.batch + more, self.channels, *(n + more for n in self.sizes))
        return x.to(memory_format=torch.channels_last) if self.channels_last and self.spatial == 2 else x

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "pool":
            pool: Callable[..., Tensor] = POOLS[self.spatial][0 if self.largest else 1]
            return pool(F.pad(x.relu(), self.around), self.kernel, self.stride, [k // 2 for k in self.kernel])
        if self.kind == "transposed":
            return TRANSPOSED[self.spatial](
                x, self.weight, self.bias, self.stride, self.padding, dilation=self.dilation
            )
        if self.kind == "padded":
            x, padding = F.pad(x.tanh(), self.around), [0] * self.spatial
        else:
            padding = self.padding
        y = CONVOLUTIONS[self.spatial](x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return F.relu6(y) + y.mean(-1, keepdim=True)


class Windows(nn.Module):
    """So many windows, or one of each kind."""

    def __init__(self, seed: int, one_of_each: bool = False) -> None:
        super().__init__()
        r = random.Random(seed)
        torch.manual_seed(seed)
        self.cases = nn.ModuleList()
        while len(self.cases) < (len(KINDS) if one_of_each else CASES):
            case = Window(r)
            if one_of_each and any(case.kind == other.kind for other in self.cases):
                continue
            try:
                case(case.image())
            except RuntimeError:  # PyTorch refuses windows larger than the image, and padding beyond half of a pool's
                continue
            self.cases.append(case)

    def images(self, more: int = 0) -> list[Tensor]:
        return [case.image(more) for case in self.cases]  # type: ignore[operator]

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        return [case(x) for case, x in zip(self.cases, images, strict=True)]


@pytest.mark.parametrize(
    ("seed", "target", "dynamic"),
    [
        (1, "host", False),
        pytest.param(2, "avx2", False, marks=pytest.mark.slow),
        pytest.param(3, "host", True, marks=pytest.mark.slow),
        pytest.param(4, "scalar", False, marks=pytest.mark.slow),
    ],
)
def test_windows_give_what_eager_gives(seed: int, target: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    windows = Windows(seed, one_of_each=dynamic)  # code for any sizes takes g++ several times as long
    compiled = torch.compile(windows, backend="effcc", dynamic=dynamic, options={"target": target})
    with torch.no_grad():
        for more in (0, 1) if dynamic else (0,):
            images = windows.images(more)
            for found, expected in zip(compiled(images), windows(images), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
