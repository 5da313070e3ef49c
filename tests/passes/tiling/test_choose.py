"""Lanes go where loads are contiguous, counted as often as they come; constants that are apart are packed."""

from __future__ import annotations

from dataclasses import replace

from effcc.ir.parser import parse_kernel, parse_schedule
from effcc.ir.printer import print_schedule
from effcc.ir.schedule import Loop, Schedule, nodes
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.written import bounds
from effcc.target import generic

TARGET = generic("avx512")


def schedule(text: str, weights: frozenset[str] = frozenset()) -> Schedule:
    return choose(replace(parse_kernel(text), weights=weights), TARGET)[1]


def loops(found: Schedule, kind: str) -> set[tuple[str, int]]:
    """Axes and steps of the loops of a kind: `parallel`, or what becomes of their tiles' points."""
    every = [node for _, node in nodes(found.body) if isinstance(node, Loop)]
    return {(x.axis, x.step) for x in every if kind in (x.kind, x.together)}


DEPTHWISE = """
    kernel @depthwise(X: f32[{shape}]{strides}, W: f32[96,7,7]) -> (Y: f32[96,56,56]{out})
        over o=96, y=56, x=56, k=7, l=7 {{
      C[o,y,x] = sum(k, l: where(y + k >= 3 and y + k < 59 and x + l >= 3 and x + l < 59,
                                 X[o,y + k - 3,x + l - 3], 0.0) * W[o,k,l])
      Y[o,y,x] = exp(C[o,y,x])
    }}
"""


def test_a_depthwise_filter_over_channels_last_has_channels_in_the_lanes_and_is_packed() -> None:
    last = "{1,5376,96}"
    found = schedule(DEPTHWISE.format(shape="96,56,56", strides=last, out=last), frozenset({"W"}))
    ((lanes, wide),), (points,) = loops(found, "lanes"), (n for a, n in loops(found, "unroll") if a == "x")
    assert lanes == "o"
    assert points * wide // TARGET.vector_lanes < TARGET.vector_registers
    assert points >= 8
    assert [p.buffer for p in found.packs] == ["W"]


CONVOLUTION = """
    kernel @k(X: f32[256,{n},{n}]{{1,{line},256}}, W: f32[256,256,3,3]) -> (Y: f32[256,{n},{n}]{{1,{line},256}})
        over o=256, y={n}, x={n}, c=256, k=3, l=3 {{
      Y[o,y,x] = sum(c, k, l: where(y + k >= 1 and y + k < {n} + 1 and x + l >= 1 and x + l < {n} + 1,
                                    X[c,y + k - 1,x + l - 1], 0.0) * W[o,c,k,l])
    }}
"""


def test_short_lines_of_pixels_are_stacked_in_a_register_tile() -> None:
    def rows(n: int, channels: int) -> dict[str, int]:
        text = CONVOLUTION.format(n=n, line=channels * n).replace("256", str(channels))
        return dict(loops(schedule(text, frozenset({"W"})), "unroll"))

    assert rows(7, 512) == {"y": 2, "x": 7}
    assert set(rows(56, 256)) == {"x"}


def test_threads_share_out_what_reads_less_that_others_have() -> None:
    """Each reads its part of what the outer loop cuts, and all of what the inner one does."""

    def outer(channels: int, pixels: int, columns: int, cores: int) -> str:
        text = f"""kernel @k(X: f32[{channels},{pixels}]{{1,{channels}}}, W: f32[{channels},{columns}])
            -> (Y: f32[{columns},{pixels}]{{1,{columns}}}) over o={columns}, x={pixels}, c={channels} {{
              Y[o,x] = sum(c: X[c,x] * W[c,o]) }}"""
        kernel = replace(parse_kernel(text), weights=frozenset({"W"}))
        _, found = choose(kernel, replace(TARGET, cores=cores))
        return next(x.axis for _, x in nodes(found.body) if isinstance(x, Loop) and x.kind == "parallel")

    assert outer(384, 196, 64, cores=2) == "x"
    assert outer(384, 196, 64, cores=1) == "o"
    assert outer(960, 49, 160, cores=2) == "o"


def test_columns_that_lines_read_again_are_cut_into_even_tiles() -> None:
    text = CONVOLUTION.format(n=14, line=1024 * 14).replace("256", "1024").replace("c=1024", "c=90")
    text = text.replace("X: f32[1024", "X: f32[90").replace(
        "{1,14336,1024}, W: f32[1024,1024", "{1,1260,90}, W: f32[1024,90"
    )
    ((tile),) = [n for a, n in loops(schedule(text, frozenset({"W"})), "parallel") if a == "o"]
    assert 32 < tile < 1024 and 1024 % tile == 0


def test_over_channels_first_a_row_of_the_image_is_in_the_lanes_not_of_the_window() -> None:
    found = schedule(DEPTHWISE.format(shape="96,56,56", strides="", out=""), frozenset({"W"}))
    assert {axis for axis, _ in loops(found, "lanes")} == {"x"}
    assert not found.packs


def test_what_comes_once_a_row_does_not_decide_the_lanes() -> None:
    apart = DEPTHWISE.format(shape="96,56,56", strides="", out="{1,5376,96}")
    assert {axis for axis, _ in loops(schedule(apart, frozenset({"W"})), "lanes")} == {"x"}


def test_columns_are_summed_with_lanes_along_them_by_all_threads() -> None:
    found = schedule("kernel @k(X: f32[3000,500]) -> (Y: f32[500]) over r=3000, i=500 {\n  Y[i] = sum(r: X[r,i])\n}")
    assert {axis for axis, _ in loops(found, "lanes")} == {"i"}
    ((axis, tile),) = loops(found, "parallel")
    assert axis == "i" and tile * TARGET.cores <= 500 + tile


def test_rows_are_normalized_with_lanes_along_the_row() -> None:
    found = schedule("""
        kernel @softmax(X: f32[40,500]) -> (P: f32[40,500]) over i=40, n=500 {
          M[i] = max(n: X[i,n])
          E[i,n] = exp(X[i,n] - M[i])
          D[i] = sum(n: E[i,n])
          P[i,n] = E[i,n] / D[i]
        }
    """)
    assert {axis for axis, _ in loops(found, "lanes")} == {"n"}


def test_a_padded_convolution_without_mask_registers_is_predicted_quicker_with_channels_last() -> None:
    def seconds(strides: str, isa: str) -> float:
        text = CONVOLUTION.format(n=56, line=64 * 56).replace("256", "64").replace("{1,3584,64}", strides)
        kernel = replace(parse_kernel(text), weights=frozenset({"W"}))
        return choose(kernel, generic(isa))[1].seconds

    assert seconds("", "avx2") > 1.3 * seconds("{1,3584,64}", "avx2")
    assert seconds("", "avx512") > seconds("{1,3584,64}", "avx512")


def test_reductions_of_one_nest_have_registers_for_all_their_sums() -> None:
    names = [f"R{n}" for n in range(11)]
    text = "\n".join(f"{name}[i] = max(j: X[i,j] * {n})" for n, name in enumerate(names))
    outputs = ", ".join(f"{name}: i64[s0]" for name in names)
    kernel = parse_kernel(f"kernel @k(X: i64[s0,65]) -> ({outputs}) over i=s0, j=65 {{ {text} }}")
    _, found = choose(kernel, generic("avx2"))
    parse_schedule(print_schedule("k", found)).check(kernel, bounds(generic("avx2")))


def test_rows_run_on_their_own_that_are_read_at_places_which_are_data() -> None:
    kernel = parse_kernel("""
        kernel @k(X: f32[s0,2], P: i64[s0]) -> (L: f32[s0,2], G: f32[s0]) over i=s0, n=2 {
          M[i] = max(n: X[i,n])
          L[i,n] = X[i,n] - M[i]
          G[i] = where(in_range(P[i], 2, 0), L[i,P[i]], 0.0)
        }""")
    _, found = choose(kernel, TARGET)
    assert {axis for axis, _ in loops(found, "parallel")} == {"i"}
    parse_schedule(print_schedule("k", found)).check(kernel, bounds(TARGET))


def test_a_constant_factor_whose_rows_lie_apart_is_packed_for_them() -> None:
    """The taps of every eighth result: at each step a row's element lies in another cache line."""
    text = """
        kernel @k(X: f32[256,301], W: f32[256,128,{taps}]) -> (Y: f32[128,300]) over o=128, y=300, c=256, k=2 {{
          Y[o,y] = sum(c, k: X[c,y + k] * W[c,o,{at}])
        }}"""
    spread = schedule(text.format(taps=16, at="k * 8"), frozenset({"W"}))
    (rows,) = (n for a, n in loops(spread, "unroll") if a == "o")
    assert [(p.buffer, p.axis, p.width, p.order) for p in spread.packs] == [("W", "o", rows, ("c", "k"))]
    assert not schedule(text.format(taps=2, at="k"), frozenset({"W"})).packs
    assert not schedule(text.format(taps=16, at="k * 8")).packs


def test_rows_of_a_tile_are_stored_four_at_a_time_where_results_lie_apart_along_the_lanes() -> None:
    text = """
        kernel @k(X: f32[4096,64], W: f32[64,64]) -> (Y: f32[4096,64]{layout}) over m=4096, n=64, k=64 {{
          S[m,n] = sum(k: X[m,k] * W[n,k])
          Y[m,n] = exp(S[m,n])
        }}"""
    (turned,) = (n for a, n in loops(schedule(text.format(layout="{1,4096}"), frozenset({"W"})), "unroll") if a == "m")
    (straight,) = (n for a, n in loops(schedule(text.format(layout=""), frozenset({"W"})), "unroll") if a == "m")
    assert turned % 4 == 0 and straight % 4
