"""What a model computes from a size, `x / n ** 0.5` or `table[n - 1]`, holds for the sizes of each call."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

import effcc

Function = Callable[[Tensor, Tensor], Tensor]

FUNCTIONS: dict[str, Function] = {
    "root": lambda w, x: x / x.shape[0] ** 0.5,
    "weight_times_size": lambda w, x: x + w[0] * x.shape[0],
    "last_row": lambda w, x: w[x.shape[0] - 1] + x,
    "roll": lambda w, x: w.roll(x.shape[0], 0)[:2] * 1,
    "later_half": lambda w, x: x[x.shape[0] // 2 :] + 1,
    "from_the_end": lambda w, x: x[-x.shape[0] // 2 :] + 1,
    "beyond": lambda w, x: x[: x.shape[0] + 3] + 1,
    "at_most": lambda w, x: x[max(x.shape[0] - 4, 0) :] + 1,
    "ratio": lambda w, x: x * (x.shape[0] / (x.shape[0] + 1)),
    "doubles": lambda w, x: x.double() * (x.shape[0] * 0.1 + math.sqrt(x.shape[0])),
    "two_thirds": lambda w, x: functional.interpolate(x[None, None], scale_factor=1.7, mode="bilinear"),
}
SIZES = (8, 5, 17, 2, 8, 1, 6)


class Model(nn.Module):
    def __init__(self, f: Function) -> None:
        super().__init__()
        self.f = f
        self.w = nn.Parameter(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.w, x)


def rows(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("name", FUNCTIONS)
@torch.no_grad()
def test_under_torch_compile(name: str) -> None:
    torch._dynamo.reset()
    model = Model(FUNCTIONS[name]).eval()
    compiled = torch.compile(model, backend="effcc", dynamic=True)
    for n in SIZES:
        torch.testing.assert_close(compiled(rows(n)), model(rows(n)))


@pytest.mark.parametrize("name", ["root", "weight_times_size", "last_row", "roll", "two_thirds"])
@torch.no_grad()
def test_in_a_package_whose_batch_may_be_one(name: str, tmp_path: Path) -> None:
    model = Model(FUNCTIONS[name]).eval()
    effcc.export(model, (rows(8),), tmp_path / "p.effcc", dynamic_shapes=({0: Dim("n", min=1, max=64)},))
    package = effcc.load(tmp_path / "p.effcc")
    for n in SIZES:
        torch.testing.assert_close(package(rows(n)), model(rows(n)))


def test_a_slice_known_to_reach_the_end_is_cut_where_the_batch_is_one(tmp_path: Path) -> None:
    """Capture takes sizes as at least 2, also where a user says 1; `x[:2]` has one row there."""
    model = Model(lambda w, x: x[:2] + 1).eval()
    effcc.export(model, (rows(8),), tmp_path / "p.effcc", dynamic_shapes=({0: Dim("n", min=1, max=64)},))
    package = effcc.load(tmp_path / "p.effcc")
    for n in (1, 2, 5):
        torch.testing.assert_close(package(rows(n)), model(rows(n)).detach())
