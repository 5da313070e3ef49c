"""Derivatives by torch.func, and writes into memory by strides, which they use, are eager's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

_WEIGHT = torch.linspace(-1, 1, 12).reshape(3, 4)
_MODEL = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
_PARAMETERS = {name: p.detach() for name, p in _MODEL.named_parameters()}


def layer(x: Tensor) -> Tensor:
    return (_WEIGHT @ x).tanh()


def energy(x: Tensor) -> Tensor:
    return (layer(x) ** 2).sum()


def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    return functional_call(_MODEL, parameters, (x,)).pow(2).sum()


TRANSFORMS: dict[str, Callable[[Tensor], Any]] = {
    "jacrev": jacrev(layer),
    "jacfwd": jacfwd(layer),
    "hessian": hessian(energy),
    "grad of grad": grad(lambda x: grad(energy)(x).sum()),
    "vjp": lambda x: vjp(layer, x)[1](torch.ones(3)),
    "jvp": lambda x: jvp(layer, (x,), (x * 2,)),
    "vmap of jacrev": lambda x: vmap(jacrev(layer))(torch.stack([x, x * 2])),
    "per-sample gradients": lambda x: vmap(grad(loss), (None, 0))(_PARAMETERS, torch.stack([x, x * 2])),
    "jacrev of a model": lambda x: jacrev(lambda p: functional_call(_MODEL, p, (x,)))(_PARAMETERS),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_compiled_transform_is_eagers(name: str) -> None:
    torch.compiler.reset()
    x = torch.tensor([0.5, -1.0, 2.0, 0.25])
    found = torch.compile(TRANSFORMS[name], backend="effcc", fullgraph=True)(x)
    torch.testing.assert_close(found, TRANSFORMS[name](x))


SCATTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "row-major": lambda x: torch.as_strided_scatter(x * 3, x[:2, :2] * 2, (2, 2), (4, 2), 1),
    "a transposed tensor": lambda x: torch.as_strided_scatter((x * 3).t(), x[:2, 0], (2,), (5,), 2),
    "a tensor with gaps": lambda x: torch.as_strided_scatter((x * 3)[:, ::2], x[:2, 0], (2,), (5,), 3),
    "a slice, at its own offset": lambda x: torch.as_strided_scatter((x * 3)[1:], x[:2, 0], (2,), (3,)),
}


@pytest.mark.parametrize("name", SCATTERS)
def test_a_write_by_strides_finds_its_place(name: str) -> None:
    torch.compiler.reset()
    x = torch.arange(20.0).reshape(5, 4)

    def function(x: Tensor) -> Tensor:
        big = torch.sort(x.sin(), -1).values  # so that what follows does not stand first in the arena
        return SCATTERS[name](x) + big.sum()

    torch.testing.assert_close(torch.compile(function, backend="effcc", fullgraph=True)(x), function(x))


def test_the_gradient_of_a_write_by_strides() -> None:
    torch.compiler.reset()
    expected, found = [], []
    for into, compiled in ((expected, False), (found, True)):
        x = torch.arange(20.0).reshape(5, 4).requires_grad_()
        function = SCATTERS["row-major"]
        y = torch.compile(function, backend="effcc")(x) if compiled else function(x)
        (y * torch.arange(20.0).reshape(5, 4)).sum().backward()
        into.append(x.grad)
    torch.testing.assert_close(found, expected)
