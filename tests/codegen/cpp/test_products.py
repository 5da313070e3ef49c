"""Contractions: register tiles over packed panels, tails, accumulation in lanes, encoded operands."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.ir.dtypes import f32, i8, i32
from effcc.ir.expr import Call, Const, Expr, add, cast, floor_div, multiply
from effcc.ir.loops import Alloc, LoopNest, Stmt, Tile, TileAxis
from effcc.ir.parser import parse_kernel
from effcc.passes.tiling.choose import choose
from effcc.runtime.cache import CompileCache
from effcc.runtime.toolchain import INCLUDE_DIR, compile_flags, find_compiler
from effcc.target import Target, generic
from tests.codegen.cpp.running import apply, at, axes, index, loop, names, number, param, run_nest, source_of

m, n, k, m0, n0, k0 = names("m n k m0 n0 k0")


def matmul(rows: int, columns: int, depth: int, mr: int, nr: int) -> LoopNest:
    """A[rows,depth] times B packed in panels of nr columns."""
    tile = axes(("m", mr, "unroll"), ("n", nr, "lanes"))
    product = apply("mul", at("A", add(m0, m), k), at("B", n0, k, n))
    body = (
        Alloc("acc", f32, (mr, nr), "register"),
        Tile(tile, "acc", (m, n), "set", number(0.0)),
        loop("k", depth, 1, (Tile(tile, "acc", (m, n), "add", product),)),
        Tile(tile, "O", (add(m0, m), add(multiply(n0, index(nr)), n)), "set", at("acc", m, n)),
    )
    nest = loop("m0", rows, mr, (loop("n0", columns // nr, 1, body, "parallel"),), "parallel")
    operands = (param("A", f32, rows, depth), param("B", f32, columns // nr, depth, nr))
    return LoopNest("matmul", operands, (param("O", f32, rows, columns),), (nest,))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_register_tile_over_packed_panels_is_the_product(target: Target, cache: CompileCache, threads: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((28, 48), np.float32), rng.standard_normal((48, 64), np.float32)
    packed = np.ascontiguousarray(b.reshape(48, 2, 32).transpose(1, 0, 2))
    o = np.full((28, 64), np.nan, np.float32)
    run_nest(matmul(28, 64, 48, 14, 32), {"A": a, "B": packed, "O": o}, target, cache, threads=threads)
    np.testing.assert_allclose(o, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-5)


def test_every_operand_of_a_register_tile_is_loaded_once_per_step() -> None:
    source = source_of(matmul(28, 64, 48, 14, 32), generic("avx512"))
    assert source.count("= A[") == 14
    assert source.count("load<f32x<16>>(B") == 2
    assert source.count("mul_add(") == 28


def test_a_tail_of_columns_writes_nothing_beyond_the_row(target: Target, cache: CompileCache) -> None:
    tile = axes(("m", 2, "unroll"), ("n", 32, "lanes"))
    tail = axes(("m", 2, "unroll"), TileAxis("n", 32, "lanes", index(21)))
    body = (
        Alloc("acc", f32, (2, 32), "register"),
        Tile(tile, "acc", (m, n), "set", number(0.0)),
        loop("k", 9, 1, (Tile(tile, "acc", (m, n), "add", apply("mul", at("A", m, k), at("B", k, n))),)),
        Tile(tail, "O", (m, n), "set", apply("add", at("acc", m, n), at("C", n))),
    )
    operands = (param("A", f32, 2, 9), param("B", f32, 9, 32), param("C", f32, 21))
    nest = LoopNest("tail", operands, (param("O", f32, 2, 21),), body)
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(s, np.float32) for s in ((2, 9), (9, 32), (21,)))
    room = np.full(2 * 21 + 16, 7.0, np.float32)
    run_nest(nest, {"A": a, "B": b, "C": c, "O": room}, target, cache)
    np.testing.assert_allclose(room[:42].reshape(2, 21), (a @ b)[:, :21] + c, rtol=1e-5, atol=1e-5)
    assert (room[42:] == 7.0).all()


def test_int8_weights_are_decoded_in_the_product(target: Target, cache: CompileCache) -> None:
    tile = axes(("m", 3, "unroll"), ("n", 32, "lanes"))
    decoded = apply("mul", cast(at("Q", k, n, dtype=i8), f32), at("S", floor_div(k, index(8)), n))
    body = (
        Alloc("acc", f32, (3, 32), "register"),
        Tile(tile, "acc", (m, n), "set", number(0.0)),
        loop("k", 24, 1, (Tile(tile, "acc", (m, n), "add", apply("mul", at("A", m, k), decoded)),)),
        Tile(tile, "O", (m, n), "set", at("acc", m, n)),
    )
    operands = (param("A", f32, 3, 24), param("Q", i8, 24, 32), param("S", f32, 3, 32))
    nest = LoopNest("decode", operands, (param("O", f32, 3, 32),), body)
    rng = np.random.default_rng(2)
    a, s = rng.standard_normal((3, 24), np.float32), rng.random((3, 32), np.float32)
    q = rng.integers(-128, 128, (24, 32)).astype(np.int8)
    o = np.zeros((3, 32), np.float32)
    run_nest(nest, {"A": a, "Q": q, "S": s, "O": o}, target, cache)
    want = a.astype(np.float64) @ (q * np.repeat(s, 8, axis=0).astype(np.float64))
    np.testing.assert_allclose(o, want, rtol=1e-4, atol=1e-3)


def test_a_group_index_along_the_lanes_is_one_scalar_for_each_vector() -> None:
    scaled = apply("mul", at("X", add(k0, k)), at("S", floor_div(add(k0, k), index(32))))
    body = (loop("k0", 256, 64, (Tile(axes(("k", 64, "lanes")), "O", (add(k0, k),), "set", scaled),)),)
    nest = LoopNest("scale", (param("X", f32, 256), param("S", f32, 8)), (param("O", f32, 256),), body)
    source = source_of(nest, generic("avx512"))
    assert "gather" not in source
    assert source.count("= S[") == 2


def test_integers_accumulate_in_lanes_of_i32(target: Target, cache: CompileCache) -> None:
    product = Call("mul", (cast(at("X", k, dtype=i8), i32), cast(at("Y", k, dtype=i8), i32)), i32)
    body = (
        Tile((), "O", (), "set", Const(0, i32)),
        Tile(axes(("k", 100, "lanes")), "O", (), "add", product),
    )
    nest = LoopNest("dot", (param("X", i8, 100), param("Y", i8, 100)), (param("O", i32),), body)
    rng = np.random.default_rng(3)
    x, y = (rng.integers(-128, 128, 100).astype(np.int8) for _ in range(2))
    o = np.zeros((), np.int32)
    run_nest(nest, {"X": x, "Y": y, "O": o}, target, cache)
    assert o == x.astype(np.int32) @ y.astype(np.int32)


def test_a_long_panel_is_asked_for_ahead_one_line_at_a_time() -> None:
    long, short = (source_of(matmul(28, 64, depth, 14, 32), generic("avx512")) for depth in (384, 48))
    assert long.count("__builtin_prefetch(B") == 2, "two cache lines a step"
    assert source_of(matmul(28, 64, 384, 6, 16), generic("avx2")).count("__builtin_prefetch(B") == 1
    assert "__builtin_prefetch" not in short
    again = source_of(matmul(40 * 14, 64, 384, 14, 32), generic("avx512"))
    assert "__builtin_prefetch(B" not in again, "40 tiles of rows read a panel that stays in L2"


def test_every_tile_of_rows_asks_for_its_share_of_the_next_panel() -> None:
    """Three tiles of 10 rows and one of 2 read a panel of 32 columns and 384 rows."""

    def rows(start: Expr, mr: int) -> tuple[Stmt, ...]:
        tile, acc = axes(("m", mr, "unroll"), ("n", 32, "lanes")), f"acc{mr}"
        product = apply("mul", at("A", add(start, m), k), at("B", n0, k, n))
        return (
            Alloc(acc, f32, (mr, 32), "register"),
            Tile(tile, acc, (m, n), "set", number(0.0)),
            loop("k", 384, 1, (Tile(tile, acc, (m, n), "add", product),)),
            Tile(tile, "O", (add(start, m), add(multiply(n0, index(32)), n)), "set", at(acc, m, n)),
        )

    body = (loop("m0", 30, 10, rows(m0, 10)), *rows(index(30), 2))
    operands = (param("A", f32, 32, 384), param("B", f32, 2, 384, 32))
    panels = loop("n0", 2, 1, body, "parallel")
    source = source_of(LoopNest("matmul", operands, (param("O", f32, 32, 64),), (panels,)), generic("avx512"))
    # A third of a panel, 4096 elements, for every 10 rows; on the way 11 elements a turn.
    assert source.count("__builtin_prefetch(B") == 1, "one line a turn, and none from the tile that is left"
    assert "__builtin_prefetch(B + 12288 * n0 + 11 * k + 410 * m0 + 12288, 0, 2)" in source


def test_a_row_times_a_matrix_asks_for_what_its_vectors_will_read() -> None:
    """O[n] = sum over k of X[k] * W[n,k], lanes along k."""
    tile = Tile(axes(("k", 512, "lanes")), "O", (n,), "add", apply("mul", at("X", k), at("W", n, k)))
    rows = loop("n", 512, 1, (Tile((), "O", (n,), "set", number(0.0)), tile), "parallel")
    nest = LoopNest("gemv", (param("X", f32, 512), param("W", f32, 512, 512)), (param("O", f32, 512),), (rows,))
    source = source_of(nest, generic("avx512"))
    assert source.count("__builtin_prefetch(W") == 4
    assert "__builtin_prefetch(X" not in source


@pytest.mark.parametrize(("rows", "columns"), [(48, 4), (37, 4), (37, 6)])
def test_neighbouring_columns_of_rows_in_lanes_are_stored_together(
    target: Target, cache: CompileCache, rows: int, columns: int
) -> None:
    """O[m,n] with lanes along m: four columns are four vectors, and each row of them is one store; two are left."""
    tile = (TileAxis("m", 16, "lanes"), TileAxis("n", columns, "unroll"))
    tail = (TileAxis("m", rows % 16 or 16, "lanes"), TileAxis("n", columns, "unroll"))
    whole = rows - rows % 16
    value = apply("mul", at("A", n, add(m0, m)), number(2.0))
    body = [loop("m0", whole, 16, (Tile(tile, "O", (add(m0, m), n), "set", value),))]
    if rows % 16:
        rest = apply("mul", at("A", n, add(index(whole), m)), number(2.0))
        body.append(Tile(tail, "O", (add(index(whole), m), n), "set", rest))
    nest = LoopNest("rows", (param("A", f32, columns, rows),), (param("O", f32, rows, columns),), tuple(body))
    assert "store_rows(" in source_of(nest, generic("avx512"))
    a = np.random.default_rng(0).standard_normal((columns, rows), np.float32)
    o = np.full((rows, columns), np.nan, np.float32)
    run_nest(nest, {"A": a, "O": o}, target, cache)
    np.testing.assert_array_equal(o, 2 * a.T)


@pytest.mark.parametrize("rows", [48, 37])
def test_the_rows_of_blocks_are_turned_block_after_block(target: Target, cache: CompileCache, rows: int) -> None:
    """O[m,n,k] with lanes along m, n and k unrolled: rows of 4 blocks of 4 columns fill a vector."""

    def tile(lanes: int, first: Expr) -> Tile:
        shape = (TileAxis("m", lanes, "lanes"), TileAxis("n", 4, "unroll"), TileAxis("k", 4, "unroll"))
        place = add(first, m)
        return Tile(shape, "O", (place, n, k), "set", apply("mul", at("A", n, k, place), number(2.0)))

    whole = rows - rows % 16
    body: list[Stmt] = [loop("m0", whole, 16, (tile(16, m0),))]
    if rows % 16:
        body.append(tile(rows % 16, index(whole)))
    nest = LoopNest("rows", (param("A", f32, 4, 4, rows),), (param("O", f32, rows, 4, 4),), tuple(body))
    stored = re.findall(r"store_rows\(.*\{(.*?)\}", source_of(nest, generic("avx512")))
    assert stored and all(len(vectors.split(", ")) == 16 for vectors in stored)
    a = np.random.default_rng(0).standard_normal((4, 4, rows), np.float32)
    o = np.full((rows, 4, 4), np.nan, np.float32)
    run_nest(nest, {"A": a, "O": o}, target, cache)
    np.testing.assert_array_equal(o, 2 * a.transpose(2, 0, 1))


@pytest.mark.parametrize("columns", [32, 39])
@pytest.mark.parametrize("rows", [48, 55])
def test_as_many_columns_as_lanes_are_turned_in_registers(
    rows: int, columns: int, target: Target, cache: CompileCache
) -> None:
    kernel = parse_kernel(
        f"kernel @turned(X: f32[{rows},{columns}], b: f32[{rows}]) -> (O: f32[{columns},{rows}]) over "
        f"i={columns}, j={rows} {{ O[i,j] = X[j,i] + b[j] }}"
    )
    made, schedule = choose(kernel, target)
    nest = lower(made, schedule)
    if target.vector_lanes > 4:
        assert "turned at once" in schedule.notes[0]
        assert re.search(r"store_rows\(.*\{", source_of(nest, target))
    rng = np.random.default_rng(0)
    x, b = rng.standard_normal((rows, columns), np.float32), rng.standard_normal(rows).astype(np.float32)
    o = np.full((columns, rows), np.nan, np.float32)
    run_nest(nest, {"X": x, "b": b, "O": o}, target, cache)
    np.testing.assert_array_equal(o, (x + b[:, None]).T)


@pytest.mark.parametrize(("isa", "mr", "nr"), [("avx512", 14, 32), ("avx2", 6, 16), ("avx2", 4, 24)])
def test_a_short_sum_asks_for_the_lines_that_its_tile_writes(isa: str, mr: int, nr: int) -> None:
    source = source_of(matmul(100 * mr, 40 * nr, 64, mr, nr), generic(isa))
    asked, written = (_offsets(source, rf"{call}\(O \+ (.*?), ") for call in ("__builtin_prefetch", "store"))
    assert {line for place in written for line in (place // 16, (place + 7) // 16)} == {p // 16 for p in asked}
    near, shorter = matmul(4 * mr, 2 * nr, 64, mr, nr), matmul(100 * mr, 40 * nr, 16, mr, nr)
    assert "__builtin_prefetch(O" not in source_of(near, generic(isa)), "the output stays in L2"
    assert "__builtin_prefetch(O" not in source_of(shorter, generic(isa)), "it is over before a line arrives"


def test_taps_leave_the_registers_to_the_sums() -> None:
    """14 x 32 sums over 3 x 7 taps of every other element: what one tap reads, the next but one reads a row further up;
    a compiler that carries it over in registers has none left for sums."""
    tile = axes(("m", 14, "unroll"), ("n", 32, "lanes"))
    product = apply("mul", at("X", n0, add(multiply(m, index(2)), k)), at("W", n0, k, n))
    taps = loop("n0", 3, 1, (loop("k", 7, 1, (Tile(tile, "acc", (m, n), "add", product),)),))
    sums = (Alloc("acc", f32, (14, 32), "register"), Tile(tile, "acc", (m, n), "set", number(0.0)), taps)
    body = (*sums, Tile(tile, "O", (m, n), "set", at("acc", m, n)))
    operands = (param("X", f32, 3, 33), param("W", f32, 3, 7, 32))
    source = source_of(LoopNest("taps", operands, (param("O", f32, 14, 32),), body), generic("avx512"))
    compiler = find_compiler()
    flags = [f for f in (*compiler.flags, *compile_flags(generic("avx512"))) if f != "-shared"]
    command = [*compiler.command, *flags, "-S", "-o", "-", f"-I{INCLUDE_DIR}", "-x", "c++", "-"]
    made = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    assert len(re.findall(r"vfmadd\w+\s.*%zmm", made)) >= 28
    assert len(re.findall(r"%zmm\d+, -?\d*\(%r[sb]p\)", made)) < 4


def _offsets(source: str, pattern: str) -> set[int]:
    """Where calls in a tile of `O[m0..., n0...]` go row by row, from the tile's begin on."""
    rows = re.findall(r"for \(i64 row = 0; row < (\d+); \+\+row\)", source)
    assert len(rows) == 1
    found = set()
    for place in re.findall(pattern, source):
        for row in range(int(rows[0])):
            names = dict.fromkeys(re.findall(r"[a-z]\w*", place), 0) | {"row": row}
            found.add(int(eval(place, {}, names)))
    return found


@pytest.mark.parametrize(("depth", "each"), [(64, 11), (66, 11), (100, 17)])
def test_a_sum_is_cut_where_it_asks_for_a_row_and_every_step_is_in_one_piece(depth: int, each: int) -> None:
    source = source_of(matmul(6 * 100, 16 * 40, depth, 6, 16), generic("avx2"))
    assert f"for (i64 k = {each} * row; k < " in source
    until = {f"{each} * row + {each}", f"minimum<i64>({each} * row + {each}, {depth})"}
    assert any(text in source for text in until)
    pieces = [range(each * row, min(each * (row + 1), depth)) for row in range(6)]
    assert [k for piece in pieces for k in piece] == list(range(depth))


def test_a_short_sum_asks_for_the_next_rows_where_they_follow() -> None:
    """Tile after tile of 14 rows of 64: 14 elements in each of 64 turns are all of the next one's."""
    source = source_of(_rows_inside(14 * 1000, 64), generic("avx512"))
    assert source.count("__builtin_prefetch(A + 64 * m0 + 14 * k + 896") == 1
    assert "__builtin_prefetch(A" not in source_of(_rows_inside(14 * 10, 64), generic("avx512")), "it stays in L2"


def test_rows_that_other_threads_may_have_left_elsewhere_are_asked_for_where_few_panels_read_them() -> None:
    rows = 14 * generic("avx512").l2_bytes // (8 * 14 * 64 * 4)
    assert "__builtin_prefetch(A" in source_of(_rows_inside(rows // 14 * 14, 64, 2), generic("avx512"))
    assert "__builtin_prefetch(A" not in source_of(_rows_inside(rows // 14 * 14, 64, 20), generic("avx512"))


def _rows_inside(rows: int, depth: int, panels: int = 2) -> LoopNest:
    """A product of so many panels, each with tiles of rows one after the other."""
    nest = matmul(rows, 32 * panels, depth, 14, 32)
    (tasks,) = nest.body
    (panels,) = tasks.body
    inner = replace(tasks, kind="serial", body=panels.body)
    return replace(nest, body=(replace(panels, body=(inner,)),))


def test_what_several_products_add_up_to_is_added_product_by_product() -> None:
    """Each in one instruction with the sum before, none rounded apart."""
    tile = axes(("k", 32, "lanes"))
    pair = apply("mul_add", at("A", m, k), at("B", m, k), apply("mul", at("C", m, k), at("B", m, k)))
    body = (
        Alloc("acc", f32, (), "register"),
        Tile((), "acc", (), "set", number(0.0)),
        Tile(tile, "acc", (), "add", pair),
        Tile((), "O", (m,), "set", at("acc")),
    )
    operands = tuple(param(name, f32, 4, 32) for name in "ABC")
    nest = LoopNest("pairs", operands, (param("O", f32, 4),), (loop("m", 4, 1, body),))
    source = source_of(nest, generic("avx512"))
    assert source.count("mul_add(") == 4, source
    assert "+ v" not in source
