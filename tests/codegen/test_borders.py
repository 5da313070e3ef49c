"""Loops are cut where windows end: inside, no condition is left; what is computed stays the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effcc.codegen.borders import Interior, interiors
from effcc.codegen.cpp.storage import statements
from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.codegen.lower_ranges import Cutter, Range, Ranges
from effcc.ir import vectors
from effcc.ir.dims import symbol
from effcc.ir.expr import Call, walk
from effcc.ir.kernel import Kernel
from effcc.ir.loops import Alloc, For, If, Stmt, Tile
from effcc.ir.parser import parse_kernel
from effcc.ir.schedule import Schedule
from effcc.ir.vectors import Broadcast, Let
from effcc.passes.tiling.choose import choose
from effcc.target import generic

WINDOW = """
    kernel @k(X: f32[14,16], W: f32[3,16]) -> (Y: f32[14,16]) over y=14, c=16, k=3 {
      Y[y,c] = sum(k: where(y + k - 1 >= 0 and y + k - 1 < 14, X[y + k - 1,c], 0.0) * W[k,c])
    }
"""
STRIDED = """
    kernel @k(X: f32[30,16], W: f32[5,16]) -> (Y: f32[15,16]) over y=15, c=16, k=5 {
      Y[y,c] = sum(k: where(2 * y + k - 3 >= 0 and 2 * y + k - 3 < 30, X[2 * y + k - 3,c], 0.0) * W[k,c])
    }
"""
SIZED = """
    kernel @k(X: f32[s0,16], W: f32[3,16]) -> (Y: f32[s0,16]) over y=s0, c=16, k=3 {
      Y[y,c] = sum(k: where(y + k - 1 >= 0 and y + k - 1 < s0, X[y + k - 1,c], 0.0) * W[k,c])
    }
"""


@pytest.mark.parametrize(("text", "low", "high"), [(WINDOW, 1, 13), (STRIDED, 2, 15), (SIZED, 1, symbol("s0") - 1)])
def test_the_interior_is_where_every_tap_reads_inside(text: str, low: int, high: object) -> None:
    (inside,) = interiors(parse_kernel(text)).values()
    assert (inside.low, inside.highs) == (low, (high,))


def test_the_interior_holds_exactly_the_points_without_a_failing_condition() -> None:
    for text, size, taps, place in (
        (WINDOW, 14, 3, lambda y, k: y + k - 1),
        (STRIDED, 30, 5, lambda y, k: 2 * y + k - 3),
    ):
        kernel = parse_kernel(text)
        (inside,) = interiors(kernel).values()
        extent = kernel.extents["y"]
        assert isinstance(extent, int)
        good = [y for y in range(extent) if all(0 <= place(y, k) < size for k in range(taps))]
        assert good == list(range(inside.low, inside.end(extent) or 0))


def test_an_axis_whose_every_point_is_at_a_border_has_no_interior() -> None:
    assert not interiors(parse_kernel(WINDOW.replace("14", "1")))


def found_tests(body: tuple[Stmt, ...]) -> list[bool]:
    """For every tile that reads the image, whether it tests where it reads."""
    found = []
    for s in body:
        match s:
            case For():
                found += found_tests(s.body)
            case If():
                found += found_tests((*s.body, *s.orelse))
            case Tile():
                nodes = list(walk(s.value))
                if any(getattr(e, "buffer", "") == "X" for e in nodes):
                    found.append(any(isinstance(e, Call) and e.function in ("ge", "lt") for e in nodes))
    return found


def scheduled(text: str) -> tuple[Kernel, Schedule]:
    return choose(replace(parse_kernel(text), weights=frozenset({"W"})), generic("avx512"))


LONG = [WINDOW.replace("14", "140"), STRIDED.replace("30", "300").replace("15", "150"), SIZED]


@pytest.mark.parametrize("text", LONG)
def test_inside_nothing_is_tested(text: str) -> None:
    dense = text.replace("- 1,c]", "- 1,d]").replace("- 3,c]", "- 3,d]").replace("W[k,c]", "W[k,d,c]")
    dense = dense.replace("sum(k:", "sum(k, d:").replace("W: f32[3,16]", "W: f32[3,9,16]")
    dense = dense.replace("W: f32[5,16]", "W: f32[5,9,16]").replace("c=16", "c=16, d=9").replace("16], W", "9], W")
    kernel, schedule = scheduled(dense)
    assert set(found_tests(lower(kernel, schedule).body)) == {False, True}


@pytest.mark.parametrize("text", LONG)
def test_a_condition_that_masks_whole_vectors_needs_no_code_of_its_own(text: str) -> None:
    kernel, schedule = scheduled(text)
    nest = lower(kernel, schedule)
    assert set(found_tests(nest.body)) == {True}
    values = [line.value for line in vectorize(nest, generic("avx512")).lines if isinstance(line, Let)]
    reads = [v for v in values if isinstance(v, vectors.Load) and v.place.buffer == "X"]
    assert any(isinstance(x.mask, Broadcast) for x in reads)


def test_the_first_and_the_last_tile_of_a_line_share_their_code() -> None:
    inside: list[bool] = []

    def emit(ranges: Ranges) -> list[Stmt]:
        inside.append(ranges["y"].inside)
        return []

    loops = Cutter({"y": Interior(1, (55,), frozenset())}).cut("y", 14, "unroll", {"y": Range.whole(56)}, emit)
    assert inside == [False, True]
    assert [s.step for s in loops if isinstance(s, For)] == [42, 14]


def test_a_window_over_run_time_sizes_has_three_copies_of_its_sums() -> None:
    text = """
    kernel @k(X: f32[s0,s1,s2]) -> (Y: f32[s0,s1,s2]) over n=s0, y=s1, x=s2, k=3, q=3 {
      Y[n,y,x] = max(k, q: where(y + k - 1 >= 0 and y + k - 1 < s1 and x + q - 1 >= 0 and x + q - 1 < s2,
                                 X[n,y + k - 1,x + q - 1], -inf))
    }
    """
    kernel, schedule = scheduled(text)
    sums = [s for s in statements(lower(kernel, schedule).body) if isinstance(s, Alloc) and s.space == "register"]
    assert len(sums) == 3  # inside; at the ends of a row that lies inside; in a row that does not
