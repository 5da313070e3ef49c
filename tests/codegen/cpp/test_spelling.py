"""Every scalar function of the IR has a spelling, and computes what its reference does, alone and in lanes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from effcc.codegen.cpp.spelling import SPELLINGS, literal, spell
from effcc.errors import UnsupportedError
from effcc.ir.dtypes import DTYPES, DType, bf16, boolean, f16, f32, f64, i8, i16, i32, i64, u8
from effcc.ir.expr import Call, cast
from effcc.ir.loops import LoopNest, Tile
from effcc.ir.scalars import FUNCTIONS, SAME_BITS
from effcc.runtime.cache import CompileCache
from effcc.target import Target
from tests.codegen.cpp.running import at, axes, constant, loop, names, param, run_nest

(j, z) = names("j z")
COUNT = 37


def test_every_scalar_function_has_a_spelling() -> None:
    assert set(SPELLINGS) == set(FUNCTIONS)


def test_a_function_without_a_meaning_for_a_dtype_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"no 'div' for operands of dtype i32"):
        spell("div", i32)


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (0.1, f32, "0.1f"), (0.1, f64, "0.1"), (1.0, f32, "1.0f"), (float("inf"), f32, "__builtin_inff()"),
        (float("-inf"), f64, "-__builtin_inf()"), (1e-45, f32, "1e-45f"), (-0.0, f32, "-0.0f"), (True, boolean, "true"),
        (-(1 << 63), i64, "(-9223372036854775807 - 1)"), (1e300, f32, "__builtin_inff()"), (0.1, bf16, "0.100097656f"),
    ],
)  # fmt: skip
def test_literals_are_exact_and_short(value: float, dtype: DType, text: str) -> None:
    assert literal(value, dtype) == text


def operands(name: str, dtype: DType) -> list[np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(len(name))
    if dtype == boolean:
        return [rng.random(COUNT) < 0.5 for _ in range(2)]
    if not dtype.is_float:
        low = 0 if dtype == u8 else -9
        first, second = (rng.integers(low, 10, COUNT) for _ in range(2))
        if name in ("floordiv", "mod", "fmod"):
            second = np.where(second == 0, 3, second)
        if name in ("pow", "shl", "shr"):
            second = np.abs(second) % 5
        return [x.astype(dtype.numpy) for x in (first, second)]
    first, second = (rng.standard_normal(COUNT) * 3 for _ in range(2))
    if name in ("sqrt", "rsqrt", "log", "log2", "log10", "log1p", "lgamma", "pow"):
        first = np.abs(first) + 0.1
    if name in ("asin", "acos", "atanh"):
        first = np.tanh(first)
    if name == "acosh":
        first = np.abs(first) + 1
    if name in ("isnan", "isinf", "sign", "maximum", "minimum", "bits"):
        first[3], first[5], first[7] = np.nan, np.inf, -np.inf
    return [first.astype(dtype.numpy), second.astype(dtype.numpy)]


def kinds(name: str) -> list[DType]:
    if name in ("where", "cast"):
        return []
    if name == "bits":
        return list(SAME_BITS)
    entry = SPELLINGS[name]
    floats, integers = ([f32, f64] if entry.floats else []), ([i8, i32, i64, u8] if entry.integers else [])
    return floats + integers + ([boolean] if entry.booleans and name in ("and", "or", "xor", "not", "eq", "lt") else [])


def test_every_function_matches_its_reference_in_lanes_and_alone(target: Target, cache: CompileCache) -> None:
    """All functions of a dtype in one kernel (one compilation): with a masked tail, and one element at a time."""
    for dtype in (f32, f64, i8, i32, i64, u8, boolean):
        chosen = [name for name in FUNCTIONS if dtype in kinds(name)]
        arrays, body, params, outputs = {}, [], [], []
        for name in chosen:
            arity = FUNCTIONS[name].arity
            result = FUNCTIONS[name].result_dtype(dtype)
            first, second = operands(name, dtype)
            for side, value in zip("xyz"[: max(arity, 2)], (first, second, first[::-1].copy()), strict=False):
                arrays[f"{name}_{side}"] = value
                params.append(param(f"{name}_{side}", dtype, COUNT))
            for out in ("lanes", "alone"):
                arrays[f"{name}_{out}"] = np.zeros(COUNT, result.numpy)
                outputs.append(param(f"{name}_{out}", result, COUNT))
            value = Call(name, tuple(at(f"{name}_{s}", j, dtype=dtype) for s in "xyz"[:arity]), result)
            single = Call(name, tuple(at(f"{name}_{s}", z, dtype=dtype) for s in "xyz"[:arity]), result)
            body.append(Tile(axes(("j", COUNT, "lanes")), f"{name}_lanes", (j,), "set", value))
            body.append(loop("z", COUNT, 1, (Tile((), f"{name}_alone", (z,), "set", single),)))
        nest = LoopNest(f"all_{dtype.name}", tuple(params), tuple(outputs), tuple(body))
        run_nest(nest, arrays, target, cache, quick=True)
        for name in chosen:
            given = [arrays[f"{name}_{s}"] for s in "xyz"[: FUNCTIONS[name].arity]]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                want = FUNCTIONS[name].reference(*given)
            tolerance = 2e-6 if dtype == f32 else 1e-12
            for out in ("lanes", "alone"):
                np.testing.assert_allclose(arrays[f"{name}_{out}"], want, rtol=tolerance, atol=tolerance,
                                           err_msg=f"{name} {dtype} {out}")  # fmt: skip


def test_conversions_between_all_dtypes(target: Target, cache: CompileCache) -> None:
    source = np.array([0, 1, 2, 3, 5, 100, 7, 64, 33, 12, 90, 127, 1, 0, 45, 9, 18, 81, 3, 77, 2])
    arrays, params, outputs, body = {}, [], [], []
    for a in DTYPES.values():
        arrays[f"from_{a}"] = source.astype(a.numpy)
        params.append(param(f"from_{a}", a, 21))
        for b in DTYPES.values():
            name = f"{a}_{b}"
            arrays[name] = np.zeros(21, b.numpy)
            outputs.append(param(name, b, 21))
            body.append(Tile(axes(("j", 21, "lanes")), name, (j,), "set", cast(at(f"from_{a}", j, dtype=a), b)))
    run_nest(LoopNest("casts", tuple(params), tuple(outputs), tuple(body)), arrays, target, cache, quick=True)
    for a in DTYPES.values():
        for b in DTYPES.values():
            want = source.astype(a.numpy).astype(b.numpy)
            np.testing.assert_array_equal(arrays[f"{a}_{b}"], want, err_msg=f"{a} to {b}")


@pytest.mark.parametrize("dtype", [f16, bf16])
def test_half_types_are_computed_in_f32_and_rounded_once(target: Target, cache: CompileCache, dtype: DType) -> None:
    value = Call(
        "add", (Call("mul", (at("X", j, dtype=dtype), constant(3.0, dtype)), dtype), at("Y", j, dtype=dtype)), dtype
    )
    nest = LoopNest("half", (param("X", dtype, 21), param("Y", dtype, 21)), (param("O", dtype, 21),),
                    (Tile(axes(("j", 21, "lanes")), "O", (j,), "set", value),))  # fmt: skip
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(21).astype(dtype.numpy) for _ in range(2))
    o = np.zeros(21, dtype.numpy)
    run_nest(nest, {"X": x, "Y": y, "O": o}, target, cache)
    want = (x.astype(np.float32) * np.float32(3) + y.astype(np.float32)).astype(dtype.numpy)
    np.testing.assert_array_equal(o, want)


def test_integers_meet_floats_in_one_tile(target: Target, cache: CompileCache) -> None:
    """f32 data with i64 indices as values, i16 and f64 beside them."""
    position = cast(j, f32)
    value = Call("add", (position, cast(at("A", j, dtype=i64), f32)), f32)
    wide = Call("add", (cast(value, f64), cast(at("B", j, dtype=i16), f64)), f64)
    nest = LoopNest("mixed", (param("A", i64, 21), param("B", i16, 21)), (param("O", f64, 21),),
                    (Tile(axes(("j", 21, "lanes")), "O", (j,), "set", wide),))  # fmt: skip
    a, b = np.arange(21) * 3, np.arange(21).astype(np.int16) - 7
    o = np.zeros(21)
    run_nest(nest, {"A": a, "B": b, "O": o}, target, cache)
    np.testing.assert_array_equal(o, np.arange(21) + a + b)
