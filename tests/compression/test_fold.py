"""Changes of inputs that move into what computes the inputs: the same function, and nothing left to do at run time."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effcc
from effcc.compression import install
from effcc.compression.modules import EncodedLinear
from effcc.errors import InputError

WIDTH, HEADS, SHARED = 32, 4, 2


class Scaled(nn.Module):
    """A root mean square norm, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Block(nn.Module):
    """A decoder's layer: heads that share keys and values, and a gated product."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Scaled(), nn.LayerNorm(WIDTH)
        nn.init.normal_(self.second.bias)
        size = WIDTH // HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, n * size) for n in (HEADS, SHARED, SHARED))
        self.o = nn.Linear(WIDTH, WIDTH)
        self.gate, self.up, self.down = nn.Linear(WIDTH, 48), nn.Linear(WIDTH, 48), nn.Linear(48, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        q, k, v = (p(h).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for p in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(seen.transpose(1, 2).flatten(2))
        h = self.second(x)
        made: Tensor = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return made


class PostNorm(nn.Module):
    """Layers whose input is also added to their output, as BERT's: the norm's weight cannot take their factor."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        made: Tensor = h + self.layer(h)
        return made


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 9, WIDTH, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.2, 3, WIDTH)


def changed(model: nn.Module) -> list[str]:
    layers = {n: m for n, m in model.named_modules() if isinstance(m, EncodedLinear)}
    return [n for n, m in layers.items() if m.input_scale is not None or m.input_rotation is not None]


@pytest.mark.parametrize("method", ["awq", "smoothquant", "awq+gptq"])
def test_scales_move_into_norms_and_rows(block: Block, x: Tensor, method: str) -> None:
    made = effcc.quantize(copy.deepcopy(block), "f16", method=method, data=x, fold=True)
    assert changed(made) == []
    assert not torch.equal(made.first.weight, block.first.weight)
    assert not torch.equal(made.second.bias, block.second.bias)
    torch.testing.assert_close(made(x), block(x), rtol=2e-3, atol=2e-3)


def test_rotations_move_through_attention_where_nothing_else_stands(block: Block, x: Tensor) -> None:
    made = effcc.quantize(copy.deepcopy(block), "f16", method="hadamard", data=x, fold=True)
    assert "o" not in changed(made) and {"q", "k", "v"} <= set(changed(made))
    assert not torch.allclose(made.v.bias, block.v.bias)
    torch.testing.assert_close(made(x), block(x), rtol=2e-3, atol=2e-3)


def test_layers_of_one_model_share_a_rotation_and_models_do_not(x: Tensor) -> None:
    first, second = (
        effcc.quantize(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4)), "int4", method="hadamard")
        for _ in range(2)
    )
    assert first[0].input_rotation is first[1].input_rotation
    first[0].input_rotation.zero_()
    assert second[0].input_rotation.any()
    assert effcc.quantize(nn.Linear(WIDTH, 4), "int4", method="hadamard").input_rotation.any()


def test_where_one_layer_reads_folding_changes_no_code(x: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 24), nn.ReLU(), nn.Linear(24, 8))
    schemes = {"2": "int4(group=8)"}
    apart, moved = (
        effcc.quantize(copy.deepcopy(model), schemes, method="awq", data=x, fold=fold) for fold in (False, True)
    )
    assert changed(apart) == ["2"] and changed(moved) == []
    assert torch.equal(apart[2].weight_values, moved[2].weight_values)
    torch.testing.assert_close(moved(x), apart(x))


def test_what_others_read_is_left_alone(x: Tensor) -> None:
    model = PostNorm().eval()
    made = effcc.quantize(copy.deepcopy(model), "int4(group=8)", method="smoothquant", data=x, fold=True)
    assert changed(made) == ["layer"]
    assert torch.equal(made.norm.weight, model.norm.weight)


class Hidden(nn.Module):
    """What a norm computes is also read by code that no operation of PyTorch's shows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.sum = torch.jit.script(Sum())

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        made: Tensor = self.layer(h) + self.sum(h)
        return made


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_reader_that_hides_is_noticed_by_what_it_computes(x: Tensor) -> None:
    model = Hidden().eval()
    made = effcc.quantize(model, "int4(group=8)", method="smoothquant", data=x, fold=True)
    assert changed(made) == ["layer"]


def test_a_norm_whose_readers_are_not_all_stored_is_left_alone(block: Block, x: Tensor) -> None:
    schemes = {"k": None, "*": "f16"}
    made = effcc.quantize(copy.deepcopy(block), schemes, method="smoothquant", data=x, fold=True)
    assert {"q", "v"} <= set(changed(made))
    assert torch.equal(made.first.weight, block.first.weight)


def test_folded_models_have_no_more_kernels(block: Block, x: Tensor) -> None:
    def kernels(**given: object) -> int:
        model = effcc.quantize(copy.deepcopy(block), "int4(group=16)", **given)  # type: ignore[arg-type]
        compiled = effcc.compile(model)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
        return sum(len(p.kernels) for p in effcc.explain(compiled, measure=False).programs)

    assert kernels(method="smoothquant", data=x, fold=True) == kernels()


def test_folding_needs_data(block: Block, x: Tensor) -> None:
    with pytest.raises(InputError, match="fold=True needs data"):
        effcc.quantize(block, "int4(group=8)", method="hadamard", fold=True)
    assert type(block.q) is nn.Linear


@pytest.mark.parametrize("at", [0, 3, 6])
def test_an_interrupt_between_two_layers_leaves_the_model_as_it_was(
    block: Block, x: Tensor, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., None] = install.install
    left = [at]

    def interrupted(*given: object) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real(*given)

    monkeypatch.setattr(install, "install", interrupted)
    before = {n: t.clone() for n, t in block.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        effcc.quantize(block, "int4(group=8)", method="awq", data=x, fold=True)
    after = block.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[n], t) for n, t in before.items())
    assert {type(m) for m in block.children()} == {Scaled, nn.LayerNorm, nn.Linear}
