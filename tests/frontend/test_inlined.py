"""Layers that a model marks as regions are compiled as if nobody had marked them; Dynamo traces equal ones once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import effcc
from effcc.backend import programs_of
from effcc.ir.program import Launch

region = torch.compiler.nested_compile_region


class Scaled(nn.Module):
    """Reads a constant of its own, and is a region inside another."""

    @region
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor([1.0, 2.0, 4.0, 8.0]) + 1.0


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.out, self.scaled = nn.Linear(4, 8), nn.Linear(8, 4), Scaled()

    @region
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.inside(x).relu()
        return x + self.scaled(self.out(hidden)), hidden.sum(-1)


class Model(nn.Module):
    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(layers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, hidden = layer(x)
            total = total + hidden
        return x, total


def test_marked_layers_are_compiled_with_their_own_weights() -> None:
    torch._dynamo.reset()
    model = Model().eval()
    compiled = effcc.compile(model, dynamic=False)
    x = torch.randn(5, 4)
    with torch.no_grad():
        for got, wanted in zip(compiled(x), model(x), strict=True):
            torch.testing.assert_close(got, wanted)
    (made,) = programs_of(compiled)
    assert made.state.program is not None
    assert all(isinstance(step, Launch) for step in made.state.program.steps)  # PyTorch runs nothing


def test_gradients_pass_through_marked_layers() -> None:
    torch._dynamo.reset()
    model = Model().double()
    x = torch.randn(5, 4, dtype=torch.float64)
    wanted = torch.autograd.grad(sum(y.square().sum() for y in model(x)), list(model.parameters()))
    compiled = effcc.compile(model)
    got = torch.autograd.grad(sum(y.square().sum() for y in compiled(x)), list(model.parameters()))
    for g, w in zip(got, wanted, strict=True):
        torch.testing.assert_close(g, w)


class Noisy(nn.Module):
    @region
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, True)


def test_marked_layers_draw_random_numbers_in_order() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(Noisy(), Noisy())
    x = torch.ones(64)
    with torch.no_grad():
        torch.manual_seed(3)
        wanted = model(x)
        torch.manual_seed(3)
        assert torch.equal(effcc.compile(model)(x), wanted)
