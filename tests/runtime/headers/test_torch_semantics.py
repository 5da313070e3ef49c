"""Conversions, remainders, extrema and rounding do what eager PyTorch does, on special values above all."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path

import pytest
import torch

from .conftest import HERE, compile_cpp

SPECIALS = [
    *(0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.7, -3.7, 7.0, -7.0, -1e-3),
    *(126.5, 127.0, 128.0, -128.9, 255.0, 256.5, 65504.0, 65519.0, 65520.0, 1e-7, -6e-8, 3e-8, 1e-40, 3e38, -3e38),
    *(2147483648.0, -2147483649.0, 1e10, -1e10, 9.3e18, -9.3e18, float("inf"), float("-inf"), float("nan")),
    *(1.0009765625, 1.00390625, 1.01171875, 3.3895314e38),  # ties of bf16 and f16
]
NUMBERS = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8")
CONVERSIONS = [
    *((a, b) for a, b in itertools.product(NUMBERS, NUMBERS) if a != b),
    *(("float32", b) for b in ("bfloat16", "float16", "bool")),
    *((a, "float32") for a in ("bfloat16", "float16", "bool")),
]


@pytest.fixture
def library(isa: str, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """torch_ops.cpp for one instruction set, compiled once."""
    folder = Path(tmp_path_factory.getbasetemp()) / "torch-ops"
    folder.mkdir(exist_ok=True)
    path = folder / f"{isa}.so"
    if not path.exists():
        compile_cpp(HERE / "torch_ops.cpp", path, isa, "-shared", "-fPIC")
    return ctypes.CDLL(str(path))


def call(library: ctypes.CDLL, name: str, inputs: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Calls NAME(inputs..., output, count) on flat tensors."""
    output = torch.empty(inputs[0].numel(), dtype=dtype)
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (*inputs, output)]
    getattr(library, name)(*pointers, ctypes.c_long(output.numel()))
    return output


def samples(dtype: torch.dtype) -> torch.Tensor:
    """Special values and random ones of every size, as many as make a ragged last vector."""
    if dtype == torch.bool:
        return torch.arange(1003) % 3 == 0
    generator = torch.Generator().manual_seed(7)
    if dtype.is_floating_point:
        scales = 10.0 ** torch.randint(-6, 11, (2003,), generator=generator)
        values = torch.randn(2003, generator=generator, dtype=torch.float64) * scales
        return torch.cat([torch.tensor(SPECIALS, dtype=torch.float64), values]).to(dtype)
    info = torch.iinfo(dtype)
    random = torch.randint(info.min, info.max, (2003,), generator=generator, dtype=torch.int64)
    small = torch.arange(-20, 21).clamp(min=info.min)
    return torch.cat([torch.tensor([info.min, info.max]), small, random]).to(dtype)


def assert_same(got: torch.Tensor, expected: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    """Equal bits, where a NaN equals any NaN; a zero's sign counts."""
    both_nan = got.isnan() & expected.isnan()
    equal = both_nan | (got == expected)
    if got.dtype.is_floating_point:
        equal &= both_nan | (got.signbit() == expected.signbit())
    wrong = (~equal).nonzero().flatten()
    if wrong.numel():
        at = int(wrong[0])
        call_text = f"f({', '.join(str(t[at].item()) for t in inputs)}) = {got[at].item()}"
        pytest.fail(f"{wrong.numel()} of {got.numel()} differ; {call_text}, torch: {expected[at].item()}")


@pytest.mark.parametrize(("source", "target"), CONVERSIONS)
def test_conversions(library: ctypes.CDLL, source: str, target: str) -> None:
    from_type, to_type = getattr(torch, source), getattr(torch, target)
    x = samples(from_type)
    assert_same(call(library, f"{source}_to_{target}", [x], to_type), x.to(to_type), [x])


@pytest.mark.parametrize("name", ["remainder", "floor_divide", "fmod", "maximum", "minimum"])
@pytest.mark.parametrize("kind", ["float32", "float64", "int32", "int64"])
def test_binary_operations(library: ctypes.CDLL, name: str, kind: str) -> None:
    dtype = getattr(torch, kind)
    x = samples(dtype)[:60]
    a, b = (t.flatten().contiguous() for t in torch.meshgrid(x, x, indexing="ij"))
    if not dtype.is_floating_point:
        keep = (b != 0) & ~((a == torch.iinfo(dtype).min) & (b == -1)) if name not in ("maximum", "minimum") else b == b
        a, b = a[keep], b[keep]
    elif name in ("remainder", "fmod"):  # eager's vector fmod gives NaN where a / b overflows, C's does not
        denormal = (b != 0) & (b.abs() < torch.finfo(dtype).tiny)
        keep = ~(denormal | (a.isfinite() & (b != 0) & (a / b).isinf()))
        a, b = a[keep], b[keep]
    got, expected = call(library, f"{name}_{kind}", [a, b], dtype), getattr(torch, name)(a, b)
    if name in ("maximum", "minimum"):  # of two zeros either may come
        got, expected = got + 0, expected + 0
    assert_same(got, expected, [a, b])


@pytest.mark.parametrize("name", ["fmax", "fmin", "copysign"])
def test_float_pairs(library: ctypes.CDLL, name: str) -> None:
    x = samples(torch.float32)[:60]
    a, b = (t.flatten().contiguous() for t in torch.meshgrid(x, x, indexing="ij"))
    got, expected = call(library, f"{name}_float32", [a, b], torch.float32), getattr(torch, name)(a, b)
    if name != "copysign":  # of two zeros either may come
        got, expected = got + 0, expected + 0
    assert_same(got, expected, [a, b])


@pytest.mark.parametrize("name", ["sign", "round", "floor", "ceil", "trunc", "abs", "sqrt", "rsqrt"])
def test_exact_functions(library: ctypes.CDLL, name: str) -> None:
    x = samples(torch.float32)
    got, expected = call(library, f"{name}_float32", [x], torch.float32), getattr(torch, name)(x)
    if name == "sign":  # sign(-0) may be either zero
        got, expected = got + 0, expected + 0
    if name == "sqrt":  # eager's need not be correctly rounded where it comes from MKL
        torch.testing.assert_close(got, expected, rtol=1.2e-7, atol=0, equal_nan=True)
    else:
        assert_same(got, expected, [x])


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "erf", "log1p", "sin"])
def test_transcendentals_are_special_where_torch_is(library: ctypes.CDLL, name: str) -> None:
    x = samples(torch.float32)
    got, expected = call(library, f"{name}_float32", [x], torch.float32), getattr(torch, name)(x.double())
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.isinf(), expected.float().isinf())
    torch.testing.assert_close(got.double(), expected.float().double(), rtol=5e-7, atol=2e-45, equal_nan=True)
