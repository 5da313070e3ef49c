"""`view(dtype)`: the same bytes as numbers of another kind and size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.op_database.outcome import effcc_externs

PAIRS = [
    (torch.float32, torch.int32), (torch.int32, torch.float32), (torch.float64, torch.int64),
    (torch.int64, torch.float64), (torch.float32, torch.float64), (torch.float64, torch.float32),
    (torch.float32, torch.uint8), (torch.uint8, torch.float64), (torch.int8, torch.uint8), (torch.uint8, torch.int16),
    (torch.int16, torch.int64), (torch.int64, torch.int8), (torch.bool, torch.int32),
]  # fmt: skip


def of_bytes(dtype: torch.dtype) -> Tensor:
    """Numbers of random bytes; the first are signaling NaNs of f32, and others are not finite."""
    raw = torch.randint(0, 256, (3, 4, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    raw[0, 0, :8] = torch.tensor([1, 0, 128, 127, 1, 0, 160, 255], dtype=torch.uint8)
    raw[0, 1, :8] = torch.tensor([0, 0, 0, 0, 0, 0, 240, 127], dtype=torch.uint8)
    return raw > 127 if dtype == torch.bool else raw.view(dtype)


def compiled(function: Any, x: Tensor) -> tuple[Any, set[str]]:
    torch._dynamo.reset()
    made = torch.compile(function, backend="effcc", fullgraph=True)
    return made(x), effcc_externs(made)


@pytest.mark.parametrize(("source", "to"), PAIRS)
def test_bytes_are_read_as_numbers_of_another_dtype(source: torch.dtype, to: torch.dtype) -> None:
    def function(x: Tensor) -> Tensor:
        return x.view(to).flip(0)  # moves, which change no bits

    x = of_bytes(source)
    got, externs = compiled(function, x)
    assert not externs
    assert got.dtype == to
    assert torch.equal(got.view(torch.uint8), function(x).view(torch.uint8))


def test_a_square_root_by_its_bits() -> None:
    def rsqrt(x: Tensor) -> Tensor:
        y = (0x5F3759DF - (x.view(torch.int32) >> 1)).view(torch.float32)
        return y * (1.5 - 0.5 * x * y * y)

    x = torch.rand(5, 33) + 0.01
    got, externs = compiled(rsqrt, x)
    assert not externs
    assert torch.equal(got, rsqrt(x))


def test_a_view_of_an_input_shares_its_memory() -> None:
    x = torch.ones(4, 6)
    got, _ = compiled(lambda x: (x.view(torch.int16), x + 1), x)
    got[0].zero_()
    assert torch.equal(x, torch.zeros(4, 6))


@pytest.mark.parametrize(("source", "to"), [(torch.int16, torch.float16), (torch.bfloat16, torch.int16)])
def test_bits_of_half_types_are_pytorchs(source: torch.dtype, to: torch.dtype) -> None:
    x = of_bytes(source)
    got, externs = compiled(lambda x: x.view(to).flip(0), x)
    assert externs == {"aten::view.dtype"}
    torch.testing.assert_close(got, x.view(to).flip(0), rtol=0, atol=0, equal_nan=True)
