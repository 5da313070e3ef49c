"""Conversions of rounded floats: fewer instructions, the same integers."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from effcc.codegen.cpp.nearest import convert_nearest
from effcc.codegen.cpp.program import emit_program, pointer_table
from effcc.codegen.cpp.units import RUN
from effcc.ir.dtypes import f32, i8, i32, u8
from effcc.ir.interpreter import run_vectors
from effcc.ir.loops import LoopNest
from effcc.ir.parser import parse_vectors
from effcc.ir.printer import print_vectors
from effcc.ir.vectors import Function
from effcc.ir.verifier import verify_vectors
from effcc.runtime.cache import CompileCache
from effcc.target import Target
from tests.codegen.cpp.running import load, param, program_of

EDGES = (0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -0.51, -1.5, 126.5, 127.5, -127.5, -128.6, 253.5, 254.4, 254.5, 255.0, 256.5,
         300.0, -300.0, 2.0**31, 1.9 * 2.0**30, -(2.0**31), -3e9, 3e9, 1e38, -1e38, np.inf, -np.inf, np.nan, 1e-40,
         6.5, 7.5)  # fmt: skip
"""Ties, bounds, and what is no i32."""
AT_LEAST = "let {b}: f32x{n} = select(lt({a}, broadcast<f32x{n}>(f32(0.0))), broadcast<f32x{n}>(f32(0.0)), {a})"
AT_MOST = "let {b}: f32x{n} = minimum(broadcast<f32x{n}>(f32({most})), {a})"
ABOVE = "let {b}: f32x{n} = maximum(broadcast<f32x{n}>(f32({least})), {a})"
CHAINS: dict[str, tuple[str, list[str]]] = {
    "u8, from 0 to 254": ("u8", [AT_LEAST, AT_MOST.replace("{most}", "254.0")]),
    "u8, from 254 to 0": ("u8", [AT_MOST.replace("{most}", "254.0"), AT_LEAST]),
    "u8, from 0": ("u8", [AT_LEAST]),
    "u8, no bounds": ("u8", []),
    "i8, both": ("i8", [ABOVE.replace("{least}", "-127.0"), AT_MOST.replace("{most}", "127.0")]),
    "i8, below 0": ("i8", [AT_LEAST, AT_MOST.replace("{most}", "-3.0")]),
    "i32, both": ("i32", [ABOVE.replace("{least}", "0.0"), AT_MOST.replace("{most}", "255.0")]),
    "u8, a bound that is no integer": ("u8", [AT_LEAST, AT_MOST.replace("{most}", "6.5")]),
}
NEST = LoopNest("nearest", (param("X", f32, 32),), (param("U", u8, 32), param("S", i8, 32), param("I", i32, 32)), ())


def chain(name: str, lanes: int = 8) -> Function:
    """Rounded inputs within bounds, as integers."""
    to, bounds = CHAINS[name]
    buffer = {"u8": "U", "i8": "S", "i32": "I"}[to]
    lines = []
    for block in range(32 // lanes):
        names = [f"r{block}", *(f"b{block}_{k}" for k in range(len(bounds)))]
        lines += [f"let x{block}: f32x{lanes} = load<f32x{lanes}>(X[{block * lanes}])"]
        lines += [f"let r{block}: f32x{lanes} = round(x{block})"]
        lines += [t.format(a=names[k], b=names[k + 1], n=lanes) for k, t in enumerate(bounds)]
        lines += [f"let c{block}: {to}x{lanes} = convert<{to}x{lanes}>({names[-1]})"]
        lines += [f"do store({buffer}[{block * lanes}], c{block})"]
    return parse_vectors(f"vectors @{RUN}(X: f32 read, U: u8, S: i8, I: i32;) first {{ {' '.join(lines)} }}")


def arrays() -> dict[str, np.ndarray]:
    zeros = {name: np.zeros(32, dtype) for name, dtype in (("U", np.uint8), ("S", np.int8), ("I", np.int32))}
    return {"X": np.array(EDGES, np.float32), **zeros}


@pytest.mark.parametrize("name", CHAINS)
def test_integers_stay_what_they_were(name: str) -> None:
    before = chain(name)
    after = convert_nearest(before)
    verify_vectors(after)
    assert parse_vectors(print_vectors(after)) == after
    assert ("nearest" in print_vectors(after)) == ("no integer" not in name)
    want, got = arrays(), arrays()
    run_vectors(before, want)
    run_vectors(after, got)
    for buffer, values in want.items():
        np.testing.assert_array_equal(got[buffer], values, err_msg=f"{name}: {buffer}")


def test_a_lower_bound_of_bytes_is_one_of_integers() -> None:
    text = print_vectors(convert_nearest(chain("u8, from 0 to 254")))
    assert "maximum(broadcast<i32x8>(i32(0)), nearest<i32x8>(" in text and "select" not in text and "round" not in text
    text = print_vectors(convert_nearest(chain("i8, both")))
    assert "maximum(broadcast<f32x8>(f32(-127.0))" in text, "what is no number becomes 0, not -127"


def test_what_others_read_stays_rounded() -> None:
    lines = "let x: f32x8 = load<f32x8>(X[0]) let r: f32x8 = round(x) let c: u8x8 = convert<u8x8>(r)"
    made = parse_vectors(f"vectors @f(X: f32 read, U: u8, O: f32;) {{ {lines} do store(U[0], c) do store(O[0], r) }}")
    assert convert_nearest(made) == made


def test_what_changes_meanwhile_is_rounded_where_it_was() -> None:
    lines = "registers f32x8 a = f32x8(2.5) let r: f32x8 = round(a) set a = f32x8(7.0) let c: u8x8 = convert<u8x8>(r)"
    made = parse_vectors(f"vectors @f(U: u8;) {{ {lines} do store(U[0], c) }}")
    assert convert_nearest(made) == made


def test_compiled_code_computes_what_the_interpreter_says(target: Target, cache: CompileCache) -> None:
    name = "u8, from 0 to 254"
    made = chain(name, 16 if target.isa == "avx512" else 8)
    source = emit_program(program_of(NEST), {"nearest": NEST}, target, functions={"nearest": convert_nearest(made)})
    want, got = arrays(), arrays()
    run_vectors(made, want)
    pointers = (ctypes.c_void_p * len(got))(*(got[n].ctypes.data for n in pointer_table(program_of(NEST))))
    load(cache, source, target).entry_point("effcc_run")(pointers, (ctypes.c_int64 * 1)(), None, 1)
    np.testing.assert_array_equal(got["U"], want["U"])
