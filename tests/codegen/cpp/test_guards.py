"""`where` never reads where its condition fails: padding, masks, data-dependent indices, edges of tiles.

Buffers end exactly where a page ends, and the next page may not be touched: a read or write too many stops the process.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import pytest

from effcc.ir.dims import symbol
from effcc.ir.dtypes import DType, boolean, f32, i32, i64
from effcc.ir.expr import Call, Expr, Size, add, both, cast, compare, floor_div, modulo, multiply, where
from effcc.ir.loops import Alloc, If, LoopNest, Tile, TileAxis
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import apply, at, axes, index, loop, names, number, param, run_nest, source_of

i, j, k, c, h, w, h0, w0, m, n, r, s, t, d = names("i j k c h w h0 w0 m n r s t d")

_libc = ctypes.CDLL(None, use_errno=True)
_kept: list[Any] = []


def at_page_end(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy of `values` whose last byte is the last one of a page, before a page that nobody may touch."""
    pages = -(-max(values.nbytes, 1) // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert _libc.mprotect(ctypes.c_void_p(start + pages * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
    _kept.append(memory)
    offset = pages * mmap.PAGESIZE - values.nbytes
    found = np.frombuffer(memory, values.dtype, values.size, offset).reshape(values.shape)
    found[...] = values
    return found


def convolution(channels: int, size: int) -> LoopNest:
    """A 3x3 convolution with padding 1: the guard depends on the lanes."""
    y, x = add(add(h0, r), index(-1)), add(add(w, s), index(-1))
    inside = both(
        compare("ge", y, index(0)), compare("lt", y, index(size)),
        compare("ge", x, index(0)), compare("lt", x, index(size)),
    )  # fmt: skip
    product = apply("mul", where(inside, at("X", c, y, x), number(0.0)), at("W", k, c, r, s))
    tile = axes(("k", 2, "unroll"), ("w", size, "lanes"))
    body = (
        Alloc("acc", f32, (2, size), "register"),
        Tile(tile, "acc", (k, w), "set", number(0.0)),
        loop("c", channels, 1, (loop("r", 3, 1, (loop("s", 3, 1, (Tile(tile, "acc", (k, w), "add", product),)),)),)),
        Tile(tile, "O", (k, h0, w), "set", at("acc", k, w)),
    )
    operands = (param("X", f32, channels, size, size), param("W", f32, 2, channels, 3, 3))
    return LoopNest("conv", operands, (param("O", f32, 2, size, size),), (loop("h0", size, 1, body, "parallel"),))


@pytest.mark.parametrize("size", [9, 16, 23])
def test_padding_reads_nothing_outside_the_image(target: Target, cache: CompileCache, size: int) -> None:
    rng = np.random.default_rng(0)
    x = at_page_end(rng.standard_normal((3, size, size)).astype(np.float32))
    weight = at_page_end(rng.standard_normal((2, 3, 3, 3)).astype(np.float32))
    o = at_page_end(np.zeros((2, size, size), np.float32))
    run_nest(convolution(3, size), {"X": x, "W": weight, "O": o}, target, cache)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    np.testing.assert_allclose(o, np.einsum("chwrs,kcrs->khw", windows, weight), rtol=1e-4, atol=1e-4)


def test_embedding_gathers_rows_by_index(target: Target, cache: CompileCache) -> None:
    row = at("T", i, dtype=i64)
    nest = LoopNest(
        "embedding", (param("T", i64, 6), param("W", f32, 10, 20)), (param("O", f32, 6, 20),),
        (loop("i", 6, 1, (Tile(axes(("d", 20, "lanes")), "O", (i, d), "set", at("W", row, d)),), "parallel"),),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    table = at_page_end(rng.standard_normal((10, 20)).astype(np.float32))
    t = np.array([9, 0, 3, 3, 9, 1])
    o = at_page_end(np.zeros((6, 20), np.float32))
    run_nest(nest, {"T": t, "W": table, "O": o}, target, cache)
    np.testing.assert_array_equal(o, table[t])


@pytest.mark.parametrize("dtype", [i32, i64])
def test_indices_in_lanes_gather_where_they_are_valid(target: Target, cache: CompileCache, dtype: DType) -> None:
    place = cast(at("T", j, dtype=dtype), i64)
    value = where(compare("ge", place, index(0)), at("W", place, i), number(-1.0))
    nest = LoopNest(
        "pick", (param("T", dtype, 21), param("W", f32, 7, 3)), (param("O", f32, 3, 21),),
        (Tile(axes(("i", 3, "unroll"), ("j", 21, "lanes")), "O", (i, j), "set", value),),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    t = at_page_end(rng.integers(0, 7, 21).astype(dtype.numpy))
    t[[0, 4, 20]] = -1_000_000_000
    table = at_page_end(rng.standard_normal((7, 3)).astype(np.float32))
    o = np.zeros((3, 21), np.float32)
    run_nest(nest, {"T": t, "W": table, "O": o}, target, cache)
    np.testing.assert_array_equal(o, np.where(t >= 0, table[np.maximum(t, 0)].T, -1.0))


def test_scatter_adds_to_one_place_more_than_once(target: Target, cache: CompileCache) -> None:
    place = at("T", j, dtype=i64)
    nest = LoopNest(
        "bins", (param("T", i64, 21), param("X", f32, 21)), (param("O", f32, 4),),
        (
            Tile(axes(("j", 4, "lanes")), "O", (j,), "set", number(0.0)),
            Tile(axes(("j", 21, "lanes")), "O", (place,), "add", at("X", j)),
        ),
    )  # fmt: skip
    rng = np.random.default_rng(3)
    t, x = rng.integers(0, 4, 21), rng.standard_normal(21).astype(np.float32)
    o = np.zeros(4, np.float32)
    run_nest(nest, {"T": at_page_end(t), "X": at_page_end(x), "O": o}, target, cache)
    np.testing.assert_allclose(o, np.bincount(t, x, 4), rtol=1e-5)


def test_a_causal_mask_compares_lanes_in_32_bits() -> None:
    value = where(compare("le", add(w0, w), h), at("X", h, add(w0, w)), number(float("-inf")))
    body = loop("w0", 64, 32, (Tile(axes(("w", 32, "lanes")), "O", (h, add(w0, w)), "set", value),))
    nest = LoopNest("causal", (param("X", f32, 64, 64),), (param("O", f32, 64, 64),), (loop("h", 64, 1, (body,)),))
    source = source_of(nest, generic("avx512"))
    assert "i64x<" not in source
    assert "load_if" not in source, "the load is inside the buffer whatever the mask says"


def test_what_a_condition_has_read_is_not_read_again_under_its_mask() -> None:
    """Written twice, as rules leave it; where a tile may reach beyond the buffer, a guard would cost AVX2 branches."""

    def scaled() -> Expr:
        return multiply(at("X", add(w0, w)), at("S", add(w0, w)))

    value = where(compare("lt", scaled(), number(0.0)), number(0.0), scaled())
    body = loop("w0", 144, 40, (Tile((TileAxis("w", 40, "lanes"),), "O", (add(w0, w),), "set", value),))
    source = source_of(
        LoopNest("clamped", (param("X", f32, 144), param("S", f32, 144)), (param("O", f32, 144),), (body,)),
        generic("avx2"),
    )
    assert "load_if" not in source


@pytest.mark.parametrize(("first", "functions"), [(32, ("lt", "ge")), (31, ("le", "gt")), (48, ("lt",)), (33, ("lt",))])
def test_a_condition_on_whose_sides_no_vector_lies_both_is_one_of_all_lanes(
    first: int, functions: tuple[str, ...], cache: CompileCache
) -> None:
    """Pieces of a concatenation, in whole vectors or not."""
    size = first + (functions[0] == "le")  # of the first piece
    piece = [at("A", add(w0, w)), at("B", add(add(w0, w), index(-size)))]
    for function in functions:
        sides = piece if function in ("lt", "le") else piece[::-1]
        value = where(compare(function, add(w0, w), index(first)), *sides)
        body = loop("w0", 96, 16, (Tile((TileAxis("w", 16, "lanes"),), "O", (add(w0, w),), "set", value),))
        nest = LoopNest("joined", (param("A", f32, size), param("B", f32, 96 - size)), (param("O", f32, 96),), (body,))
        assert ("load_if" in source_of(nest, generic("avx512"))) == (size % 16 != 0)
        a, b, o = (np.arange(n, dtype=np.float32) for n in (size, 96 - size, 96))
        run_nest(nest, {"A": at_page_end(a), "B": at_page_end(-b), "O": o}, generic("avx2"), cache)
        np.testing.assert_array_equal(o, np.concatenate([a, -b]))


def test_causal_masks_and_concatenation(target: Target, cache: CompileCache) -> None:
    masked = where(compare("le", j, i), at("X", i, j), number(float("-inf")))
    joined = where(compare("lt", j, index(13)), at("A", j), at("B", add(j, index(-13))))
    nest = LoopNest(
        "masks", (param("X", f32, 3, 30), param("A", f32, 13), param("B", f32, 17)),
        (param("M", f32, 3, 30), param("C", f32, 30)),
        (
            Tile(axes(("i", 3, "unroll"), ("j", 30, "lanes")), "M", (i, j), "set", masked),
            Tile(axes(("j", 30, "lanes")), "C", (j,), "set", joined),
        ),
    )  # fmt: skip
    rng = np.random.default_rng(4)
    x, a, b = (at_page_end(rng.standard_normal(shape).astype(np.float32)) for shape in ((3, 30), (13,), (17,)))
    mask, both_ = np.zeros((3, 30), np.float32), at_page_end(np.zeros(30, np.float32))
    run_nest(nest, {"X": x, "A": a, "B": b, "M": mask, "C": both_}, target, cache)
    np.testing.assert_array_equal(mask, np.where(np.tri(3, 30, dtype=bool), x, -np.inf))
    np.testing.assert_array_equal(both_, np.concatenate([a, b]))


def test_uniform_conditions_become_branches(target: Target, cache: CompileCache) -> None:
    earlier = where(compare("gt", t, index(0)), at("X", add(t, index(-1)), j), number(0.5))
    body = (
        Tile(axes(("j", 10, "lanes")), "O", (t, j), "set", earlier),
        If(compare("ge", t, index(3)), (Tile(axes(("j", 10, "lanes")), "O", (t, j), "mul", number(2.0)),),
           (Tile(axes(("j", 10, "lanes")), "O", (t, j), "add", number(1.0)),)),
    )  # fmt: skip
    nest = LoopNest("shift", (param("X", f32, 5, 10),), (param("O", f32, 5, 10),), (loop("t", 5, 1, body),))
    x = at_page_end(np.random.default_rng(5).standard_normal((5, 10)).astype(np.float32))
    o = np.zeros((5, 10), np.float32)
    run_nest(nest, {"X": x, "O": o}, target, cache)
    want = np.concatenate([np.full((1, 10), 0.5, np.float32), x[:-1]])
    np.testing.assert_allclose(o, np.where(np.arange(5)[:, None] >= 3, want * 2, want + 1), rtol=1e-6)


def test_a_limit_on_an_unrolled_axis_guards_its_points(target: Target, cache: CompileCache) -> None:
    s0 = symbol("s0")
    rows = TileAxis("m", 4, "unroll", Size(s0))
    nest = LoopNest(
        "edge", (param("X", f32, s0, 9),), (param("O", f32, s0, 9),),
        (Tile(axes(rows, ("n", 9, "lanes")), "O", (m, n), "set", apply("mul", at("X", m, n), number(2.0))),),
    )  # fmt: skip
    for size in (1, 3, 4):
        x = at_page_end(np.random.default_rng(6).standard_normal((size, 9)).astype(np.float32))
        o = at_page_end(np.zeros((size, 9), np.float32))
        run_nest(nest, {"X": x, "O": o}, target, cache, {"s0": size})
        np.testing.assert_array_equal(o, x * 2)


def test_reshaped_and_strided_indices(target: Target, cache: CompileCache) -> None:
    """A view through division and remainder, and a transposed operand."""
    flat: Expr = add(multiply(i, index(12)), j)
    value = apply("add", at("X", floor_div(flat, index(8)), modulo(flat, index(8))), at("Y", j, i))
    nest = LoopNest(
        "views", (param("X", f32, 6, 8), param("Y", f32, 12, 4, strides=(1, 12))), (param("O", f32, 4, 12),),
        (loop("i", 4, 1, (Tile(axes(("j", 12, "lanes")), "O", (i, j), "set", value),), "parallel"),),
    )  # fmt: skip
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((6, 8)).astype(np.float32), rng.standard_normal((4, 12)).astype(np.float32)
    o = np.zeros((4, 12), np.float32)
    run_nest(nest, {"X": at_page_end(x), "Y": at_page_end(y), "O": o}, target, cache)
    np.testing.assert_array_equal(o, x.reshape(4, 12) + y)


def test_a_boolean_mask_from_memory(target: Target, cache: CompileCache) -> None:
    value = where(at("K", j, dtype=boolean), at("X", j), number(0.0))
    flipped = Call("not", (at("K", j, dtype=boolean),), boolean)
    nest = LoopNest(
        "masked", (param("K", boolean, 21), param("X", f32, 21)), (param("O", f32, 21), param("N", boolean, 21)),
        (
            Tile(axes(("j", 21, "lanes")), "O", (j,), "set", value),
            Tile(axes(("j", 21, "lanes")), "N", (j,), "set", flipped),
        ),
    )  # fmt: skip
    rng = np.random.default_rng(8)
    keep, x = rng.random(21) < 0.5, rng.standard_normal(21).astype(np.float32)
    o, inverse = at_page_end(np.zeros(21, np.float32)), at_page_end(np.zeros(21, np.bool_))
    run_nest(nest, {"K": at_page_end(keep), "X": at_page_end(x), "O": o, "N": inverse}, target, cache)
    np.testing.assert_array_equal(o, np.where(keep, x, 0))
    np.testing.assert_array_equal(inverse, ~keep)


@pytest.mark.parametrize("step", [2, 3])
def test_strides_along_the_lanes_read_nothing_beyond_the_last_element(
    target: Target, cache: CompileCache, step: int
) -> None:
    """Every second (third) element, plainly and under a guard that fails in the first lane."""
    size = step * 47 + 1
    plain = at("X", multiply(j, index(step)))
    before = add(multiply(j, index(step)), index(-1))
    guarded = where(compare("ge", before, index(0)), at("X", before), number(-1.0))
    nest = LoopNest(
        "strided", (param("X", f32, size),), (param("O", f32, 48), param("G", f32, 48)),
        (
            Tile(axes(("j", 48, "lanes")), "O", (j,), "set", plain),
            Tile(axes(("j", 48, "lanes")), "G", (j,), "set", guarded),
        ),
    )  # fmt: skip
    x = at_page_end(np.random.default_rng(9).standard_normal(size).astype(np.float32))
    o, g = np.zeros(48, np.float32), np.zeros(48, np.float32)
    run_nest(nest, {"X": x, "O": o, "G": g}, target, cache)
    np.testing.assert_array_equal(o, x[::step])
    np.testing.assert_array_equal(g[1:], x[step - 1 :: step][:47])
    assert g[0] == -1.0
