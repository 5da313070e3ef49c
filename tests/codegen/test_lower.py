"""What cannot be lowered says which kernel and axis, and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effcc.codegen.cpp.storage import statements, tiles
from effcc.codegen.lower import lower
from effcc.errors import ScheduleError
from effcc.ir.expr import free_axes
from effcc.ir.loops import Alloc, For
from effcc.ir.parser import parse_kernel
from effcc.ir.schedule import Loop, nodes
from effcc.passes.tiling.choose import choose
from effcc.target import generic


def test_a_reduction_inside_an_expression_is_refused_by_name() -> None:
    text = "kernel @k(X: f32[8,4]) -> (Y: f32[8]) over i=8, r=4 {\n  Y[i] = exp(sum(r: X[i,r]))\n}"
    with pytest.raises(ScheduleError, match=r"'k': the reduction over r .* give it a statement of its own"):
        lower(*choose(parse_kernel(text), generic("avx512")))


def test_what_a_task_leaves_over_has_no_loop_over_whole_tiles() -> None:
    kernel = parse_kernel("kernel @k(X: f32[s0]) -> (Y: f32[s0]) over i=s0 {\n  Y[i] = X[i] + 1.0\n}")
    nest = lower(*choose(kernel, generic("avx512")))
    assert [s.kind for s in statements(nest.body) if isinstance(s, For)] == ["parallel"]


def test_what_a_nest_leaves_for_the_next_has_their_lanes_innermost() -> None:
    text = """
        kernel @k(X: f32[4,8,12,12], W: f32[32,8]) -> (Y: f32[4,32,6,6]) over n=4, o=32, y=12, x=12, c=8, p=6, q=6 {
          C[n,o,y,x] = sum(c: X[n,c,y,x] * W[o,c])
          R[n,o,y,x] = maximum(C[n,o,y,x], 0.0)
          Y[n,o,p,q] = maximum(R[n,o,p * 2,q * 2], R[n,o,p * 2 + 1,q * 2])
        }
    """
    kernel, schedule = choose(replace(parse_kernel(text), weights=frozenset({"W"})), generic("avx512"))
    loops = [node for _, node in nodes(schedule.body) if isinstance(node, Loop)]
    (lanes,) = {x.axis for x in loops if x.together == "lanes"}
    nest = lower(kernel, schedule)
    (local,) = (s for s in statements(nest.body) if isinstance(s, Alloc) and s.space == "local")
    (tile,) = (t for t in tiles(nest) if t.buffer == local.name)
    assert lanes in {"o", "x"}
    assert lanes in free_axes(tile.index[-1])
    assert {x.axis for x in loops if x.kind == "parallel"} >= {"n"}


def test_sums_that_are_left_in_memory_are_copied_with_the_lanes_that_made_them() -> None:
    text = """
        kernel @k(X: u8[256,96]{1,256}, W: i8[256,256]) -> (C: i32[256,96]{1,256}) over o=256, p=96, c=256 {
          C[o,p] = sum<i32>(c: cast<i32>(X[c,p]) * cast<i32>(W[o,c]))
        }
    """
    kernel, schedule = choose(replace(parse_kernel(text), weights=frozenset({"W"})), generic("amx"))
    nest = lower(kernel, schedule)
    copied = [t for t in tiles(nest) if t.buffer == "C"]
    lanes = {a.name for t in copied for a in t.axes if a.kind == "lanes"}
    assert copied
    assert all(lanes & free_axes(t.index[0]) and not lanes & free_axes(t.index[1]) for t in copied)
