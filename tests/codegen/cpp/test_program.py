"""Whole programs: functions shared by equal nests, barriers where needed, segments, aliases, several threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effcc.codegen.cpp.program import emit_program, entry_points, pointer_table
from effcc.errors import ScheduleError
from effcc.ir.dims import symbol
from effcc.ir.dtypes import f32
from effcc.ir.expr import Call, Expr, Size, add
from effcc.ir.loops import Alloc, LoopNest, Tile, TileAxis
from effcc.ir.program import Buffer, Extern, Launch, Program
from effcc.ir.types import tensor
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import apply, at, axes, loop, names, number, param, run_nest, run_program, source_of

i, j, k = names("i j k")
N = 1000


def pointwise(name: str, value: Expr, *params: str) -> LoopNest:
    """O[i] = value, 16 elements a tile, shared among threads."""
    body = loop("i", 992, 16, (Tile(axes(("j", 16, "lanes")), "O", (add(i, j),), "set", value),), "parallel")
    rest = Tile(axes(TileAxis("j", 8, "lanes")), "O", (add(number_of(992), j),), "set", _shift(value))
    return LoopNest(name, tuple(param(p, f32, N) for p in params), (param("O", f32, N),), (body, rest))


def number_of(value: int) -> Expr:
    from tests.codegen.cpp.running import index

    return index(value)


def _shift(value: Expr) -> Expr:
    from effcc.ir.expr import substitute_axes

    return substitute_axes(value, {"i": number_of(992)})


X = at("X", add(i, j))
NESTS = {
    "twice": pointwise("twice", apply("mul", X, number(2.0)), "X"),
    "double": pointwise("double", apply("mul", X, number(2.0)), "X"),
    "plus": pointwise("plus", apply("add", X, at("Y", add(i, j))), "X", "Y"),
}


def chain(*steps: Launch | Extern) -> Program:
    vector = tensor(f32, N)
    buffers = (
        Buffer("x", vector, "input"), Buffer("y", vector, "output"), Buffer("w", vector, "prepared"),
        Buffer("a", vector, "arena", 0), Buffer("b", vector, "arena", 4032), Buffer("c", vector, "arena", 0),
        Buffer("view", vector, "arena", None, "a"),
    )  # fmt: skip
    prepare = (Launch("twice", ("x",), ("w",)),)
    return Program("chain", buffers, ("x",), ("y",), {}, steps, prepare)


def barriers(program: Program) -> int:
    source = emit_program(program, NESTS, generic("avx512")).entry
    return source[source.index("static void effcc_run") :].count("me.meet")


def test_equal_nests_share_one_function() -> None:
    program = chain(Launch("twice", ("x",), ("a",)), Launch("double", ("a",), ("y",)))
    source = emit_program(program, NESTS, generic("avx512"))
    (unit,) = source.kernels
    assert unit.kernels == ("twice",)
    assert source.entry.count("twice::run(") == 3  # with the one that prepares


def test_the_same_program_gives_the_same_text() -> None:
    program = chain(Launch("twice", ("x",), ("a",)), Launch("plus", ("a", "x"), ("y",)))
    assert emit_program(program, NESTS, generic("avx2")) == emit_program(program, NESTS, generic("avx2"))


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ([("twice", "x", "a"), ("twice", "x", "b")], 0),
        ([("twice", "x", "a"), ("twice", "a", "b")], 1),
        ([("twice", "x", "a"), ("twice", "view", "b")], 1),
        ([("twice", "x", "a"), ("twice", "x", "b"), ("twice", "a", "y"), ("twice", "b", "c")], 2),
        ([("twice", "b", "y"), ("twice", "x", "b")], 1),
        ([("twice", "x", "a"), ("twice", "x", "c")], 1),
    ],
)
def test_threads_wait_only_where_memory_is_shared(steps: list[tuple[str, str, str]], wanted: int) -> None:
    assert barriers(chain(*(Launch(k, (a,), (r,)) for k, a, r in steps))) == wanted


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_chain_of_launches_runs_in_order(target: Target, cache: CompileCache, threads: int) -> None:
    program = chain(
        Launch("twice", ("x",), ("a",)), Launch("plus", ("a", "x"), ("b",)), Launch("twice", ("view",), ("y",)),
        Launch("plus", ("y", "b"), ("c",)), Launch("plus", ("c", "w"), ("y",)),
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal(N).astype(np.float32)
    arrays = {"x": x, "y": np.zeros(N, np.float32), "w": np.zeros(N, np.float32)}
    run_program(program, NESTS, arrays, target, cache, threads=threads, entry="effcc_prepare")
    run_program(program, NESTS, arrays, target, cache, threads=threads)
    np.testing.assert_allclose(arrays["y"], 9 * x, rtol=1e-6)


def test_extern_calls_cut_a_program_into_entry_points() -> None:
    cut = chain(Launch("twice", ("x",), ("a",)), Extern("rand", ("a",), ("b",)), Launch("twice", ("b",), ("y",)))
    found = [(e.name, e.stage, e.segment) for e in entry_points(cut)]
    assert found == [("effcc_prepare", "prepare", 0), ("effcc_run_0", "run", 0), ("effcc_run_2", "run", 2)]
    assert pointer_table(cut) == ("x", "w", "y")
    source = emit_program(cut, NESTS, generic("avx512")).entry
    assert 'extern "C" int effcc_run_0(' in source and 'extern "C" int effcc_run_2(' in source


def test_only_buffers_that_share_no_memory_are_restrict() -> None:
    program = chain(Launch("plus", ("x", "w"), ("y",)))
    source = str(emit_program(program, NESTS, generic("avx512"), no_alias=frozenset({"w"})))
    assert "run(const f32* X, const f32* __restrict Y, f32* O" in source


def test_arena_buffers_need_a_place() -> None:
    program = chain(Launch("twice", ("x",), ("a",)))
    unplaced = replace(program, buffers=tuple(replace(b, offset=None) for b in program.buffers))
    with pytest.raises(ScheduleError, match="'a' has no offset"):
        emit_program(unplaced, NESTS, generic("avx512"))
    placed = emit_program(unplaced, NESTS, generic("avx512"), offsets={"a": 64 * symbol("s0")})
    assert "const i64 size = 64 * s0;" in placed.entry
    assert "call.arena + size)" in placed.entry


def test_a_local_buffer_outside_a_parallel_loop_is_refused() -> None:
    body = (
        Alloc("t", f32, (16,), "local"),
        loop("i", 4, 1, (Tile(axes(("j", 16, "lanes")), "t", (j,), "set", at("X", i, j)),), "parallel"),
    )
    nest = LoopNest("shared", (param("X", f32, 4, 16),), (), body)
    with pytest.raises(ScheduleError, match="all threads would share it"):
        source_of(nest, generic("avx512"))


def test_parallel_loops_of_run_time_length(target: Target, cache: CompileCache) -> None:
    s0 = symbol("s0")
    left = Call("minimum", (Call("sub", (Size(s0), j), left_dtype()), number_of(16)), left_dtype())
    tile = Tile(axes(TileAxis("k", 16, "lanes", left)), "O", (i, add(j, k)), "set",
                apply("add", at("X", i, add(j, k)), at("Y", add(j, k))))  # fmt: skip
    nest = LoopNest(
        "rows", (param("X", f32, 3, s0), param("Y", f32, s0)), (param("O", f32, 3, s0),),
        (loop("i", 3, 1, (loop("j", Size(s0), 16, (tile,), "parallel"),), "parallel"),),
    )  # fmt: skip
    for size in (1, 16, 53):
        rng = np.random.default_rng(size)
        x, y = rng.standard_normal((3, size)).astype(np.float32), rng.standard_normal(size).astype(np.float32)
        o = np.zeros((3, size), np.float32)
        run_nest(nest, {"X": x, "Y": y, "O": o}, target, cache, {"s0": size})
        np.testing.assert_array_equal(o, x + y)


def left_dtype():  # type: ignore[no-untyped-def]
    return i.dtype


def test_phases_of_one_nest_wait_for_each_other(target: Target, cache: CompileCache) -> None:
    """A parallel loop, thread 0's own statement, and another parallel loop that reads what it wrote."""
    row = axes(("j", 40, "lanes"))
    body = (
        loop("i", 30, 1, (Tile(row, "T", (i, j), "set", apply("mul", at("X", i, j), number(3.0))),), "parallel"),
        Tile(axes(("i", 30, "loop"), ("j", 40, "lanes")), "S", (j,), "add", at("T", i, j)),
        loop("i", 30, 1, (Tile(row, "O", (i, j), "set", apply("sub", at("T", i, j), at("S", j))),), "parallel"),
    )
    outputs = (param("T", f32, 30, 40), param("S", f32, 40), param("O", f32, 30, 40))
    nest = LoopNest("phases", (param("X", f32, 30, 40),), outputs, body)
    x = np.random.default_rng(3).standard_normal((30, 40)).astype(np.float32)
    arrays = {"X": x, "T": np.zeros_like(x), "S": np.zeros(40, np.float32), "O": np.zeros_like(x)}
    run_nest(nest, arrays, target, cache, threads=3)
    np.testing.assert_allclose(arrays["O"], 3 * x - 3 * x.sum(0), rtol=1e-4, atol=1e-4)


def test_a_transcendental_used_many_times_is_called() -> None:
    body = (Tile(axes(("i", 4, "unroll"), ("j", 32, "lanes")), "O", (i, j), "set", apply("erf", at("X", i, j))),)
    source = source_of(LoopNest("g", (param("X", f32, 4, 32),), (param("O", f32, 4, 32),), body), generic("avx512"))
    assert source.count("return erf(x);") == 1
    assert source.count("  call_erf(") == 3  # 8 vectors: twice 3, and 2
