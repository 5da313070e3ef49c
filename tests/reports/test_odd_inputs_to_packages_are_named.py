"""Whatever is given to a package as an input is computed with, or refused by an InputError that names it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import effcc
from effcc.errors import InputError, PackageError
from effcc.runtime.package import Package


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * 2 + y


class Writes(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x.add_(y)
        return x * 3


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    args = (torch.zeros(3, 4), torch.zeros(3, 4))
    return effcc.load(effcc.export(Sum(), args, tmp_path_factory.mktemp("odd") / "sum.effcc"))


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Package:
    args = (torch.zeros(3, 4), torch.zeros(3, 4))
    return effcc.load(effcc.export(Writes(), args, tmp_path_factory.mktemp("odd") / "writes.effcc"))


class Wrapped(Tensor):
    """A tensor in name only."""

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("no memory here")


Z = torch.arange(12.0).reshape(3, 4)

TAKEN: dict[str, Callable[[], Any]] = {
    "negated": lambda: torch._neg_view(Z),
    "the imaginary part of a conjugate": lambda: torch.complex(Z, Z + 1).conj().imag,
    "needs a gradient": lambda: Z.clone().requires_grad_(),
    "a parameter": lambda: nn.Parameter(Z),
    "transposed": lambda: Z.reshape(4, 3).t(),
    "expanded": lambda: torch.ones(3, 1).expand(3, 4),
    "a column of a larger one": lambda: torch.randn(3, 4, 5)[..., 2],
    "a reversed array": lambda: Z.numpy()[::-1],
    "a read-only array": lambda: np.broadcast_to(np.float32(2), (3, 4)),
    "an array at an odd address": lambda: np.frombuffer(bytes(49), np.uint8)[1:].view(np.float32).reshape(3, 4),
    "a matrix": lambda: np.matrix(Z.numpy()),
}

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "complex": (lambda: torch.complex(Z, Z), "got complex64"),
    "conjugated": (lambda: torch.complex(Z, Z).conj(), "got complex64"),
    "sparse": (lambda: Z.to_sparse(), "layout torch.sparse_coo: call .to_dense() first"),
    "compressed rows": (lambda: Z.to_sparse_csr(), "layout torch.sparse_csr"),
    "mkldnn": (lambda: Z.to_mkldnn(), "layout torch._mkldnn"),
    "nested": (lambda: torch.nested.nested_tensor([Z[0], Z[1]]), "a nested one"),
    "jagged": (lambda: torch.nested.nested_tensor([Z[0], Z[1]], layout=torch.jagged), "a NestedTensor"),
    "quantized": (lambda: torch.quantize_per_tensor(Z, 0.1, 0, torch.quint8), "call .dequantize() first"),
    "fp8": (lambda: Z.to(torch.float8_e4m3fn), "got float8_e4m3fn[3, 4]"),
    "meta": (lambda: Z.to("meta"), "one on meta"),
    "fake": (lambda: FakeTensorMode().from_tensor(Z), "a FakeTensor, which is a tensor in name only"),
    "a subclass": (lambda: Z.as_subclass(Wrapped), "a Wrapped, which is a tensor in name only"),
    "zeros without memory": (lambda: torch._efficientzerotensor(3, 4), "call .clone() first"),
    "doubles": (lambda: Z.double(), "got float64[3, 4]"),
    "no dimensions": (lambda: torch.tensor(1.0), "got float32[]"),
    "another size": (lambda: Z[:2], "got float32[2, 4]"),
    "a list": (lambda: Z.tolist(), "got list"),
    "a number": (lambda: 1.0, "got float"),
    "nothing": (lambda: None, "got NoneType"),
    "another byte order": (lambda: np.zeros((3, 4), ">f4"), "got >f4[3, 4]"),
    "records": (lambda: np.zeros((3, 4), [("a", "f4")]), "got [('a', '<f4')][3, 4]"),
    "objects": (lambda: np.zeros((3, 4), object), "got object[3, 4]"),
    "dates": (lambda: np.zeros((3, 4), "M8[s]"), "got datetime64[s][3, 4]"),
    "strings": (lambda: np.zeros((3, 4), "U2"), "got <U2[3, 4]"),
    "an fp8 array": (lambda: np.zeros((3, 4), ml_dtypes.float8_e5m2), "got float8_e5m2[3, 4]"),
    "masked": (lambda: np.ma.masked_array(Z.numpy()), "got a masked one; fill it first"),
    "a scalar of NumPy": (lambda: np.float32(1), "got float32"),
}


@pytest.mark.parametrize("which", TAKEN)
def test_views_and_odd_memory_are_computed_with(package: Package, which: str) -> None:
    value, other = TAKEN[which](), torch.ones(3, 4)
    plain = torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value.detach().resolve_neg()
    torch.testing.assert_close(torch.as_tensor(package(value, other)), plain * 2 + other)
    torch.testing.assert_close(torch.as_tensor(package(other, value)), other * 2 + plain)


@pytest.mark.parametrize("which", REFUSED)
@pytest.mark.parametrize("position", [0, 1])
def test_what_has_no_such_memory_is_refused_by_name(package: Package, which: str, position: int) -> None:
    make, message = REFUSED[which]
    arguments: list[Any] = [Z, Z]
    arguments[position] = make()
    with pytest.raises(InputError) as caught:
        package(*arguments)
    assert f"input {position} ({'xy'[position]})" in str(caught.value)
    assert message in str(caught.value)


def test_function_transforms_are_refused(package: Package) -> None:
    for transformed in (torch.func.vmap(package), torch.func.grad(lambda x, y: package(x, y).sum())):
        with pytest.raises(InputError, match="function transform"):
            transformed(Z, Z)


def test_a_written_input_is_written_or_refused(writing: Package) -> None:
    x, y = torch.randn(4, 3).t(), torch.ones(3, 4)
    before = x.clone()
    torch.testing.assert_close(writing(x, y), (before + 1) * 3)
    torch.testing.assert_close(x, before + 1)
    base = torch.zeros(6, 4)
    for given, message in (
        ((torch.ones(3, 1).expand(3, 4), y), "elements of what was given share memory"),
        ((base[:3], base[1:4]), "inputs x and y share memory, and the model writes x"),
        ((torch._neg_view(Z), y), "a conjugated or negated view"),
        ((np.broadcast_to(np.float32(1), (3, 4)), y), "read-only"),
    ):
        with pytest.raises(InputError, match=message):
            writing(*given)
    assert not base.any()


@pytest.mark.parametrize("threads", [1.5, 0, -1, True, "2", 10**9, float("nan"), [1]])
def test_threads_that_are_no_number_of_threads_are_refused(threads: Any, package: Package) -> None:
    for use in (
        lambda: effcc.load(package.path, threads=threads),
        lambda: effcc.compile(nn.Linear(3, 2), threads=threads)(torch.zeros(1, 3)),
    ):
        with pytest.raises(InputError, match="expected a whole number from 1 to 1024"):
            use()


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    for path in ("/dev/zero", "a\0b", "x" * 5000, tmp_path, tmp_path / "nothing.effcc"):
        with pytest.raises(PackageError):
            effcc.load(path)


def test_loading_leaves_no_file_and_a_closed_package_computes_nothing(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with effcc.load(package.path) as loaded:
        expected = loaded(Z, Z)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="closed"):
        loaded(Z, Z)
    torch.testing.assert_close(package(Z, Z), expected)
