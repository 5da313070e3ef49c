"""Every scalar function has a spelling, and the spelling computes what the IR says, for each kind of operand."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import effcc.codegen.triton as package
from effcc.codegen.triton.spelling import FOLDS, SPELLINGS, STRUCTURAL, fold, library, library_names, spell
from effcc.errors import UnsupportedError
from effcc.ir.dims import Shape
from effcc.ir.dtypes import DType, bf16, boolean, f16, f32, f64, i32, i64
from effcc.ir.expr import Axis, Call, Expr, Load
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.parser import parse_kernel
from effcc.ir.scalars import FUNCTIONS, REDUCTIONS, SAME_BITS
from effcc.ir.types import TensorType
from effcc.runtime.triton_run import TritonInterpreter, run_triton
from tests.codegen.triton.running import emitted, program_of

ULPS = 64
"""Library functions are compositions: their error is a few roundings, amplified where formulas cancel."""

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, 1e-6, -1e-6, 20.0, -20.0, np.inf, -np.inf, np.nan]


def test_every_function_is_spelled_or_written_out() -> None:
    assert SPELLINGS.keys() | STRUCTURAL.keys() == FUNCTIONS.keys()
    assert not SPELLINGS.keys() & STRUCTURAL.keys()


def test_every_domain_of_a_function_has_a_template() -> None:
    for name, function in FUNCTIONS.items():
        if name in STRUCTURAL:
            continue
        if function.domain in ("any", "float"):
            assert name == "not" or spell(name, f32)[0]
        if function.domain in ("any", "int"):
            assert spell(name, i32)[0]


def test_every_reduction_has_a_fold() -> None:
    assert {r.combine for r in REDUCTIONS.values()} == FOLDS.keys()
    with pytest.raises(UnsupportedError, match="expected one of"):
        fold("median")


def test_a_function_outside_its_domain_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'shl' for operands of dtype f32"):
        spell("shl", f32)


def test_a_module_carries_the_library_functions_it_calls_and_what_they_call() -> None:
    sources = library(["y = asinh(x)"])
    assert [s.split("def ")[1].split("(")[0] for s in sources] == ["is_negative", "copysign", "log1p", "asinh"]
    written = ast.parse((Path(package.__file__).parent / "functions.py").read_text())
    assert library_names() == {n.name for n in written.body if isinstance(n, ast.FunctionDef)}


def functions_kernel(names: list[str], dtype: DType, arity: int) -> Kernel:
    """One output for each function of one or two operands."""
    shape: Shape = (64,)
    operands = tuple(Load(f"x{n}", (Axis("i"),), dtype) for n in range(arity))
    statements, outputs = [], []
    for name in names:
        value: Expr = Call(name, operands, FUNCTIONS[name].result_dtype(dtype))
        statements.append(Statement(f"y_{name}", ("i",), value))
        outputs.append(Param(f"y_{name}", TensorType(value.dtype, shape)))
    params = tuple(Param(f"x{n}", TensorType(dtype, shape)) for n in range(arity))
    return Kernel("functions", params, tuple(outputs), (("i", 64),), tuple(statements))


def operand(dtype: DType, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == boolean:
        return rng.integers(0, 2, 64).astype(bool)
    if dtype.is_integer:
        return rng.integers(1, 6, 64).astype(dtype.numpy) * (1 if seed else rng.choice([-1, 1], 64).astype(dtype.numpy))
    values = rng.standard_normal(64) * 3
    special = SPECIAL if seed == 0 else SPECIAL[::-1]
    values[: len(special)] = special
    return values.astype(dtype.numpy)


@pytest.mark.parametrize("arity", [1, 2])
@pytest.mark.parametrize("dtype", [f32, f64, f16, i32, i64, boolean], ids=str)
def test_functions_compute_what_the_ir_says(dtype: DType, arity: int, interpreter: TritonInterpreter) -> None:
    inputs = [operand(dtype, seed) for seed in range(arity)]
    wanted = {n: w for n, f in FUNCTIONS.items() if f.arity == arity and (w := reference(n, inputs, dtype)) is not None}
    program, text = emitted(program_of(functions_kernel(list(wanted), dtype, arity)))
    found = dict(zip(wanted, run_triton(program, text, inputs, interpreter.run), strict=True))
    wrong = {n: (*(x[~same(n, found[n], w)][:4] for x in (*inputs, found[n], w)),) for n, w in wanted.items()}
    assert not {n: w for n, w in wrong.items() if w[0].size}


def reference(name: str, inputs: list[np.ndarray], dtype: DType) -> np.ndarray | None:
    """What NumPy computes, floats in float64; None where the function is not defined for the dtype."""
    if name in STRUCTURAL or not _defined(name, dtype):
        return None
    if name == "bits":  # of the numbers as they are
        return np.asarray(FUNCTIONS[name].reference(*inputs))
    try:
        with np.errstate(all="ignore"):
            return np.asarray(
                FUNCTIONS[name].reference(*(x.astype(np.float64) if dtype.is_float else x for x in inputs))
            )
    except TypeError:
        assert dtype == boolean
        return None


def _defined(name: str, dtype: DType) -> bool:
    if name == "bits" and dtype not in SAME_BITS:
        return False
    spelling = SPELLINGS[name]
    return bool(spelling.floats if dtype.is_float else spelling.booleans if dtype == boolean else spelling.integers)


def same(name: str, ours: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if ours.dtype.kind in "biu":
        return np.asarray(ours == wanted)
    eps = float(np.finfo(ours.dtype).eps)
    with np.errstate(all="ignore"):
        narrow = wanted.astype(ours.dtype)
        close = np.abs(ours.astype(np.float64) - wanted) <= ULPS * eps * (
            np.abs(wanted) + (1.0 if name == "lgamma" else eps)
        )
    return np.asarray((ours == narrow) | (np.isnan(ours) & np.isnan(narrow)) | close)


def test_shifts_by_the_width_or_more_shift_everything_out(interpreter: TritonInterpreter) -> None:
    text = """kernel @shifts(X: i32[6], N: i32[6]) -> (L: i32[6], R: i32[6]) over i=6 {
      L[i] = shl(X[i], N[i])
      R[i] = shr(X[i], N[i])
    }"""
    program, module = emitted(program_of(parse_kernel(text)))
    inputs = [np.array([5, -5, 5, -5, 5, -5], np.int32), np.array([1, 31, 32, 33, -1, 70], np.int32)]
    left, right = run_triton(program, module, inputs, interpreter.run)
    assert "shift_left(" in module and "shift_right(" in module  # the interpreter's own shifts are defined beyond it
    assert left.tolist() == [10, -(1 << 31), 0, 0, 0, 0]
    assert right.tolist() == [2, -1, 0, -1, 0, -1]


def test_powers_of_integers_wrap_around_and_vanish_below_one(interpreter: TritonInterpreter) -> None:
    x = np.array([-1, -1, 1, 2, 3, 0, 7, -3], np.int64)
    y = np.array([-3, -2, -5, -1, 99, 0, 65, 64], np.int64)
    kernel = functions_kernel(["pow"], i64, 2)
    program, text = emitted(program_of(kernel))
    (found,) = run_triton(program, text, [np.resize(a, 64) for a in (x, y)], interpreter.run)
    np.testing.assert_array_equal(found, np.resize(FUNCTIONS["pow"].reference(x, y), 64))


def test_a_subnormal_bf16_is_no_zero(interpreter: TritonInterpreter) -> None:
    kernel = functions_kernel(["abs"], bf16, 1)
    program, text = emitted(program_of(kernel))
    x = np.resize(np.array([-(2.0**-130), 2.0**-133, 1.5, 0.0]), 64).astype(bf16.numpy)
    (found,) = run_triton(program, text, [x], interpreter.run)
    np.testing.assert_array_equal(found, np.abs(x))


def test_a_number_beside_f64_is_not_rounded_to_f32(interpreter: TritonInterpreter) -> None:
    text = "kernel @k(X: f64[3]) -> (Y: f64[3]) over i=3 {\n  Y[i] = X[i] + 1e-05\n}"
    program, module = emitted(program_of(parse_kernel(text)))
    x = np.array([0.0, 1e-9, 1.0])
    (y,) = run_triton(program, module, [x], interpreter.run)
    assert "tl.full((), 1e-05, tl.float64)" in module  # only a device takes a bare number for an f32
    assert y.tolist() == (x + 1e-5).tolist()
