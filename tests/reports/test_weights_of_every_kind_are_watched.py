"""Whatever a weight is (tied, a slice, shared, mapped from a file, encoded, captured): its changes are seen."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune

import effcc
from effcc.errors import InputError
from effcc.runtime.watch import METHODS
from effcc.runtime.written import why_not

X = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))

Case = tuple[Callable[..., Any], Callable[[], Any]]
"""What is compiled and called with X, and a change of its weights."""


class Uses(nn.Module):
    """A layer over given tensors."""

    def __init__(self, rule: Callable[..., Tensor], **tensors: Tensor) -> None:
        super().__init__()
        self.rule = rule
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(x, **dict(self.named_buffers(remove_duplicate=False)))


def mlp(width: int = 160) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 48)).eval()


def tied() -> Case:
    model = mlp()
    model.append(nn.Linear(48, 64))
    model.append(nn.Linear(64, 160))
    model[4].weight = model[0].weight
    return model, lambda: model[0].weight.data[:, 5].add_(1)


def slices_of_one_storage() -> Case:
    whole = torch.randn(3 * 64, 64) / 8
    q, k, v = whole.chunk(3)
    model = Uses(lambda x, q, k, v: (x @ q.t()) * (x @ k.t()) + x @ v.t(), q=q, k=k, v=v)
    return model, lambda: whole[100, 7].add_(1)


def columns_of_a_storage() -> Case:
    whole = torch.randn(200, 100)
    model = Uses(lambda x, w: torch.relu(x @ (w * 2).t()), w=whole[:, 20:84])
    return model, lambda: whole[150, 83].add_(1)


def expanded() -> Case:
    row = torch.randn(1, 64)
    model = Uses(lambda x, w: torch.relu(x @ (w * 2 + 1).t()), w=row.expand(300, 64))
    return model, lambda: row[0, 63].add_(1)


def transposed() -> Case:
    whole = torch.randn(64, 300)
    model = Uses(lambda x, w: torch.relu(x @ (w.exp() / 4).t()), w=whole.t())
    return model, lambda: whole[5, 299].add_(1)


def empty_beside_full() -> Case:
    full = torch.randn(300, 64)
    model = Uses(lambda x, e, w: torch.relu(x @ torch.cat([e, w.exp()]).t()), e=torch.empty(0, 64), w=full)
    return model, lambda: full.numpy().__setitem__((299, 63), 2.0)


def one_number() -> Case:
    scale, w = torch.tensor(2.0), torch.randn(300, 64)
    model = Uses(lambda x, s, w: torch.relu(x @ (w * s.exp()).t()), s=scale, w=w)
    return model, lambda: scale.numpy().fill(0.5)


def integers() -> Case:
    index, w = torch.arange(300), torch.randn(300, 64)
    model = Uses(lambda x, i, w: torch.relu(x @ w[i].exp().t()), i=index, w=w)
    return model, lambda: index.numpy()[::-1].sort()


def shared_with_a_child() -> Case:
    memory = mmap.mmap(-1, 300 * 64 * 4)
    w = torch.frombuffer(memory, dtype=torch.float32).view(300, 64).normal_()
    model = Uses(lambda x, w: torch.relu(x @ w.exp().t()), w=w)

    def change() -> None:
        child = os.fork()
        if not child:
            struct.pack_into("f", memory, len(memory) // 2, 3.0)
            os._exit(0)
        os.waitpid(child, 0)

    return model, change


def share_memory() -> Case:
    model = mlp().share_memory()
    assert model[0].weight.is_shared()
    return model, lambda: model[0].weight.data[77, 7].add_(1)


def mapped_file(mode: str) -> Case:
    path = Path("weights.bin").absolute()
    path.write_bytes(torch.randn(300 * 64).numpy().tobytes())
    w = torch.from_file(str(path), shared=mode == "shared", size=300 * 64).view(300, 64)
    model = Uses(lambda x, w: torch.relu(x @ w.exp().t()), w=w)

    def change() -> None:
        with path.open("r+b") as file:
            file.seek(300 * 64 * 2)
            file.write(struct.pack("f", 3.0))
        if mode == "private":
            w.data[200, 9] = 2.0

    return model, change


def loaded_by_mapping() -> Case:
    torch.save(mlp().state_dict(), "state.pt")
    model = mlp()
    model.load_state_dict(torch.load("state.pt", mmap=True), assign=True)
    return model, lambda: model[0].weight.data[100, 9].add_(1)


def made_in_inference_mode() -> Case:
    with torch.inference_mode():
        model = mlp()
    return model, lambda: model[0].weight.data.numpy()[100].fill(0.1)


def loaded_in_inference_mode() -> Case:
    with torch.inference_mode():
        model = mlp()

    def change() -> None:
        with torch.inference_mode():
            model.load_state_dict({name: t + 0.01 for name, t in mlp().state_dict().items()})

    return model, change


def from_meta() -> Case:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(64, 160), nn.ReLU(), nn.Linear(160, 48)).eval()
    model.load_state_dict(mlp().state_dict(), assign=True)
    return model, lambda: model.load_state_dict({n: t * 2 for n, t in mlp().state_dict().items()}, assign=True)


def swapped_on_load() -> Case:
    model = mlp()

    def change() -> None:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            model.load_state_dict({n: t * 2 for n, t in mlp().state_dict().items()})
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    return model, change


def given_at_each_call() -> Case:
    model = mlp()
    weights = {"current": dict(mlp().named_parameters())}

    def call(x: Tensor) -> Any:
        return functional_call(model, weights["current"], (x,))

    return call, lambda: weights["current"]["0.weight"].data[33].mul_(2)


def weight_norm() -> Case:
    model = mlp()
    parametrizations.weight_norm(model[0])
    return model, lambda: model[0].parametrizations.weight.original0.data.mul_(3)


def orthogonal_norm() -> Case:
    model = mlp()
    parametrizations.spectral_norm(model[0])
    return model.eval(), lambda: model[0].parametrizations.weight.original.data[:, 3].mul_(-3)


def pruned_by_mask() -> Case:
    model = mlp()
    prune.random_unstructured(model[0], "weight", 0.3)
    return model, lambda: model[0].weight_mask.data[44].zero_()


def merged_adapter() -> Case:
    model = mlp()
    a, b = torch.randn(4, 64), torch.randn(160, 4)
    return model, lambda: model[0].weight.addmm_(b, a)


def quantized() -> Case:
    model: Any = effcc.quantize(mlp(), "int8")
    stored = [t for t in model.state_dict().values() if t.dtype == torch.int8 or t.dtype == torch.uint8]
    return model, lambda: stored[0].data.view(-1)[1000:1100].neg_()


def scales_of_quantized() -> Case:
    model: Any = effcc.quantize(mlp(), "int8")
    scales = [t for n, t in model.state_dict().items() if t.dtype == torch.float32 and "scale" in n]
    return model, lambda: scales[0].data.view(-1)[3:9].mul_(4)


def sparsified() -> Case:
    model: Any = effcc.sparsify(mlp(), "block(4,1)", density=0.5)
    stored = max((t for t in model.state_dict().values() if t.dtype == torch.float32), key=Tensor.numel)
    return model, lambda: stored.data.view(-1)[1000:1100].neg_()


def captured_by_a_function() -> Case:
    w = torch.randn(300, 64)

    def call(x: Tensor) -> Tensor:
        return torch.relu(x @ w.exp().t())

    return call, lambda: w.numpy()[123].fill(0.5)


def parameter_of_a_function() -> Case:
    w = nn.Parameter(torch.randn(300, 64))

    def call(x: Tensor) -> Tensor:
        return torch.relu(x @ w.exp().t())

    return call, lambda: w.data[123].fill_(0.5)


class Scaled(nn.Module):
    """A model with a tensor that is neither a parameter nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.plain = mlp(), torch.randn(48)

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) * self.plain.exp()


def plain_attribute() -> Case:
    model = Scaled()
    return model, lambda: model.plain.numpy().fill(1.0)


def bilinear_of_one_storage() -> Case:
    whole = torch.randn(64 * 64 + 64)
    model = Uses(lambda x, a, b: x @ a.exp().t() + b, a=whole[: 64 * 64].view(64, 64), b=whole[64 * 64 :])
    return model, lambda: whole.numpy().put([4095, 4096], 1.0)


CASES: dict[str, Callable[[], Case]] = {
    made.__name__: made
    for made in (
        tied, slices_of_one_storage, columns_of_a_storage, expanded, transposed, empty_beside_full, one_number,
        integers, shared_with_a_child, share_memory, loaded_by_mapping, made_in_inference_mode,
        loaded_in_inference_mode, from_meta, swapped_on_load, given_at_each_call, weight_norm, orthogonal_norm,
        pruned_by_mask, merged_adapter, quantized, scales_of_quantized, sparsified, captured_by_a_function,
        parameter_of_a_function, plain_attribute, bilinear_of_one_storage,
    )
} | {f"{mode} file": lambda mode=mode: mapped_file(mode) for mode in ("shared", "private")}  # fmt: skip


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    if request.param == "pages" and why_not():
        pytest.skip(why_not())
    monkeypatch.setenv("EFFCC_WATCH", request.param)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    torch.manual_seed(3)  # of other weights, one that changes may stand behind a ReLU that is zero for all inputs
    yield request.param
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_seen(method: str, name: str) -> None:
    call, change = CASES[name]()
    compiled = torch.compile(call, backend="effcc", options={"threads": 1})
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(compiled(X), call(X), rtol=1e-4, atol=1e-4)
        before = call(X)
        change()
        after = call(X)
        assert not torch.allclose(before, after)
        for _ in range(2):
            torch.testing.assert_close(compiled(X), after, rtol=1e-4, atol=1e-4)


def shrink(layer: Any, inputs: Any) -> None:
    layer.weight.data.mul_(0.9)


def test_a_hook_that_writes_weights_in_each_call_is_followed(method: str) -> None:
    models = [mlp(), mlp()]
    for model in models:
        model[0].register_forward_pre_hook(shrink)
    compiled = torch.compile(models[0], backend="effcc", options={"threads": 1})
    with torch.no_grad():
        for _ in range(6):
            torch.testing.assert_close(compiled(X), models[1](X))


def test_a_weight_whose_memory_was_freed_is_refused(method: str) -> None:
    model = mlp()
    compiled = torch.compile(model, backend="effcc", options={"threads": 1})
    with torch.no_grad():
        compiled(X)
        model[0].weight.untyped_storage().resize_(64)
        with pytest.raises(
            InputError, match=r"a weight float32\[160, 64\] takes 40960 bytes, of which its storage holds 64"
        ):
            compiled(X)
