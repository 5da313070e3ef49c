"""Pointwise schedules: the vector axis, blocks for transposed operands, tasks where they pay."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import ScheduleError
from effcc.ir.parser import parse_kernel
from effcc.ir.verifier import verify_schedule
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.operands import CACHE_LINE, Axis, Operand
from effcc.passes.tiling.pointwise import PAGES, PointwiseNest, schedule_pointwise
from effcc.passes.tiling.written import bounds
from effcc.target import Isa, generic

TARGET = generic("avx512")


def copy(rows: int, columns: int, transposed: bool = False) -> PointwiseNest:
    straight = {"i": columns, "j": 1}
    source = Operand("X", {"i": 1, "j": rows} if transposed else straight)
    return PointwiseNest(
        (Axis("i", rows), Axis("j", columns)), (source, Operand("Y", straight, written=True)), operations=4
    )


def test_vectors_lie_where_operands_are_contiguous():
    (best,) = schedule_pointwise(copy(64, 3072), TARGET)
    assert best.vector_axis == "j"
    assert best.block == 1


def test_a_broadcast_operand_costs_nothing_along_the_vector():
    axes = (Axis("i", 512), Axis("j", 512))
    same = {"i": 512, "j": 1}
    with_bias = PointwiseNest(axes, (Operand("X", same), Operand("b", {"i": 1}), Operand("Y", same, written=True)), 4)
    without = PointwiseNest(axes, (Operand("X", same), Operand("Y", same, written=True)), 4)
    (a,), (b,) = schedule_pointwise(with_bias, TARGET), schedule_pointwise(without, TARGET)
    assert a.vector_axis == "j"
    assert a.prediction.seconds == pytest.approx(b.prediction.seconds, rel=1e-3)


def test_a_transposed_operand_is_walked_in_blocks_that_use_whole_cache_lines():
    (best,) = schedule_pointwise(copy(1024, 1024, transposed=True), TARGET, crossing="i")
    assert best.block * 4 >= CACHE_LINE
    assert best.tile * best.lanes <= PAGES


def test_what_tasks_cannot_share_is_not_cut():
    nest = replace(copy(1024, 1024, transposed=True), whole=frozenset({"i"}))
    (best,) = schedule_pointwise(nest, TARGET, crossing="i")
    assert best.block == 1
    (best,) = schedule_pointwise(replace(nest, whole=frozenset({"i", "j"})), TARGET, crossing="i")
    assert best.tasks == 1


def test_a_large_nest_is_shared_and_a_small_one_is_not():
    (large,) = schedule_pointwise(copy(4096, 1024), TARGET)
    (small,) = schedule_pointwise(copy(1, 64), TARGET)
    assert large.tasks >= TARGET.cores
    assert small.tasks == 1


def test_a_single_long_row_is_shared_along_its_vectors():
    nest = PointwiseNest((Axis("i", 1 << 22),), (Operand("X", {"i": 1}), Operand("Y", {"i": 1}, written=True)), 1)
    (best,) = schedule_pointwise(nest, TARGET)
    assert best.tasks % TARGET.cores == 0


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 300), columns=st.integers(1, 2000), transposed=st.booleans())
def test_every_schedule_has_registers_for_its_vectors_and_tasks_that_cover_the_nest(rows, columns, transposed):
    found = schedule_pointwise(copy(rows, columns, transposed), TARGET, k=4)
    assert [s.prediction.cost for s in found] == sorted(s.prediction.cost for s in found)
    for s in found:
        assert s.tasks * s.block * s.tile * s.lanes >= rows * columns
        assert s.unroll == 1 or s.unroll * 4 <= TARGET.vector_registers


def test_code_is_short_where_length_gains_nothing():
    def unroll(operations, **given):
        operands = (Operand("X", {"i": 1}), Operand("Y", {"i": 1}, written=True))
        return schedule_pointwise(PointwiseNest((Axis("i", 1000),), operands, operations, **given), TARGET)[0].unroll

    assert unroll(1) == 8
    assert unroll(1, once=True) == 1  # compiling takes longer than running
    assert unroll(40) == 1  # a loop's turn is nothing beside its body


def test_nests_without_points_are_refused():
    with pytest.raises(ScheduleError, match="at least one point"):
        schedule_pointwise(PointwiseNest((Axis("i", 0),), (), 1), TARGET)


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_a_chosen_schedule_fits_where_a_result_is_written_transposed(isa: Isa) -> None:
    kernel = parse_kernel("""
        kernel @add(W: f32[3,33], X: f32[3,33]) -> (M: f32[3,33]{1,3}, S: f32[3,33]) over i=3, i1=33 {
          M[i,i1] = W[i,i1] * X[i,i1]
          S[i,i1] = M[i,i1] + 1.0
        }""")
    verify_schedule(kernel, choose(kernel, generic(isa))[1], bounds(generic(isa)))


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
def test_rows_that_a_call_puts_apart_are_turned_too(isa: Isa):
    kernel = parse_kernel("""kernel @turned(X: f32[17*s,32]{1,17*s}) -> (O: f32[s,17,32]) over i=s, j=17, n=32 {
      O[i,j,n] = X[i * 17 + j,n]
    }""")
    reading, schedule = choose(kernel, generic(isa))
    verify_schedule(reading, schedule, bounds(generic(isa)))
    assert any("turned" in note for note in schedule.notes)
