"""Components of stored weights changed in every way: the next call of a compiled model computes with what they hold."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from effcc.compression.quantize import quantize
from effcc.compression.sparsify import sparsify

ROWS = (1, 64)
"""One row reads copies of some schemes, many rows a decoded one."""


def scales(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """The floating components, their modules and names."""
    for module in model.modules():
        for name in getattr(module, "weight_components", ()):
            component = getattr(module, name)
            if component.is_floating_point():
                yield module, name, component


def in_place(model: nn.Module) -> None:
    with torch.no_grad():
        for _, _, t in scales(model):
            t.mul_(1.5)


def by_data(model: nn.Module) -> None:
    for _, _, t in scales(model):
        t.data.mul_(-0.7)


def other_data(model: nn.Module) -> None:
    for _, _, t in scales(model):
        t.data = t.data * 0.6


def by_numpy(model: nn.Module) -> None:
    for _, _, t in scales(model):
        view = t.detach().numpy()
        view *= 1.25


def by_address(model: nn.Module) -> None:
    for _, _, t in scales(model):
        other = t.detach() * 0.5
        ctypes.memmove(t.data_ptr(), other.data_ptr(), other.nbytes)


def by_storage(model: nn.Module) -> None:
    for _, _, t in scales(model):
        t.untyped_storage().copy_((t.detach() * 1.3).untyped_storage())


def loaded(assign: bool) -> Callable[[nn.Module], None]:
    def load(model: nn.Module) -> None:
        state = {n: t * 1.2 if t.is_floating_point() else t.clone() for n, t in model.state_dict().items()}
        model.load_state_dict(state, assign=assign)

    return load


def assigned(model: nn.Module) -> None:
    for module, name, t in scales(model):
        made = t.detach() * 0.8
        setattr(module, name, nn.Parameter(made, t.requires_grad) if isinstance(t, nn.Parameter) else made)


def swapped(model: nn.Module) -> None:
    for _, _, t in scales(model):
        made = t.detach() * 1.1
        torch.utils.swap_tensors(t, nn.Parameter(made, t.requires_grad) if isinstance(t, nn.Parameter) else made)


def optimized(model: nn.Module) -> None:
    trained = [t.requires_grad_() for _, _, t in scales(model) if isinstance(t, nn.Parameter)]
    for t in trained:
        t.grad = torch.randn_like(t)
    if trained:
        torch.optim.AdamW(trained, lr=0.05, fused=True).step()


def one_element(model: nn.Module) -> None:
    _, _, t = next(scales(model))
    with torch.no_grad():
        t.view(-1)[t.numel() // 2] *= 40


WAYS = (in_place, by_data, other_data, by_numpy, by_address, by_storage, loaded(False), loaded(True), assigned, swapped,
        optimized, one_element)  # fmt: skip


@pytest.mark.parametrize("scheme", ["int6", "int4(group=32)", "csr"])
def test_calls_see_every_change(scheme: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 192)).eval()
    model = sparsify(model, scheme, density=0.2) if scheme == "csr" else quantize(model, scheme)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="effcc", dynamic=False)
    for way in (None, *WAYS):
        if way is not None:
            way(model)
        for rows in ROWS:
            x = torch.randn(rows, 256)
            with torch.no_grad():
                got, expected = compiled(x), model(x)
            name = getattr(way, "__name__", "first")
            assert (got - expected).abs().max() < 1e-4 * expected.abs().max(), f"{scheme}, {rows} rows: {name}"
    other = copy.deepcopy(model)
    in_place(other)
    x = torch.randn(1, 256)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(other, backend="effcc")(x), other(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
