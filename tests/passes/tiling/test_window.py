"""Windows over channels: neighbouring points share loads, as far as registers reach."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from effcc.ir.parser import parse_kernel
from effcc.ir.schedule import Loop, nodes
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.constraints import evaluate
from effcc.passes.tiling.nests import plan_nests
from effcc.passes.tiling.taps import taps_of
from effcc.passes.tiling.window import WindowNest, schedule_window, window_problem
from effcc.target import generic

IMAGE = WindowNest(
    line=14, stride=1, taps=3, reach=3, rows=3, channels=384, lines=14, weighted=True, operations=1, bytes=602112
)


@pytest.mark.parametrize("isa", ["avx2", "avx512", "scalar"])
@pytest.mark.parametrize("taps", [2, 3, 5, 7, 9])
def test_what_a_tile_holds_fits_the_registers(isa: str, taps: int) -> None:
    target = generic(isa)  # type: ignore[arg-type]
    for line, padded in product((9, 14), (False, True)):
        found = schedule_window(replace(IMAGE, line=line, taps=taps, reach=taps, padded=padded), target)
        held = 2 * taps if found.held else 1
        masks = 1 if padded and isa != "avx512" else 0
        assert (found.points + held) * found.vectors + masks < target.vector_registers


def test_a_long_window_is_a_loop_where_registers_are_few() -> None:
    long = replace(IMAGE, taps=7, reach=7, rows=7)
    assert not schedule_window(long, generic("avx2")).held
    assert schedule_window(long, generic("avx512")).held


def test_one_point_pays_for_all_its_loads() -> None:
    problem = window_problem(IMAGE, generic("avx512"))
    values = {p: {**problem.parameters, "points": p, "vectors": 1, "held": 1} for p in (1, 7)}
    costs = {p: evaluate(problem.objective, v) for p, v in values.items()}
    assert costs[1] > 1.5 * costs[7]


POOL = """
    kernel @pool(X: f32[32,28,28]{1,896,32}) -> (Y: f32[32,14,14]{1,448,32}) over o=32, y=14, x=14, k=3, l=3 {
      Y[o,y,x] = max(k, l: where(y * 2 + k >= 1 and x * 2 + l >= 1, X[o,y * 2 + k - 1,x * 2 + l - 1], -inf))
    }
"""


def test_a_pooling_window_slides_along_the_image_not_along_its_lanes() -> None:
    kernel = parse_kernel(POOL)
    (plan,) = plan_nests(kernel)
    found = taps_of(kernel, plan)
    assert set(found) == {"o"}
    assert (found["o"].stride, found["o"].dilation) == (2, 1)
    found_loops = [n for _, n in nodes(choose(kernel, generic("avx512"))[1].body) if isinstance(n, Loop)]
    assert [n.axis for n in found_loops if n.together == "lanes"] == ["o"]
    assert {n.axis for n in found_loops if n.together == "unroll"} == {found["o"].line, found["o"].tap}


BLOCK = """
    kernel @block(X: f32[64,14,14]{1,896,64}, W: f32[64,384], V: f32[3,3,384]) -> (Z: f32[384,14,14]{1,5376,384})
        over o=384, y=14, x=14, v=14, u=14, c=64, k=3, l=3 {
      Y[o,y,x] = sum(c: X[c,y,x] * W[c,o])
      Z[o,v,u] = sum(k, l: where(v + k >= 1 and v + k < 15 and u + l >= 1 and u + l < 15,
                                 Y[o,v + k - 1,u + l - 1], 0.0) * V[k,l,o])
    }
"""


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_a_window_over_what_the_kernel_itself_computes_takes_points_together(isa: str) -> None:
    """The intermediate has its channels innermost, whatever the order of its axes: one load is a vector of them."""
    chosen = choose(parse_kernel(BLOCK), generic(isa))[1]  # type: ignore[arg-type]
    loops = [n for _, n in nodes(chosen.body) if isinstance(n, Loop) and n.together == "unroll"]
    assert max(n.step for n in loops if n.axis == "u") >= 4
