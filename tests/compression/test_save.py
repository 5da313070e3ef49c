"""Saved weights come back as they were stored; files that do not fit are refused, and the model stays as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import effcc
from effcc.errors import CheckpointError


class Tied(nn.Module):
    """Two layers with one weight, a third, and a buffer."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.third(self.second(self.first(x))))  # type: ignore[no-any-return]


def tied(seed: int, width: int = 8) -> Tied:
    torch.manual_seed(seed)
    return Tied(width).eval()


ENCODINGS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dense": lambda m: m,
    "int4": lambda m: effcc.quantize(m, "int4(group=4)"),
    "int8 of blocks": lambda m: effcc.quantize(effcc.sparsify(m, density=0.5)),
    "blocks": lambda m: effcc.sparsify(m, density=0.5),
    "scaled inputs": lambda m: effcc.quantize(m, method="awq", data=torch.rand(9, 8) * torch.arange(8)),
    "turned inputs": lambda m: effcc.quantize(m.bfloat16(), "int4(scale=\"f32\")", method="hadamard"),
}  # fmt: skip


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_what_is_saved_comes_back(encode: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    encoded: Any = encode(tied(0))
    path = effcc.save(encoded, tmp_path / "model.safetensors")
    kind = encoded.norm.weight.dtype
    loaded: Any = effcc.load_into(tied(1).to(kind), path)
    x = torch.randn(3, 8, dtype=kind)
    assert torch.equal(loaded(x), encoded(x))
    for name in ("first", "second", "third"):
        got, expected = getattr(loaded, name), getattr(encoded, name)
        assert repr(got) == repr(expected)
        assert getattr(got, "weight_error", None) == getattr(expected, "weight_error", None)
    first, second = (m.state_dict(keep_vars=True) for m in (loaded.first, loaded.second))
    assert first.keys() == encoded.first.state_dict().keys()
    assert all(first[name] is second[name] for name in first if name.startswith("weight"))
    assert torch.equal(effcc.load_into(loaded, path)(x), encoded(x))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_shared_weights_take_their_bytes_once(tmp_path: Path) -> None:
    with safe_open(effcc.save(effcc.quantize(tied(0)), tmp_path / "tied"), "pt") as file:
        assert [n for n in file.keys() if n.endswith("weight_values")] == ["first.weight_values", "third.weight_values"]  # noqa: SIM118


def rewritten(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], object]) -> None:
    """The file with its tensors and what it says of them changed."""
    with safe_open(path, "pt") as file:
        tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        said = json.loads(file.metadata()["effcc"])
    change(tensors, said)
    save_file(tensors, path, {"effcc": json.dumps(said)})


DAMAGES: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, Any]], object], str]] = {
    "a missing component": (lambda t, _: t.pop("third.weight_scale"), "third: the component 'weight_scale'"),
    "a component of another shape": (
        lambda t, _: t.update({"third.weight_scale": torch.ones(3)}),
        r"third: .*scale: f32\[4\]",
    ),
    "a missing tensor": (lambda t, _: t.pop("norm.bias"), "the file has no 'norm.bias'"),
    "a tensor too many": (lambda t, _: t.update(more=torch.ones(1)), "the model has no 'more'"),
    "another dtype": (
        lambda t, _: t.update({"norm.bias": torch.ones(4).half()}),
        r"'norm.bias': expected float32\[4\], got float16\[4\]",
    ),
    "an unknown scheme": (lambda _, s: s["weights"]["third"].update(encoding="int9"), "third: unknown encoding"),
    "a scheme that does not parse": (lambda _, s: s["weights"]["third"].update(encoding="int8("), "third: "),
    "another weight's shape": (lambda _, s: s["weights"]["third"].update(shape=[8, 4]), r"expected .* \[4, 8\]"),
    "a shape of no numbers": (lambda _, s: s["weights"]["third"].update(shape=["4", 8]), "metadata are damaged"),
    "another module": (lambda _, s: s["weights"].update(norm=s["weights"].pop("third")), "has a BatchNorm1d there"),
    "a field too few": (lambda _, s: s["weights"]["third"].pop("error"), "metadata are damaged"),
    "another version": (lambda _, s: s.update(version=2), "expected version 1"),
    "an alias of nothing": (lambda _, s: s["aliases"].update({"second.bias": "nothing"}), "'second.bias' stands for"),
    "components under other names": (
        lambda _, s: s["weights"]["third"].update(components=["weight_scale", "weight_values"]),
        "third: ",
    ),
    "a scale for other inputs": (
        lambda t, _: t.update({"third.input_scale": torch.ones(3)}),
        "changed by does not fit 8 channels",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_refused(damage: Callable[..., object], message: str, tmp_path: Path) -> None:
    path = effcc.save(effcc.quantize(tied(0)), tmp_path / "model")
    rewritten(path, damage)
    assert_refused(path, message)


def assert_refused(path: Path, message: str) -> None:
    model = tied(1)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        effcc.load_into(model, path)
    assert type(model.third) is nn.Linear
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("kept", [0, 5, 200, -1], ids=lambda n: f"{n} bytes")
def test_files_that_end_early_are_refused(kept: int, tmp_path: Path) -> None:
    path = effcc.save(effcc.quantize(tied(0)), tmp_path / "model")
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(path, "expected a safetensors file")


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_saved_file_has_the_permissions_of_others(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        path = effcc.save(nn.Linear(2, 2), tmp_path / "linear.safetensors")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "foreign")
    assert_refused(tmp_path / "foreign", "effcc.save did not write this file")
    assert_refused(tmp_path / "nothing", "expected a safetensors file")
    wider = effcc.save(effcc.quantize(tied(0, width=12)), tmp_path / "wider")
    assert_refused(wider, r"expected a weight of shape \[8, 8\]")


def test_dense_weights_do_not_replace_stored_ones_unasked(tmp_path: Path) -> None:
    path = effcc.save(tied(0), tmp_path / "dense")
    with pytest.raises(CheckpointError, match="first is dense in the file and stored as int8"):
        effcc.load_into(effcc.quantize(tied(1)), path)
