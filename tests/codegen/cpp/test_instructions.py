"""The table of instructions tells the truth: each node computes what the interpreter says, by what the table names."""

from __future__ import annotations

import ctypes
import re
import subprocess
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from effcc.codegen.cpp.instructions import DOTS, ROWS
from effcc.codegen.cpp.program import emit_program, pointer_table
from effcc.codegen.cpp.units import RUN, Source
from effcc.ir.dtypes import b8, bf16, f32, i7, i8, i16, i32, l8, u7, u8
from effcc.ir.interpreter import run_vectors
from effcc.ir.loops import LoopNest
from effcc.ir.parser import parse_vectors
from effcc.ir.vectors import Dot, Function
from effcc.ir.verifier import verify_vectors
from effcc.runtime.cache import CompileCache
from effcc.runtime.toolchain import INCLUDE_DIR, compile_flags, find_compiler
from effcc.target import Target, generic
from tests.codegen.cpp.running import load, param, program_of

SIZE = 256
NEST = LoopNest(
    "nodes",
    (param("X", f32, SIZE), param("I", i32, SIZE), param("A", i8, SIZE), param("U", u8, SIZE), param("V", u7, SIZE),
     param("B", i7, SIZE), param("E", b8, SIZE), param("L", l8, SIZE), param("S", i16, SIZE), param("H", bf16, SIZE)),
    (param("O", f32, SIZE), param("D", i32, SIZE), param("P", i16, SIZE)), (),
)  # fmt: skip


def function(lanes: int) -> Function:
    """Every node of the table, on vectors of some lanes."""
    n, last = lanes, ", ".join(f"i32({k})" for k in reversed(range(lanes)))
    stored = [
        "fma(x, y, x)", "select(lt(x, y), x, y)", f"permute(x, {last})", f"lookup(x, load<i32x{n}>(I[0]))",
        "round<bf16>(x)", f"dot(load<bf16x{2 * n}>(H[0]), load<bf16x{2 * n}>(H[{2 * n}]), x)",
        f"lookup(x, y, load<u8x{4 * n}>(U[0]), i32({n}), i32(3))",
        f"lookup(x, y, load<u8x{4 * n}>(U[8]), i32(0), i32(0))",
        f"load<f32x{n}>(X[3], mask=lanes<mask32x{n}>([n]))", f"convert<f32x{n}>(iota<i32x{n}>(i32(3)))",
        f"convert<f32x{n}>(nearest<i32x{n}>(mul(x, f32x{n}(5.5))))",
    ]  # fmt: skip
    dots = [
        f"dot(load<i8x{4 * n}>(A[0]), load<i8x{4 * n}>(A[{4 * n}]), i32x{n}(5))",
        f"dot(load<u8x{4 * n}>(U[{4 * n}]), load<i8x{4 * n}>(A[0]), i32x{n}(5))",
        f"dot(load<u7x{4 * n}>(V[0]), load<i8x{4 * n}>(A[0]), i32x{n}(5))",
        f"dot(load<u8x{4 * n}>(U[{4 * n}]), load<i7x{4 * n}>(B[0]), i32x{n}(5))",
        f"dot(load<b8x{4 * n}>(E[0]), load<i8x{4 * n}>(A[0]), i32x{n}(5))",
        f"dot(load<u8x{4 * n}>(U[{4 * n}]), load<l8x{4 * n}>(L[0]), i32x{n}(5))",
        f"dot(load<i16x{2 * n}>(S[0]), load<i16x{2 * n}>(S[{2 * n}]), i32x{n}(5))",
    ]
    lines = [
        f"let x: f32x{n} = load<f32x{n}>(X[0])",
        f"let y: f32x{n} = load<f32x{n}>(X[{n}])",
        "let n: i64 = convert<i64>(load<i32>(I[0]))",
    ]
    lines += [f"do prefetch(X[{n}])", f"do prefetch<1>(X[{n}])"]
    lines += [f"if any(lt(x, y)) {{ do store(O[{SIZE - 1}], reduce<add>(x)) }}"]
    lines += [f"do store(O[{k * n}], {value})" for k, value in enumerate(stored)]
    lines += [f"do store_rows(O[{len(stored) * n}], x, y, x, y, stride=[4])"]
    lines += [f"do store(D[{k * n}], {value})" for k, value in enumerate(dots)]
    lines += [f"do store(P[0], dot(load<u8x{4 * n}>(U[0]), load<l8x{4 * n}>(L[0]), load<i16x{2 * n}>(P[0])))"]
    buffers = ", ".join(f"{p.name}: {p.type.dtype}{' read' if p in NEST.params else ''}" for p in NEST.signature)
    made = parse_vectors(f"vectors @{RUN}({buffers};) first {{ {' '.join(lines)} }}")
    verify_vectors(made)
    return made


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "X": rng.standard_normal(SIZE).astype(np.float32), "I": rng.integers(0, 4, SIZE).astype(np.int32),
        "A": rng.integers(-128, 128, SIZE).astype(np.int8), "U": rng.integers(0, 256, SIZE).astype(np.uint8),
        "V": rng.integers(0, 128, SIZE).astype(np.uint8), "B": rng.integers(-64, 64, SIZE).astype(np.int8),
        "E": rng.choice([-127, 127, 3], SIZE).astype(np.int8),
        "L": rng.integers(-32, 32, SIZE).astype(np.int8),
        "S": rng.integers(-(1 << 15), 1 << 15, SIZE).astype(np.int16),
        "H": rng.standard_normal(SIZE).astype(ml_dtypes.bfloat16), "O": np.zeros(SIZE, np.float32),
        "D": np.zeros(SIZE, np.int32), "P": rng.integers(-16000, 16000, SIZE).astype(np.int16),
    }  # fmt: skip


def emitted(target: Target) -> tuple[Function, Source]:
    made = function(max(4, target.vector_bytes // 4))
    return made, emit_program(program_of(NEST), {"nodes": NEST}, target, functions={"nodes": made})


def test_every_node_computes_what_the_interpreter_says(target: Target, cache: CompileCache) -> None:
    made, source = emitted(target)
    want, got = arrays(), arrays()
    run_vectors(made, want)
    pointers = (ctypes.c_void_p * len(got))(*(got[name].ctypes.data for name in pointer_table(program_of(NEST))))
    load(cache, source, target).entry_point("effcc_run")(pointers, (ctypes.c_int64 * 1)(), None, 1)
    np.testing.assert_array_equal(got["D"], want["D"])
    np.testing.assert_array_equal(got["P"], want["P"])
    np.testing.assert_allclose(got["O"], want["O"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("target", [
    replace(generic("avx512"), features=(*generic("avx512").features, "avx512_vnni", "avx512_bf16")),
    generic("avx512"), replace(generic("avx2"), features=(*generic("avx2").features, "avx_vnni")), generic("avx2"),
])  # fmt: skip
def test_the_compiler_uses_the_instructions_of_the_table(target: Target) -> None:
    _, source = emitted(target)
    flags = [*compile_flags(target), "-S", "-o", "-", f"-I{INCLUDE_DIR}", "-x", "c++", "-"]
    command = [*find_compiler().command, *(f for f in flags if f != "-shared")]
    done = subprocess.run(command, input=source.kernels[0].text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    column = "avx512" if target.isa == "avx512" else "avx2"
    for node, row in ROWS.items():
        wanted = getattr(row, column)
        if node is not Dot and not row.amx:
            assert re.search("|".join(map(re.escape, wanted.split("|"))), done.stdout), f"{node.__name__}: no {wanted}"
    vnni = {"avx512_vnni", "avx_vnni"} if target.isa == "avx512" else {"avx_vnni"}
    for form, dot in DOTS.items():
        extension = {"avx512_bf16"} if f32 in form else vnni
        wanted = dot.extended if extension & set(target.features) else getattr(dot, column)
        for instruction in wanted.removesuffix(" twice").split(" and "):
            assert instruction in done.stdout, f"dot of {form}: no {instruction}"


TILES = LoopNest(
    "tiles", (param("A", i8, 2048), param("U", u8, 1024), param("H", bf16, 1024)),
    (param("O", f32, 512), param("D", i32, 512)), (),
)  # fmt: skip
TILE_FORMS = (
    ("bf16", "H[0]", 16, 32, "H[512]", "bf16", "f32", "O[0]"),
    ("bf16", "H[0]", 5, 29, "H[512]", "bf16", "f32", "O[256]"),
    ("i8", "A[0]", 16, 64, "A[1024]", "i8", "i32", "D[0]"),
    ("u8", "U[0]", 7, 61, "A[0]", "i8", "i32", "D[256]"),
)
"""Dots of whole tiles, and of tiles that lack rows and lanes: of what, where, how much of it, with what, to where."""


def tile_function() -> Function:
    lines = []
    for n, (a, at, rows, few, other, b, c, result) in enumerate(TILE_FORMS):
        lanes, zero = (32, "0.0") if a == "bf16" else (64, "0")
        lines += [
            f"tiles {c}x16x16 c{n} at 0", f"tiles {a}x{lanes}x16 a{n} at 3", f"tiles {b}x{lanes}x16 b{n} at 7",
            f"set c{n} = {c}x16x16({zero})",
            f"set a{n} = tile<{a}x{lanes}x16>({at}, stride=[{lanes}], rows=[{rows}], lanes=[{few}])",
            f"set b{n} = tile<{b}x{lanes}x16>({other}, stride=[{lanes}], rows=[16], lanes=[{lanes}])",
            f"set c{n} = dot(a{n}, b{n}, c{n})", f"set c{n} = dot(a{n}, b{n}, c{n})",
            f"do store_tile({result}, c{n}, stride=[16])",
        ]  # fmt: skip
    buffers = ", ".join(f"{p.name}: {p.type.dtype}{' read' if p in TILES.params else ''}" for p in TILES.signature)
    made = parse_vectors(f"vectors @{RUN}({buffers};) first {{ {' '.join(lines)} }}")
    verify_vectors(made)
    return made


def tiles_emitted(target: Target) -> tuple[Function, Source]:
    made = tile_function()
    return made, emit_program(program_of(TILES), {"tiles": TILES}, target, functions={"tiles": made})


def test_dots_of_tiles_are_what_the_interpreter_says(target: Target, cache: CompileCache) -> None:
    """On a matrix unit where this machine has one, and in the loops that stand for it elsewhere."""
    made, source = tiles_emitted(target)
    rng = np.random.default_rng(1)
    given = {
        "A": rng.integers(-128, 128, 2048).astype(np.int8), "U": rng.integers(0, 256, 1024).astype(np.uint8),
        "H": rng.standard_normal(1024).astype(ml_dtypes.bfloat16),
    }  # fmt: skip
    want, got = ({**given, "O": np.zeros(512, np.float32), "D": np.zeros(512, np.int32)} for _ in range(2))
    run_vectors(made, want)
    pointers = (ctypes.c_void_p * 5)(*(got[name].ctypes.data for name in pointer_table(program_of(TILES))))
    load(cache, source, target).entry_point("effcc_run")(pointers, (ctypes.c_int64 * 1)(), None, 1)
    np.testing.assert_array_equal(got["D"], want["D"])
    np.testing.assert_allclose(got["O"], want["O"], rtol=1e-6, atol=1e-5)


def test_a_matrix_unit_is_used_as_the_table_says() -> None:
    _, source = tiles_emitted(generic("amx"))
    flags = [*compile_flags(generic("amx")), "-S", "-o", "-", f"-I{INCLUDE_DIR}", "-x", "c++", "-"]
    command = [*find_compiler().command, *(f for f in flags if f != "-shared")]
    done = subprocess.run(command, input=source.kernels[0].text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = [row.amx for row in ROWS.values()] + [row.tiles for row in DOTS.values()]
    assert all(instruction in done.stdout for instruction in (*wanted, "ldtilecfg", "tilerelease"))
