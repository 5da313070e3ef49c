"""Rows: softmax, layer norm, running maxima, folds over every kind of axis."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.dims import symbol
from effcc.ir.dtypes import boolean, f32, f64, i64
from effcc.ir.expr import Call, Const, Expr, Size, add, cast
from effcc.ir.loops import Alloc, LoopNest, Tile, TileAxis
from effcc.runtime.cache import CompileCache
from effcc.target import Target
from tests.codegen.cpp.running import apply, at, axes, constant, index, loop, names, number, param, run_nest

i, j, j0, lane, k = names("i j j0 l k")


def row_sweep(columns: int, fold: str, target: str, value: Expr) -> tuple[object, ...]:
    """Fold `value` over a row in 32 lanes kept apart, then over the lanes; the last tile is a masked one."""
    whole = columns // 32 * 32
    tail = axes(TileAxis("l", 32, "lanes", index(columns - whole)))
    body = [loop("j0", whole, 32, (Tile(axes(("l", 32, "lanes")), "part", (lane,), fold, value),))]
    if columns > whole:
        body.append(loop_at("j0", whole, Tile(tail, "part", (lane,), fold, value)))
    return (*body, Tile(axes(("l", 32, "lanes")), target, (), fold, at("part", lane)))


def loop_at(axis: str, start: int, tile: Tile) -> object:
    from effcc.ir.loops import For

    return For(axis, index(start), index(start + 1), 1, "serial", (tile,))


def softmax(rows: int, columns: int) -> LoopNest:
    x = at("X", i, add(j0, lane))
    shifted = apply("exp", apply("sub", x, at("M")))
    minus_infinity = number(float("-inf"))
    whole = columns // 32 * 32
    body = (
        Alloc("part", f32, (32,), "register"),
        Alloc("M", f32, (), "register"),
        Alloc("D", f32, (), "register"),
        Tile(axes(("l", 32, "lanes")), "part", (lane,), "set", minus_infinity),
        Tile((), "M", (), "set", minus_infinity),
        *row_sweep(columns, "max", "M", x),
        Tile(axes(("l", 32, "lanes")), "part", (lane,), "set", number(0.0)),
        Tile((), "D", (), "set", number(0.0)),
        *row_sweep(columns, "add", "D", shifted),
        loop("j0", whole, 32, (
            Tile(axes(("l", 32, "lanes")), "P", (i, add(j0, lane)), "set", apply("div", shifted, at("D"))),
        )),
        *([loop_at("j0", whole, Tile(axes(TileAxis("l", 32, "lanes", index(columns - whole))), "P", (i, add(j0, lane)),
                                     "set", apply("div", shifted, at("D"))))] if columns > whole else []),
    )  # fmt: skip
    return LoopNest("softmax", (param("X", f32, rows, columns),), (param("P", f32, rows, columns),),
                    (loop("i", rows, 1, body, "parallel"),))  # fmt: skip


@pytest.mark.parametrize("columns", [32, 77, 5])
def test_softmax_of_rows(target: Target, cache: CompileCache, columns: int) -> None:
    x = (np.random.default_rng(0).standard_normal((7, columns)) * 5).astype(np.float32)
    p = np.full((7, columns), np.nan, np.float32)
    run_nest(softmax(7, columns), {"X": x, "P": p}, target, cache)
    wide = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    np.testing.assert_allclose(p, wide / wide.sum(1, keepdims=True), rtol=1e-5)


def test_layer_norm_folds_lanes_of_whole_rows(target: Target, cache: CompileCache) -> None:
    row = axes(("j", 100, "lanes"))
    centred = apply("sub", at("X", i, j), at("mean"))
    body = (
        Alloc("mean", f32, (), "register"),
        Alloc("variance", f32, (), "register"),
        Tile((), "mean", (), "set", number(0.0)),
        Tile(row, "mean", (), "add", at("X", i, j)),
        Tile((), "mean", (), "set", apply("div", at("mean"), number(100.0))),
        Tile((), "variance", (), "set", number(0.0)),
        Tile(row, "variance", (), "add", apply("mul", centred, centred)),
        Tile((), "variance", (), "set",
             apply("rsqrt", apply("add", apply("div", at("variance"), number(100.0)), number(1e-5)))),
        Tile(row, "Y", (i, j), "set",
             apply("add", apply("mul", apply("mul", centred, at("variance")), at("G", j)), at("B", j))),
    )  # fmt: skip
    nest = LoopNest("norm", (param("X", f32, 5, 100), param("G", f32, 100), param("B", f32, 100)),
                    (param("Y", f32, 5, 100),), (loop("i", 5, 1, body, "parallel"),))  # fmt: skip
    rng = np.random.default_rng(1)
    x, g, b = (rng.standard_normal(s).astype(np.float32) for s in ((5, 100), (100,), (100,)))
    y = np.zeros((5, 100), np.float32)
    run_nest(nest, {"X": x, "G": g, "B": b, "Y": y}, target, cache)
    wide = x.astype(np.float64)
    want = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5) * g + b
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_a_loop_axis_is_folded_in_registers_and_stored_once(target: Target, cache: CompileCache) -> None:
    tile = axes(("k", 40, "loop"), ("i", 3, "unroll"), ("j", 20, "lanes"))
    body = (
        Tile(axes(("i", 3, "unroll"), ("j", 20, "lanes")), "O", (i, j), "set", number(1.0)),
        Tile(tile, "O", (i, j), "add", at("X", k, i, j)),
    )
    nest = LoopNest("fold", (param("X", f32, 40, 3, 20),), (param("O", f32, 3, 20),), body)
    x = np.random.default_rng(2).standard_normal((40, 3, 20)).astype(np.float32)
    o = np.zeros((3, 20), np.float32)
    run_nest(nest, {"X": x, "O": o}, target, cache)
    np.testing.assert_allclose(o, 1 + x.sum(0, dtype=np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("combine", "dtype", "want"),
    [("max", f32, np.max), ("min", f64, np.min), ("mul", f64, np.prod), ("add", i64, np.sum), ("max", i64, np.max)],
)
def test_folds_over_lanes_in_every_dtype(target: Target, cache: CompileCache, combine, dtype, want) -> None:  # type: ignore[no-untyped-def]
    start = {"max": -100, "min": 100, "mul": 1, "add": 0}[combine]
    first = constant(float(start) if dtype.is_float else start, dtype)
    body = (
        Tile((), "O", (), "set", first),
        Tile(axes(("j", 37, "lanes")), "O", (), combine, at("X", j, dtype=dtype)),
    )
    nest = LoopNest("fold", (param("X", dtype, 37),), (param("O", dtype),), body)
    x = (np.random.default_rng(3).standard_normal(37) * 3 + 0.1).astype(dtype.numpy)
    o = np.zeros((), dtype.numpy)
    run_nest(nest, {"X": x, "O": o}, target, cache)
    np.testing.assert_allclose(o, want(x), rtol=1e-5)


def test_a_nan_survives_a_maximum(target: Target, cache: CompileCache) -> None:
    body = (
        Tile((), "O", (), "set", number(float("-inf"))),
        Tile(axes(("j", 40, "lanes")), "O", (), "max", at("X", j)),
    )
    nest = LoopNest("top", (param("X", f32, 40),), (param("O", f32),), body)
    for place in (0, 17, 39):
        x = np.arange(40, dtype=np.float32)
        x[place] = np.nan
        o = np.zeros((), np.float32)
        run_nest(nest, {"X": x, "O": o}, target, cache)
        assert np.isnan(o)


def test_any_and_all_of_a_comparison(target: Target, cache: CompileCache) -> None:
    positive = apply("gt", at("X", j), number(0.0))
    body = (
        Tile((), "A", (), "set", Const(False, boolean)),
        Tile((), "E", (), "set", Const(True, boolean)),
        Tile(axes(("j", 21, "lanes")), "A", (), "or", positive),
        Tile(axes(("j", 21, "lanes")), "E", (), "and", positive),
    )
    nest = LoopNest("any", (param("X", f32, 21),), (param("A", boolean), param("E", boolean)), body)
    for x, some, every in ((np.ones(21), True, True), (-np.ones(21), False, False), (np.arange(21) - 3, True, False)):
        a, e = np.zeros((), np.bool_), np.zeros((), np.bool_)
        run_nest(nest, {"X": x.astype(np.float32), "A": a, "E": e}, target, cache)
        assert (bool(a), bool(e)) == (some, every)


def test_a_row_of_run_time_length(target: Target, cache: CompileCache) -> None:
    """A limit known at run time masks the last tile."""
    s0 = symbol("s0")
    rest = Call("minimum", (Call("sub", (Size(s0), j0), i64), index(32)), i64)
    value = at("X", add(j0, lane))
    body = (
        Alloc("part", f32, (32,), "register"),
        Tile(axes(("l", 32, "lanes")), "part", (lane,), "set", number(0.0)),
        loop("j0", Size(s0), 32, (
            Tile(axes(TileAxis("l", 32, "lanes", rest)), "part", (lane,), "add", value),
            Tile(axes(TileAxis("l", 32, "lanes", rest)), "Y", (add(j0, lane),), "set", cast(add(j0, lane), f32)),
        )),
        Tile((), "O", (), "set", number(0.0)),
        Tile(axes(("l", 32, "lanes")), "O", (), "add", at("part", lane)),
    )  # fmt: skip
    nest = LoopNest("total", (param("X", f32, s0),), (param("O", f32), param("Y", f32, s0)), body)
    for n in (1, 31, 32, 100):
        x = np.arange(n + 40, dtype=np.float32)
        x[n:] = np.nan
        o, y = np.zeros((), np.float32), np.full(n + 40, -1.0, np.float32)
        run_nest(nest, {"X": x, "O": o, "Y": y}, target, cache, {"s0": n})
        assert o == n * (n - 1) / 2
        assert (y[:n] == np.arange(n)).all() and (y[n:] == -1).all()
