"""Products of bf16 whose factors are packed, in vectors and on a matrix unit: run by whatever this machine has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.errors import ScheduleError
from effcc.ir.interpreter import run_vectors
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel, parse_schedule, parse_vectors
from effcc.ir.printer import print_schedule, print_vectors
from effcc.ir.schedule import Schedule
from effcc.ir.vectors import Assign, Dot, Tiles
from effcc.ir.verifier import verify_schedule, verify_vectors
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.pack import pack
from effcc.passes.tiling.written import bounds
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import run_nest

MACHINES = ("avx512_bf16", "amx")
SHAPES = [(5, 40, 31), (16, 16, 32), (35, 18, 65)]
"""Rows, columns and depth: fewer than a tile has, whole tiles, and rests of each."""


def linear(rows: int, columns: int, depth: int) -> Kernel:
    text = f"""
        kernel @linear(X: bf16[{rows},{depth}], W: bf16[{columns},{depth}], B: bf16[{columns}])
            -> (Y: bf16[{rows},{columns}]) over m={rows}, n={columns}, k={depth} {{
          S[m,n] = sum(k: cast<f32>(X[m,k]) * cast<f32>(W[n,k]))
          Y[m,n] = cast<bf16>(S[m,n] + cast<f32>(B[n]))
        }}"""
    return replace(parse_kernel(text), weights=frozenset({"W"}))


def drawn(kernel: Kernel) -> tuple[dict[str, Any], Any]:
    """Arguments, and what the kernel gives in double precision, with how far off a sum may be."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(p.type.shape).astype(ml_dtypes.bfloat16) for p in kernel.params)
    wide = x.astype(np.float64) @ w.astype(np.float64).T + b.astype(np.float64)
    terms = np.abs(x.astype(np.float64)) @ np.abs(w.astype(np.float64)).T + np.abs(b.astype(np.float64))
    return {"X": x, "W": w, "B": b}, (wide, 2.0**-8 * np.abs(wide) + x.shape[1] * 2.0**-23 * terms)


def packed_weights(w: Any, schedule: Schedule) -> Any:
    (wanted,) = schedule.packs
    columns, depth = w.shape
    width, group = wanted.width, wanted.group
    room = np.zeros((-(-columns // width) * width, -(-depth // group) * group), w.dtype)
    room[:columns, :depth] = w
    return np.ascontiguousarray(room.reshape(-1, width, room.shape[1] // group, group).transpose(0, 2, 1, 3))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_packed_product_is_the_product(
    machine: str, shape: tuple[int, int, int], target: Target, cache: CompileCache
) -> None:
    """The schedule of a machine that has the instructions, interpreted, and run by what this one has."""
    if target.isa == "scalar" and machine != "amx":
        pytest.skip("thousands of scalar lines, which take long to compile; dots of scalars are tested apart")
    kernel = linear(*shape)
    reading, schedule = choose(kernel, generic(machine))
    nest = lower(reading, schedule)
    function = vectorize(nest, generic(machine))
    verify_vectors(function)
    assert parse_vectors(print_vectors(function)) == function
    assert any(isinstance(line, Assign) and isinstance(line.value, Dot) for line in function.lines)
    given, (want, most) = drawn(kernel)
    given["W"] = packed_weights(given["W"], schedule)
    for run in ("interpreted", "compiled"):
        y = np.full(shape[:2], np.nan, ml_dtypes.bfloat16)
        if run == "interpreted":
            run_vectors(function, {**given, "Y": y.reshape(-1)}, team=2)
        else:
            run_nest(nest, {**given, "Y": y}, target, cache, quick=target.isa == "scalar")
        assert (np.abs(y.astype(np.float64) - want) <= most).all(), run


def test_long_products_of_many_rows_go_to_the_matrix_unit() -> None:
    _, schedule = choose(linear(128, 256, 512), generic("amx"))
    assert "hold S in tiles" in print_schedule("linear", schedule)
    assert parse_schedule(print_schedule("linear", schedule)).schedule.body == schedule.body
    verify_schedule(linear(128, 256, 512), schedule, bounds(generic("amx")))


@pytest.mark.parametrize("machine", ["avx512", "avx2", "scalar"])
def test_machines_without_such_instructions_pack_nothing_in_pairs(machine: str) -> None:
    _, schedule = choose(linear(128, 256, 512), generic(machine))
    assert "packed" not in print_schedule("linear", schedule)
    assert all(p.group == 1 for p in schedule.packs)


def test_a_group_that_is_not_full_is_packed_with_zeros() -> None:
    kernel = linear(4, 5, 3)
    _, schedule = choose(kernel, generic("avx512_bf16"))
    _, packing = pack(kernel, schedule.packs[0])
    assert packing.outputs[0].type.shape == (1, 2, schedule.packs[0].width, 2)
    assert "where" in str(packing.statements[0].value)


WRITTEN = """
    schedule @linear {{
      pack W along n by 16 order k {group}
      for n by 16, m by 16 {{
        hold S in local {{
          for n by 16 lanes, m by {rows} unroll {{
            hold S in tiles {{ for k by {depth} {how} {{ do S }} }}
          }}
          for m by 1, n by 16 lanes {{ do Y }}
        }}
      }}
    }}"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": ""}, "W is not packed for that"),
        ({"depth": 64}, "adds up to 32 packed points of k"),
        ({"depth": 3}, "a multiple of 2"),
        ({"how": ""}, "whose reduced axis is `packed`"),
    ],
    ids=str,
)
def test_a_schedule_that_packs_what_it_cannot_is_refused(change: dict[str, Any], message: str) -> None:
    text = WRITTEN.format(**{"group": "group 2", "rows": 16, "depth": 32, "how": "packed", **change})
    with pytest.raises(ScheduleError, match=message):
        verify_schedule(linear(16, 16, 64), parse_schedule(text).schedule, bounds(generic("amx")))


def test_tile_registers_are_counted() -> None:
    text = WRITTEN.format(group="group 2", rows=128, depth=32, how="packed").replace("m by 16", "m by 128", 1)
    with pytest.raises(ScheduleError, match="avx512 has 0 tile registers"):
        verify_schedule(linear(128, 16, 64), parse_schedule(text).schedule, bounds(generic("avx512")))
    with pytest.raises(ScheduleError, match="8 tiles of S and 2 of its factors are 10"):
        verify_schedule(linear(128, 16, 64), parse_schedule(text).schedule, bounds(generic("amx")))


def test_factors_that_are_computed_first_are_no_packed_lanes() -> None:
    text = """
        kernel @k(X: bf16[32,64], W: bf16[32,64]) -> (S: f32[32,32]) over m=32, n=32, k=64 {
          S[m,n] = sum(k: (cast<f32>(X[m,k]) + 1.0) * cast<f32>(W[n,k]))
        }"""
    _, schedule = choose(replace(parse_kernel(text), weights=frozenset({"W"})), generic("amx"))
    assert "packed" not in print_schedule("k", schedule)


def test_a_tile_register_has_one_tile_at_a_time() -> None:
    text = """vectors @f(X: bf16 read, O: f32;) {
      tiles f32x16x16 c at 0
      tiles bf16x32x16 a at 0
      set c = f32x16x16(0.0)
      set a = tile<bf16x32x16>(X[0], stride=[32], rows=[16], lanes=[32])
      set c = dot(a, a, c)
      do store_tile(O[0], c, stride=[16])
    }"""
    with pytest.raises(Exception, match="another tile has taken 'c''s register"):
        verify_vectors(parse_vectors(text))
    verify_vectors(parse_vectors(text.replace("a at 0", "a at 1")))


def test_a_function_with_tiles_sets_the_unit_up() -> None:
    kernel, schedule = choose(linear(32, 32, 64), generic("amx"))
    function = vectorize(lower(kernel, schedule), generic("amx"))
    assert function.has_tiles == any(isinstance(line, Tiles) for line in function.lines)
