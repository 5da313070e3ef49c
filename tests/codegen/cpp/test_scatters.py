"""Scatters: threads and lanes share the axes along which points write apart, and results stay the same, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.errors import ScheduleError
from effcc.ir.dependences import shared_axes
from effcc.ir.interpreter import run_kernel
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel, parse_schedule
from effcc.ir.schedule import PARALLEL, Loop, Schedule, nodes
from effcc.ir.verifier import verify_any
from effcc.ir.verifier.schedules import verify_schedule
from effcc.passes.tiling.axes import settle_axes
from effcc.passes.tiling.choose import choose
from effcc.runtime.cache import CompileCache
from effcc.target import Target, generic
from tests.codegen.cpp.running import run_nest

ROWS = """
    kernel @rows(X: f32[{rows},{width}], I: i64[{count}], S: f32[{count},{width}]) -> (Y: f32[{rows},{width}])
      over r={rows}, c={width}, i={count}, d={width} {{
      Y[r,c] = X[r,c]
      Y[where(0 <= I[i] and I[i] < {rows}, I[i], -1),d] {combine}= S[i,d] for i, d
    }}
"""
ELEMENTS = """
    kernel @elements(X: f32[40,{width}], I: i64[40,{count}], S: f32[40,{count}]) -> (Y: f32[40,{width}])
      over r=40, c={width}, b=40, i={count} {{
      Y[r,c] = X[r,c]
      Y[b,where(0 <= I[b,i] and I[b,i] < {width}, I[b,i], -1)] {combine}= S[b,i] for b, i
    }}
"""


def scheduled(text: str, target: Target) -> tuple[Kernel, Schedule]:
    kernel, schedule = choose(settle_axes(parse_kernel(text), target), target)
    verify_any(kernel)
    verify_schedule(kernel, schedule)
    return kernel, schedule


def threads_share(schedule: Schedule) -> list[str]:
    return [n.axis for _, n in nodes(schedule.body) if isinstance(n, Loop) and n.kind == PARALLEL]


def same_for_any_threads(text: str, arrays: dict[str, Any], target: Target, cache: CompileCache) -> list[str]:
    """What its machine code computes is what the text means, with 1 to 3 threads; the axes that threads share."""
    kernel, schedule = scheduled(text, replace(target, cores=2))
    nest = lower(kernel, schedule)
    verify_any(nest)
    meant = run_kernel(parse_kernel(text), arrays)["Y"]
    np.testing.assert_array_equal(run_kernel(kernel, arrays)["Y"], meant)
    one = lower(*scheduled(text, replace(target, cores=1)))
    alone = np.full_like(meant, np.nan)
    run_nest(one, {**arrays, "Y": alone}, target, cache, threads=1)
    np.testing.assert_allclose(alone, meant, rtol=1e-5, atol=1e-5)
    for threads in (1, 2, 3):
        found = np.full_like(meant, np.nan)
        run_nest(nest, {**arrays, "Y": found}, target, cache, threads=threads)
        np.testing.assert_array_equal(found, alone)
    return threads_share(schedule)


@pytest.mark.parametrize(("width", "combine"), [(1, "add"), (37, "add"), (37, "set"), (200, "max")])
def test_rows_that_meet_keep_their_order(target: Target, cache: CompileCache, width: int, combine: str) -> None:
    random = np.random.default_rng(width)
    arrays: dict[str, Any] = {
        "X": random.standard_normal((9, width)).astype(np.float32),
        "I": random.integers(-1, 10, 4000),  # now and then outside, which is nowhere
        "S": random.standard_normal((4000, width)).astype(np.float32),
    }
    text = ROWS.format(rows=9, width=width, count=4000, combine=combine)
    shared = same_for_any_threads(text, arrays, target, cache)
    assert ("t" in shared) == (width > 1)


def test_rows_of_their_own_scatter_at_once(target: Target, cache: CompileCache) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "X": random.standard_normal((40, 50)).astype(np.float32),
        "I": random.integers(-1, 51, (40, 1000)),
        "S": random.standard_normal((40, 1000)).astype(np.float32),
    }
    text = ELEMENTS.format(width=50, count=1000, combine="add")
    assert "b" in same_for_any_threads(text, arrays, target, cache)


def test_what_one_thread_has_done_sooner_it_does_alone() -> None:
    two = replace(generic("avx512"), cores=2)
    assert "t" not in threads_share(scheduled(ROWS.format(rows=9, width=64, count=20, combine="add"), two)[1])
    assert "t" in threads_share(scheduled(ROWS.format(rows=900, width=64, count=9000, combine="add"), two)[1])
    assert "t" not in threads_share(scheduled(ROWS.format(rows=900, width=2, count=9000, combine="add"), two)[1])


@pytest.mark.parametrize(
    ("statement", "apart"),
    [
        ("Y[I[i],c] add= S[i,c] for i, c", ("c",)),
        ("Y[I[i],I[i]] add= S[i,c] for i, c", ()),
        ("Y[I[i],c + 0 * i] add= S[i,c] for i, c", ()),
        ("Y[where(I[i] % 3 == c, I[i], -1),2] add= S[i,c] for i, c", ("c",)),
        ("Y[where(I[i] // 2 == c and I[i] < 7, I[i], -1),2] add= S[i,c] for i, c", ("c",)),
        ("Y[where(I[i] + c == c, I[i], -1),2] add= S[i,c] for i, c", ()),
        ("Y[where(I[0] == c, I[i], -1),2] add= S[i,c] for i, c", ()),
        ("Y[where(i == c, I[i], -1),2] add= S[i,c] for i, c", ()),
        ("Y[where(I[i] % 3 == c or i == 0, I[i], -1),2] add= S[i,c] for i, c", ()),
        ("Y[where(I[i] % 3 == c, I[i], -2),2] add= S[i,c] for i, c", ()),
    ],
)
def test_only_what_tells_places_apart_is_shared(statement: str, apart: tuple[str, ...]) -> None:
    head = "kernel @k(I: i64[5], S: f32[5,8]) -> (Y: f32[8,8]) over c=8, i=5 { "
    assert shared_axes(parse_kernel(head + statement + " }")) == apart


def test_what_is_set_at_one_place_is_set_point_after_point() -> None:
    text = "kernel @k(S: f32[5,8]) -> (Y: f32[8]) over c=8, i=5 { Y[c] set= S[i,c] for i, c }"
    kernel = parse_kernel(text)
    verify_schedule(kernel, parse_schedule("schedule @k { for i by 1, c by 8 lanes { do Y } }").schedule)
    with pytest.raises(ScheduleError, match="Y is set at one place for all points of i"):
        verify_schedule(kernel, parse_schedule("schedule @k { for c by 1, i by 5 lanes { do Y } }").schedule)


def test_statements_that_write_at_other_places_share_nothing() -> None:
    head = "kernel @k(X: f32[8,8], I: i64[5], S: f32[5,8]) -> (Y: f32[8,8]) over r=8, c=8, i=5 { "
    for first, second, shared in (
        ("Y[r,c] = X[r,c]", "Y[I[i],c] add= S[i,c] for i, c", ("c",)),
        ("Y[r,c] = X[r,c]", "Y[c,I[i]] add= S[i,c] for i, c", ()),
        ("Y[I[i],c] add= S[i,c] for i, c", "Y[c,I[i]] add= S[i,c] for i, c", ()),
        ("Y[I[i],c] add= S[i,c] for i, c", "Y[I[i],c] max= S[i,c] for i, c", ("c",)),
    ):
        assert shared_axes(parse_kernel(f"{head} {first}\n {second} }}")) == shared
