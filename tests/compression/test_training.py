"""Training with weights as they will be stored: the forward is the stored one, gradients pass straight through."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.errors import EncodingError


def test_the_forward_is_what_quantize_stores() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 6))
    chosen: Any = {"where": lambda n, m: isinstance(m, nn.Conv2d | nn.Linear)}
    x, before = torch.randn(2, 3, 8, 8), list(model.state_dict())
    effcc.quantize_aware(model, {"0": "int8", "2": "int4(group=32)"}, **chosen)
    assert list(model.state_dict()) == before
    expected = model(x)
    effcc.quantize(model, {"0": "int8", "2": "int4(group=32)"}, **chosen)
    assert isinstance(model[0], nn.Conv2d) and model[2].encoding == "int4(group=32)"
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_gradients_pass_straight_through_compiled_or_not() -> None:
    model = nn.Sequential(nn.Linear(8, 4))
    trained = effcc.quantize_aware(copy.deepcopy(model), "int4")
    x, upstream = torch.randn(5, 8), torch.randn(5, 4)
    torch._dynamo.reset()
    for forward in (trained, torch.compile(trained, backend="effcc")):
        trained.zero_grad()
        (forward(x) * upstream).sum().backward()
        torch.testing.assert_close(trained[0].weight.grad, upstream.T @ x)


def test_training_regains_what_rounding_lost() -> None:
    """Two bits: rounding a trained classifier of digits loses much; training it as it will be stored, little."""
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    images, labels = torch.tensor(digits.data[::6] / 16, dtype=torch.float32), torch.tensor(digits.target[::6])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    train(model, images, labels, 150)
    rounded = effcc.quantize(copy.deepcopy(model), "int2")
    trained = effcc.quantize_aware(copy.deepcopy(model), "int2")
    train(trained, images, labels, 60)
    effcc.quantize(trained, "int2")
    with torch.no_grad():
        losses = [float(nn.functional.cross_entropy(m(images), labels)) for m in (model, rounded, trained)]
    assert losses[0] < 0.2
    assert losses[1] > 2 * losses[0]
    assert losses[2] < 0.5 * losses[1]


def train(model: nn.Module, images: Tensor, labels: Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"trained as int4.*, not stored as int8"):
        effcc.quantize(effcc.quantize_aware(nn.Linear(8, 8), "int4"), "int8")
    with pytest.raises(EncodingError, match=r"stored as int8.*train the dense weight"):
        effcc.quantize_aware(effcc.quantize(nn.Linear(8, 8)), "int8")
    with pytest.raises(EncodingError, match="quantize_aware takes one of"):
        effcc.quantize_aware(nn.Linear(8, 8), "block(4,1)")
