"""Levels store a convolution's weight by its matrix: 1x1 convolutions sum what is stored, others decode it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import effcc
from effcc.compression.modules import EncodedConv2d
from effcc.errors import EncodingError


def convolutions(_: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


def model(kernel: int = 1, stride: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Conv2d(96, 64, kernel, stride=stride, padding=kernel // 2)
    return nn.Sequential(conv, nn.BatchNorm2d(64), nn.ReLU6()).eval()


def sparse(level: str, values: str = "", **shape: int) -> nn.Sequential:
    made = model(**shape)
    effcc.sparsify(made, level, density=None if level.startswith("nm") else 0.1, where=convolutions)
    return effcc.quantize(made, values, where=convolutions) if values else made


@pytest.mark.parametrize(
    ("level", "values", "shape", "stored"),
    [
        ("csr", "", {}, True),
        ("block(4,1)", "int8", {}, True),
        ("csr", "", {"stride": 2}, True),
        ("nm(2,4)", "", {}, False),
        ("csr", "", {"kernel": 3}, False),
    ],
)
def test_compiled_they_compute_with_the_decoded_weight(
    level: str, values: str, shape: dict[str, int], stored: bool
) -> None:
    made, x = sparse(level, values, **shape), torch.randn(2, 96, 28, 28)
    torch._dynamo.reset()
    with torch.no_grad():
        conv = made[0]
        dense = nn.functional.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)  # type: ignore[arg-type]
        torch.testing.assert_close(made(x), made[2](made[1](dense)))
        torch.testing.assert_close(torch.compile(made, backend="effcc")(x), made(x), rtol=1e-4, atol=1e-5)
    assert (": stored, " if stored else ": decoded, ") in str(effcc.explain(made, measure=False))


def test_images_are_gathered_where_they_lie() -> None:
    """Rows of channels are there already: nothing is copied, and the sum is one kernel with what follows it."""
    torch._dynamo.reset()
    made = sparse("csr")
    with torch.no_grad():
        torch.compile(made, backend="effcc")(torch.randn(1, 96, 28, 28))
    assert str(effcc.explain(made, measure=False)).count("kernel @") == 1


def test_images_with_channels_last_are_turned_or_decoded() -> None:
    torch._dynamo.reset()
    made = sparse("csr")
    x = torch.randn(2, 96, 14, 14).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(made, backend="effcc")(x), made(x), rtol=1e-4, atol=1e-5)


def test_what_is_kept_trains() -> None:
    made, x = sparse("csr"), torch.randn(2, 96, 7, 7)
    made(x).square().sum().backward()
    values = made[0].weight_values
    assert isinstance(values, nn.Parameter) and values.grad is not None
    dense = model()
    dense[0].weight.data = made[0].weight.detach()
    dense(x).square().sum().backward()
    kept = dense[0].weight.detach() != 0
    torch.testing.assert_close(values.grad, dense[0].weight.grad[kept], rtol=1e-4, atol=1e-4)


def test_saved_ones_load_into_a_dense_model(tmp_path: Path) -> None:
    made = sparse("block(4,1)", "int8")
    effcc.save(made, tmp_path / "model.safetensors")
    loaded = effcc.load_into(model(), tmp_path / "model.safetensors")
    assert isinstance(loaded[0], EncodedConv2d) and loaded[0].encoding == made[0].encoding
    x = torch.randn(1, 96, 5, 5)
    torch.testing.assert_close(loaded(x), made(x), rtol=0, atol=0)


def test_blocks_must_divide_the_matrix() -> None:
    with pytest.raises(EncodingError, match=r"weight of shape \[64, 864\]"):
        effcc.sparsify(model(kernel=3), "block(5,1)", density=0.1, where=convolutions)
