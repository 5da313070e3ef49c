"""Dots of packed lanes are what the interpreter of vectors says, for every instruction set and width of registers."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from effcc.ir.interpreter.vectors import dot_products
from effcc.target import cpu_features

from .conftest import HERE, compile_cpp

EXTENSIONS = {
    "avx512_vnni": ("avx512", "-mavx512vnni -mavx512bf16", {"avx512_vnni", "avx512_bf16"}),
    "avx512": ("avx512", "", set()),
    "avx2": ("avx2", "", set()),
    "scalar": ("baseline", "", set()),
}


@pytest.fixture(params=list(EXTENSIONS), scope="module")
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    isa, flags, features = EXTENSIONS[request.param]
    if not features <= cpu_features() or (isa == "avx512" and "avx512bw" not in cpu_features()):
        pytest.skip(f"this processor does not run {request.param}")
    output = tmp_path_factory.mktemp("dot") / f"{request.param}.so"
    return ctypes.CDLL(str(compile_cpp(HERE / "dot.cpp", output, isa, "-shared", "-fPIC", *flags.split())))


def drawn(dtype: Any, count: int, rng: np.random.Generator) -> Any:
    """Numbers of all sizes, and many of the smallest and the largest, where sums overflow first."""
    info = np.iinfo(dtype)
    numbers = rng.integers(info.min, int(info.max) + 1, count)
    extremes = rng.choice([info.min, info.max], count)
    return np.where(rng.random(count) < 0.5, extremes, numbers).astype(dtype)


@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
@pytest.mark.parametrize(
    ("name", "a", "b", "neighbours", "bounds"),
    [
        ("i8_i8", np.int8, np.int8, 4, None),
        ("i8_i8", np.int8, np.int8, 4, (-127, 127)),
        ("u8_i8", np.uint8, np.int8, 4, None),
        ("u8_i8", np.uint8, np.int8, 4, (0, 127)),
        ("i16_i16", np.int16, np.int16, 2, None),
    ],
)
def test_integers_are_exact_whatever_they_are(
    library: ctypes.CDLL, name: str, a: Any, b: Any, neighbours: int, bounds: tuple[int, int] | None, lanes: int
) -> None:
    rng = np.random.default_rng(lanes)
    for _ in range(20):
        x, y = drawn(a, lanes * neighbours, rng), drawn(b, lanes * neighbours, rng)
        if bounds is not None:
            x = np.clip(x, *bounds)
        c = drawn(np.int32, lanes, rng)
        want = dot_products(x, y, c)
        getattr(library, name)(
            x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), c.ctypes.data_as(ctypes.c_void_p),
            lanes, bounds is not None,
        )  # fmt: skip
        np.testing.assert_array_equal(c, want)


@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
def test_bf16_is_rounded_after_each_product_the_odd_one_first(library: ctypes.CDLL, lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    for _ in range(20):
        x, y = (rng.standard_normal(2 * lanes).astype(ml_dtypes.bfloat16) for _ in range(2))
        c = rng.standard_normal(lanes).astype(np.float32)
        c[0], x[0] = np.inf, np.nan
        want = dot_products(x, y, c)
        library.bf16_bf16(
            x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), c.ctypes.data_as(ctypes.c_void_p),
            lanes, False,
        )  # fmt: skip
        np.testing.assert_array_equal(c, want)


def test_sums_beyond_i32_wrap_around() -> None:
    a = np.full(4, -128, np.int8)
    most = np.array([2**31 - 1], np.int32)
    assert dot_products(a, a, most)[0] == -(2**31) - 1 + 4 * 128 * 128
