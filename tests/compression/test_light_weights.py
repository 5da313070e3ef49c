"""`int8(accumulator=16)`: eight products fit in i16, along the axis that makes them so and along no other."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.errors import EncodingError
from effcc.frontend.light import light
from effcc.ir.light import IN_SET, SUM, in_sets, least_scale, lightened

HEAVIEST = np.array([63, 1, 60, -63, 4, -61, -4, 0], np.int8)
"""A set whose bytes of either sign add up to what they may."""


def heaviest(shape: tuple[int, ...]) -> Tensor:
    """Light bytes of a shape, each whole set as heavy as it may be."""
    channels, length, *rest = shape
    random = np.random.default_rng(0)
    count = channels * -(-length // 16) * 2 * int(np.prod(rest, dtype=int))
    sets = np.stack([random.permutation(HEAVIEST) for _ in range(count)])
    sets = sets.reshape(channels, -1, 2, *rest, 4, 2)
    whole = np.moveaxis(sets, (-2, 2, -1), (2, 3, 4)).reshape(channels, -1, *rest)[:, :length]
    assert heavy(whole).max() == SUM
    return torch.from_numpy(np.ascontiguousarray(whole))


def heavy(codes: np.ndarray) -> np.ndarray:
    sets = in_sets(codes.astype(int))
    return np.maximum(np.maximum(sets, 0).sum(IN_SET), np.maximum(-sets, 0).sum(IN_SET))


@pytest.mark.parametrize("shape", [(3, 40), (2, 7), (2, 19, 3, 3)])
def test_codes_are_light_whatever_the_weight(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    for w in (random.standard_normal(shape), np.ones(shape), -np.abs(random.standard_cauchy(shape))):
        codes = np.rint(w.astype(np.float32) / least_scale(w).reshape(-1, *(1 for _ in shape[1:])))
        assert heavy(codes).max() <= SUM
    codes = random.integers(-127, 128, shape).astype(np.int8)
    less = lightened(codes)
    assert heavy(less).max() <= SUM
    assert (np.abs(less) <= np.abs(codes)).all()
    np.testing.assert_array_equal(lightened(less), less)


def test_bytes_that_are_light_stay_and_sets_that_are_not_are_zero() -> None:
    codes = heaviest((4, 40, 3, 3))
    torch.testing.assert_close(light(codes), codes, rtol=0, atol=0)
    codes[1, [16, 17, 20], 2, 0] = 63
    made = light(codes)
    assert not made[1, [16, 17, 20, 21, 24, 25, 28, 29], 2, 0].any()
    assert int((made != codes).sum()) <= 8


class Flattened(nn.Module):
    """Channels, sums of whose windows meet a linear layer as one row."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.windows = nn.Conv2d(16, 32, 3, padding=1)
        self.whole = nn.Conv2d(32, 24, (size, 3), bias=False)
        self.rows = nn.Linear(24 * (size - 2), 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(torch.relu(self.whole(torch.relu(self.windows(x)))).flatten(1))


def test_sums_are_exact_along_whatever_axes() -> None:
    """Bytes as heavy as may be meet 255: what is summed along other axes would not fit."""
    torch.manual_seed(0)
    x = torch.randn(2, 16, 5, 5).abs() + 1
    model = effcc.quantize(Flattened(5), "int8(accumulator=16)", activations="int8", data=[x])
    with torch.no_grad():
        for layer in (model.windows, model.whole, model.rows):
            values = getattr(layer, layer.weight_components[0])
            values.copy_(heaviest(tuple(values.shape)))
            layer.input_step.fill_(1e-6)
        compiled = torch.compile(model, backend="effcc", options={"target": "avx2"}, dynamic=False)
        for _ in range(2):
            torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=0)
            getattr(model.whole, model.whole.weight_components[0]).fill_(63)
    assert "l8[" in str(effcc.explain(compiled, measure=False))


def test_what_is_said_together_with_it_is_refused() -> None:
    layer = nn.Linear(32, 8)
    for scheme in ("int8(accumulator=16,zero=true)", "int8(accumulator=16,group=16)", "int8(accumulator=8)"):
        with pytest.raises(EncodingError, match="accumulator"):
            effcc.quantize(copy.deepcopy(layer), scheme)
