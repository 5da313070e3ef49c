"""`f(x, k)` with another number at every call: an everyday call, in torch.compile and of a package."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

import effcc
from effcc.errors import InputError
from tests.reports.outcomes import difference, outcome

USES: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "multiply": lambda x, k: x * k,
    "compare": lambda x, k: x < k,
    "slice": lambda x, k: x[int(k) : int(k) + 3] + 1,
    "roll": lambda x, k: x.roll(int(k), 0) + 0,
    "fill": lambda x, k: torch.full((3,), k) + x[0, 0],
    "round": lambda x, k: x * round(k * 0.37),
}


@pytest.mark.parametrize("name", USES)
def test_under_torch_compile(name: str) -> None:
    torch._dynamo.reset()
    f = USES[name]
    compiled = torch.compile(f, backend="effcc")
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for k in (3, 5, -2, 0, 1, 100, -1, 2**40, 3, 0.5, -1.5, True):
        torch.testing.assert_close(compiled(x, k), f(x, k), msg=f"k = {k!r}")


FLOATS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "remainder": lambda x, k: x * (k % 3),
    "floor": lambda x, k: x * (k // 2),
    "linspace": lambda x, k: torch.linspace(0, k % 3, 5) * x.sum(),
    "root": lambda x, k: x * abs(k) ** 0.5,
}


@pytest.mark.parametrize("name", FLOATS)
def test_arithmetic_on_floats(name: str) -> None:
    torch._dynamo.reset()
    f = FLOATS[name]
    compiled = torch.compile(f, backend="effcc")
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for k in (2.0, 0.0, 70000.0, -4.5):
        torch.testing.assert_close(compiled(x, k), f(x, k), msg=f"k = {k}")


LARGE: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "product": lambda x, k: x * (k * 3),
    "power": lambda x, k: x * k**2,
    "remainder": lambda x, k: x * (k % 1000),
    "magnitude": lambda x, k: x - abs(k),
    "beyond": lambda x, k: x[: k + 2] + 1,
}


@pytest.mark.filterwarnings("ignore:effcc. PyTorch runs a call because its numbers")
@pytest.mark.parametrize("name", LARGE)
def test_numbers_that_leave_64_bits(name: str) -> None:
    """Python's integers have no end: the results, or the error, are eager's."""
    torch._dynamo.reset()
    f = LARGE[name]
    compiled = torch.compile(f, backend="effcc", dynamic=True)
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for k in (3, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63) + 1, -(2**63), 3):
        for rows in (x, (x * 5).long()):
            expected, found = outcome(f, rows, k), outcome(compiled, rows, k)
            assert not difference(found, expected), f"k = {k}"
            assert type(found.error) is type(expected.error), f"k = {k}: {found.error}"


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float16])
def test_bounds_and_fills_outside_of_a_dtype(dtype: torch.dtype) -> None:
    """Eager refuses them, whether they are known when compiling or not."""

    def f(x: Tensor, k: int) -> tuple[Tensor, ...]:
        return x.clamp(max=k), x.masked_fill(x > 0, k), x.new_full((2,), k), torch.add(x, x, alpha=k)

    torch._dynamo.reset()
    compiled = torch.compile(f, backend="effcc", dynamic=True)
    x = torch.tensor([1, 2, 100]).to(dtype)
    for k in (3, 5, 100, 70000, -(2**40), 2**40, 1):
        expected, found = outcome(f, x, k), outcome(compiled, x, k)
        assert not difference(found, expected), f"k = {k}"


class Scaled(nn.Module):
    def forward(self, x: Tensor, k: int) -> tuple[Tensor, Tensor, int]:
        return x * k, torch.arange(k), k + x.shape[0]


def test_in_a_package(tmp_path: Path) -> None:
    x = torch.randn(8, 4)
    effcc.export(Scaled(), (x, 3), tmp_path / "p.effcc", dynamic_shapes=({0: Dim.AUTO}, Dim.DYNAMIC))
    package = effcc.load(tmp_path / "p.effcc")
    for k in (3, 5, 2, 40):
        torch.testing.assert_close(package(x[: k + 1], k), Scaled()(x[: k + 1], k))
        torch.testing.assert_close(package(x=x, k=k), Scaled()(x, k))
    with pytest.raises(InputError, match=r"argument k: expected an integer below 2\^62, got 1.5"):
        package(x, 1.5)


class Multiple(nn.Module):
    def forward(self, x: Tensor, k: int) -> Tensor:
        return x * (k * 3)


def test_a_package_refuses_numbers_that_leave_64_bits(tmp_path: Path) -> None:
    x = torch.randn(8, 4)
    effcc.export(Multiple(), (x, 3), tmp_path / "p.effcc", dynamic_shapes=({}, Dim.DYNAMIC))
    package = effcc.load(tmp_path / "p.effcc")
    for k in (5, 0, 2**40):
        torch.testing.assert_close(package(x, k), Multiple()(x, k))
    with pytest.raises(InputError, match="was captured for sizes where"):
        package(x, 2**61)


class Prefix(nn.Module):
    def forward(self, x: Tensor, k: int) -> Tensor:
        return x[:k] + 1


def test_a_package_refuses_sizes_that_it_was_not_captured_for(tmp_path: Path) -> None:
    """torch.export's guards: here k is at most the number of rows, as it was for the example."""
    x = torch.randn(8, 4)
    effcc.export(Prefix(), (x, 3), tmp_path / "p.effcc", dynamic_shapes=({0: Dim.AUTO}, Dim.AUTO))
    package = effcc.load(tmp_path / "p.effcc")
    torch.testing.assert_close(package(x, 7), x[:7] + 1)
    with pytest.raises(InputError, match="was captured for sizes where"):
        package(x, 9)


class Resized(nn.Module):
    def forward(self, x: Tensor, k: int) -> Tensor:
        return functional.interpolate(x[None], scale_factor=0.7)[0] * k


CALLER = """
#include <stdio.h>
#include "resized.h"
int main(int argc, char **argv) {
    resized model;
    float x[4 * 20], y[4 * 14];
    for (int i = 0; i < 80; ++i) x[i] = (float)i;
    if (argc < 2 || resized_open(&model, argv[1])) return 1;
    if (resized_run(&model, x, y, 20, 3, 1)) return 2;
    printf("%g %g", y[1], y[55]);
    return resized_run(&model, x, y, 20, -1, 1) == EFFCC_ARGUMENT ? 0 : 3;
}
"""


def test_from_c(tmp_path: Path) -> None:
    """The header takes the number itself, computes rounded sizes, and checks what the model was captured for."""
    x = torch.arange(80.0).reshape(4, 20)
    effcc.export(Resized(), (x, 3), tmp_path / "resized", dynamic_shapes=({1: Dim.AUTO}, Dim.DYNAMIC))
    (tmp_path / "main.c").write_text(CALLER)
    program = tmp_path / "main"
    include = f"-I{tmp_path / 'resized'}"
    subprocess.run(["cc", "-Wall", "-Werror", include, "-o", program, tmp_path / "main.c", "-ldl", "-lm"], check=True)
    found = subprocess.run([program, tmp_path / "resized"], capture_output=True, text=True, check=False)
    assert found.returncode == 0
    expected = Resized()(x, 3).flatten()
    assert found.stdout == f"{expected[1]:g} {expected[55]:g}"
