"""What several read of one module is kept in bytes: found by calibration, saved, read as bytes compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.compression.outputs import OUTPUT_STEP, rounds
from effcc.compression.quantize import quantize
from effcc.compression.save import load_into, save
from effcc.errors import CheckpointError
from effcc.target import Target


class Block(nn.Module):
    """A residual block, of which one activation runs twice."""

    def __init__(self, before: int, after: int, shared: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        self.inner, self.outer = nn.ReLU(), nn.ReLU()
        if shared:
            self.outer = self.inner

    def forward(self, x: Tensor) -> Tensor:
        made = self.second(self.inner(self.first(x)))
        made += self.shortcut(x)
        return self.outer(made)


def network(shared: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    blocks = (Block(16, 16, shared), Block(16, 32, shared))
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), *blocks, nn.Conv2d(32, 8, 1), nn.AdaptiveAvgPool2d(2)).eval()


def pictures() -> Tensor:
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def rounded(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if rounds(module) is not None}


@pytest.mark.parametrize(
    ("shared", "expected"), [(False, {"1", "2.outer", "3.second"}), (True, {"1", "2", "3.second"})]
)
def test_what_convolutions_and_sums_read_is_rounded_once(shared: bool, expected: set[str]) -> None:
    plain = network(shared)
    made = quantize(copy.deepcopy(plain), activations="int8", data=pictures())
    assert rounded(made) == expected
    assert made[2].first.input_step is made.get_submodule("1").output_step
    assert made[3].first.input_step is made[3].shortcut.input_step
    with torch.no_grad():
        want, got = plain(pictures()), made(pictures())
        assert 0 < (got - want).norm() / want.norm() < 0.02
    assert not rounded(quantize(network(shared), activations='int8(sums="float")', data=pictures()))


def compiled_for(target: str) -> Callable[..., Tensor]:
    """The network as bytes, compiled, after a call that gives eager's numbers."""
    made = quantize(network(), activations="int8", data=pictures())
    compiled: Callable[..., Tensor] = effcc.compile(made, target=target, dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pictures()), made(pictures()), rtol=1e-5, atol=1e-6)
    return compiled


def test_bytes_between_kernels_give_what_eager_gives() -> None:
    compiled_for("host")


@pytest.mark.skipif(not Target.parse("avx512_vnni").runs_here(), reason="no dot products of bytes on this CPU")
def test_kernels_read_and_write_bytes_alone() -> None:
    compiled = compiled_for("avx512_vnni")
    (program,) = effcc.explain(compiled, measure=False).programs
    heads = [k.text.splitlines()[0] for k in program.kernels if k.name.startswith("convolution_cast")]
    assert len(heads) == 6
    assert all("cast: u8" in h.split("->")[1] or "cast: i8" in h.split("->")[1] for h in heads)
    assert not any("x1: f32" in h or "x1: i32" in h for h in heads)


def test_rounded_outputs_are_saved(tmp_path: Path) -> None:
    made = quantize(network(), activations="int8", data=pictures())
    path = save(made, tmp_path / "made.safetensors")
    again = load_into(network(), path)
    assert rounded(again) == rounded(made)
    assert again[2].first.input_step is again.get_submodule("1").output_step
    with torch.no_grad():
        assert torch.equal(again(pictures()), made(pictures()))


def test_rounded_outputs_want_their_step(tmp_path: Path) -> None:
    made = quantize(network(), activations="int8", data=pictures())
    made.get_submodule("3.second").register_buffer(OUTPUT_STEP, torch.tensor(-1.0))
    path = save(made, tmp_path / "made.safetensors")
    with pytest.raises(CheckpointError, match="expected a positive step"):
        load_into(network(), path)
