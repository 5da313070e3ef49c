"""Sums over codes that share a byte: every machine computes what the kernel says, by tables where it has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.ir.interpreter import run_kernel
from effcc.ir.parser import parse_kernel
from effcc.passes.fusion.codes import sum_codes
from effcc.passes.fusion.split import split_axes
from effcc.passes.tiling.choose import choose
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import run_nest, source_of
from tests.passes.fusion.test_codes import FORMS, kernel


@pytest.mark.parametrize("form", FORMS)
def test_what_is_summed_by_bytes_is_what_the_kernel_says(form: str, target: Target, cache: CompileCache) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.standard_normal(128, np.float32),
        "Q": rng.integers(0, 256, (9, 64), np.uint8),
        "S": rng.standard_normal((9, 4), np.float32),
        "M": rng.standard_normal((9, 4), np.float32),
        "T": rng.standard_normal(16, np.float32),
        "U": rng.standard_normal(4, np.float32),
        "H": rng.standard_normal((9, 4), np.float32).astype(np.float16),
    }
    expected = run_kernel(kernel(form), arrays)["O"]
    found = np.full(9, np.nan, np.float32)
    run_nest(lower(*choose(sum_codes(split_axes(kernel(form))), target)), {**arrays, "O": found}, target, cache)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_codes_are_looked_up_where_a_vector_has_sixteen_lanes() -> None:
    made = sum_codes(split_axes(kernel("symmetric")))
    wide, narrow = (source_of(lower(*choose(made, generic(t))), generic(t)) for t in ("avx512", "avx2"))
    assert "lookup(" in wide and "& 15" not in wide.replace("iota<i32x<16>>(0) & 15", "")
    assert "lookup(" not in narrow, "a table of sixteen numbers takes two registers and a blend"


def test_what_is_computed_of_a_code_in_many_steps_is_looked_up(target: Target, cache: CompileCache) -> None:
    """A float of four bits, e2m1: its sign, exponent and mantissa are parts of one code, and a table is quicker."""
    code = "(cast<i32>(Q[n,j]) and 15)"
    normal = f"(shr({code}, 1) and 3) > 0"
    whole = f"({code} and 1 or where({normal}, 2, 0))"
    size = f"cast<f32>(shl({whole}, (shr({code}, 1) and 3) - where({normal}, 1, 0))) * 0.5"
    number = f"where(({code} and 8) > 0, -({size}), {size})"
    head = "kernel @k(x: f32[40], Q: u8[9,40]) -> (O: f32[9]) over n=9, j=40"
    made = parse_kernel(f"{head} {{ O[n] = sum(j: x[j] * {number}) }}")
    wide, narrow = (source_of(lower(*choose(made, generic(t))), generic(t)) for t in ("avx512", "avx2"))
    assert "lookup(" in wide and "& 8" not in wide.split("for (i64 j")[-1].split("lookup(")[-1]
    assert "lookup(" not in narrow
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal(40, np.float32), "Q": rng.integers(0, 256, (9, 40), np.uint8)}
    found = np.full(9, np.nan, np.float32)
    run_nest(lower(*choose(made, target)), {**arrays, "O": found}, target, cache)
    np.testing.assert_allclose(found, run_kernel(made, arrays)["O"], rtol=1e-5, atol=1e-5)


def test_short_tables_are_held_in_registers() -> None:
    for form in ("table", "table of four"):
        made = sum_codes(split_axes(kernel(form)))
        wide, narrow = (source_of(lower(*choose(made, generic(t))), generic(t)) for t in ("avx512", "avx2"))
        assert "lookup(table" in wide and "lookup(table" in narrow
        assert "gather<" not in wide + narrow


def test_rows_side_by_side_share_inputs_that_lie_apart() -> None:
    made = sum_codes(split_axes(kernel("symmetric")))
    source = source_of(lower(*choose(made, generic("avx512"))), generic("avx512"))
    assert source.count("load<u8x<16>>") == 5, "four rows at once, and the one that is left"
    assert source.count("load_apart<") == 4, "two vectors of inputs for either"


@pytest.mark.parametrize("machine", ["avx512", "avx2"])
def test_rows_share_inputs_though_planes_of_codes_lie_apart(machine: str) -> None:
    code = "(shr(cast<i32>(Q[n,k // 2]), cast<i32>(k % 2 * 4)) and 15)"
    high = "shl(shr(cast<i32>(P[n,k // 4]), cast<i32>(k % 4 * 2)) and 3, 4)"
    made = sum_codes(
        split_axes(
            parse_kernel(
                "kernel @k(x: f32[1024], Q: u8[256,512], P: u8[256,256]) -> (O: f32[256]) over n=256, k=1024 "
                f"{{ O[n] = sum(k: x[k] * cast<f32>(({code} or {high}) - 32)) }}"
            )
        )
    )
    source = source_of(lower(*choose(made, generic(machine))), generic(machine))
    inputs, planes = source.count("load_apart<f32"), source.count("load_apart<u8")
    assert 0 < 2 * inputs <= planes, "inputs are loaded once for several rows, codes for each"
    assert "load_strided" not in source


def test_rows_side_by_side_are_one_stream() -> None:
    text = FORMS["channel"].replace("S[n,0]", "S[n]")
    head = "kernel @k(x: f32[1024], Q: u8[256,512], S: f32[256]) -> (O: f32[256]) over n=256, k=1024"
    made = sum_codes(split_axes(parse_kernel(f"{head} {{ O[n] = sum(k: x[k] * {text}) }}")))
    source = source_of(lower(*choose(made, generic("avx512"))), generic("avx512"))
    assert source.count("__builtin_prefetch(Q") >= 4, "each row asks for its line of those two pages on"
    assert ", 0, 3);" not in source, "whole lines are asked for in L2"


def test_rows_that_end_within_a_line_ask_for_the_lines_of_all_of_them_in_their_order() -> None:
    head = "kernel @k(x: f32[18,16], y: f32[18,16], Q: u8[576,288], S: f32[576,18]) -> (O: f32[576])"
    code = "cast<i32>(Q[n,g * 16 + (j + {0})])"
    term = "x[g,j + {0}] * cast<f32>(" + code + ") + y[g,j + {0}] * cast<f32>(" + code + " and 15)"
    body = " + ".join(term.format(n) for n in (0, 8))
    made = parse_kernel(f"{head} over n=576, g=18, j=8 {{ O[n] = sum(g, j: ({body}) * S[n,g]) }}")
    source = source_of(lower(*choose(made, generic("avx2"))), generic("avx2"))
    asked = [line.strip() for line in source.splitlines() if "__builtin_prefetch(Q" in line]
    rows = source.count("load<u8x<8>>") // 2
    assert rows > 1 and len(asked) == -(-16 * rows // 64)
    for n, line in enumerate(asked):
        assert f"+ {16 * rows} * g_1 + {8192 + 64 * n}," in line, "a turn reads 16 bytes of each row"
        assert line.endswith(", 0, 3);"), "less than a line a turn is waited for in L2, so it is asked for in L1"


def test_codes_of_four_vectors_are_looked_up_together(target: Target, cache: CompileCache) -> None:
    code = "T[cast<i64>({} and 15)]"
    bits = "cast<i32>(Q[n,32 * g + j])"
    sums = f"(x[g,j] * {code.format(bits)} + y[g,j] * {code.format(f'shr({bits}, 4)')}) * S[n,g]"
    head = "kernel @k(x: f32[3,32], y: f32[3,32], T: f32[16], Q: u8[9,96], S: f32[9,3]) -> (O: f32[9])"
    made = parse_kernel(f"{head} over n=9, g=3, j=32 {{ O[n] = sum(g, j: {sums}) }}")
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.standard_normal((3, 32), np.float32),
        "y": rng.standard_normal((3, 32), np.float32),
        "T": rng.standard_normal(16, np.float32),
        "Q": rng.integers(0, 256, (9, 96), np.uint8),
        "S": rng.standard_normal((9, 3), np.float32),
    }
    found = np.full(9, np.nan, np.float32)
    nest = lower(*choose(made, target))
    run_nest(nest, {**arrays, "O": found}, target, cache)
    np.testing.assert_allclose(found, run_kernel(made, arrays)["O"], rtol=1e-5, atol=1e-4)
    together = [f"lookup_codes<{part}, {shift}>" in source_of(nest, target) for part in range(4) for shift in (0, 4)]
    assert all(together) if target.isa == "avx2" else not any(together)


def test_a_result_of_gathered_rows_asks_for_the_weights_of_the_next_one() -> None:
    """In slabs of the rows each takes a piece of the weight's row, and the next one's piece lies a row further; where
    L2 keeps the weight, or a piece is followed by the next one, nothing is asked for."""
    text = """
        kernel @k(X: f32[128,{k}], I: u8[{n},{g},2], V: f32[{n},{g},2]) -> (Y: f32[128,{n}])
            over k={k}, m=128, n={n}, g={g}, s=2 {{
          T[k,m] = X[m,k]
          R[n,m] = sum(g, s: T[g * 4 + cast<i64>(I[n,g,s] and 3),m] * V[n,g,s])
          Y[m,n] = R[n,m] * 2.0
        }}"""
    machine = replace(generic("avx512"), cores=2)
    asked = {}
    for n, k in ((768, 1536), (64, 1536), (16384, 64)):
        made = parse_kernel(text.format(n=n, k=k, g=k // 4))
        source = source_of(lower(*choose(made, machine)), machine)
        asked[n] = source.count("__builtin_prefetch(V")
    assert asked[768] >= 2 and asked[64] == asked[16384] == 0
