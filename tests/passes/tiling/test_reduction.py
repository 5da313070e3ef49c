"""Reduction schedules: across a contiguous row, along contiguous columns, enough accumulators, columns shared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import ScheduleError
from effcc.ir.parser import parse_kernel
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.cost import machine_parameters
from effcc.passes.tiling.operands import Axis, Operand
from effcc.passes.tiling.reduction import ReductionNest, schedule_reduction
from effcc.target import generic

TARGET = generic("avx512")


def rows_of(rows: int, columns: int, **options) -> ReductionNest:
    axes = (Axis("i", rows), Axis("j", columns, "reduced"))
    return ReductionNest(
        axes, (Operand("X", {"i": columns, "j": 1}), Operand("Y", {"i": 1}, written=True)), 1, **options
    )


def columns_of(rows: int, columns: int) -> ReductionNest:
    axes = (Axis("i", rows, "reduced"), Axis("j", columns))
    return ReductionNest(axes, (Operand("X", {"i": columns, "j": 1}), Operand("Y", {"j": 1}, written=True)), 1)


def test_a_contiguous_row_is_reduced_across_lanes_with_accumulators_that_hide_latency():
    (best,) = schedule_reduction(rows_of(128, 768), TARGET)
    assert best.across
    assert best.vector_axis == "j"
    assert best.accumulators * 2 >= machine_parameters(TARGET)["latency_slots"] / 2


def test_contiguous_columns_are_reduced_lane_by_lane():
    (best,) = schedule_reduction(columns_of(128, 768), TARGET)
    assert not best.across
    assert best.vector_axis == "j"


def test_a_row_is_one_task_and_columns_are_cut_for_all_threads():
    (row,) = schedule_reduction(rows_of(1, 1 << 22), TARGET)
    (columns,) = schedule_reduction(columns_of(2048, 768), TARGET)
    assert row.tasks == 1
    assert columns.tasks >= TARGET.cores


def test_further_passes_cost_more_where_the_row_has_left_the_cache():
    def growth(columns: int) -> float:
        one, three = (schedule_reduction(rows_of(8, columns, passes=p), TARGET)[0] for p in (1, 3))
        return three.prediction.terms["outer"] / one.prediction.terms["outer"]

    assert growth(1024) == pytest.approx(1, rel=0.2)
    assert growth(1 << 20) > 2.5


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 300), columns=st.integers(1, 3000), passes=st.integers(1, 3))
def test_every_schedule_has_registers_for_its_accumulators_and_a_task_for_every_row(rows, columns, passes):
    found = schedule_reduction(rows_of(rows, columns, passes=passes), TARGET, k=4)
    assert [s.prediction.cost for s in found] == sorted(s.prediction.cost for s in found)
    for s in found:
        assert not s.across or s.tasks == rows
        assert s.accumulators * 3 <= TARGET.vector_registers


def test_nests_that_reduce_nothing_are_refused():
    with pytest.raises(ScheduleError, match="expected a reduced axis"):
        schedule_reduction(ReductionNest((Axis("i", 4),), (Operand("X", {"i": 1}),), 1), TARGET)


def test_rows_that_end_where_data_say_take_longer() -> None:
    """A core does not foresee their ends: short ones are not as quick as their elements are few."""
    (even,), (ragged,) = (schedule_reduction(rows_of(768, 80, ragged=r), TARGET) for r in (False, True))
    assert ragged.prediction.seconds > even.prediction.seconds


def test_each_place_that_is_data_takes_a_gather_of_its_own() -> None:
    """What a byte holds says where two elements are: two gathers a step, not one."""
    text = """
        kernel @k(X: f32[{k}], I: u8[64,256]) -> (Y: f32[64]) over n=64, k=256 {{
          Y[n] = sum(k: {body})
        }}"""
    one, other = "X[cast<i64>(I[n,k])]", "X[cast<i64>(I[n,k]) + 7]"
    seconds = [choose(parse_kernel(text.format(k=264, body=b)), generic("avx2"))[1].seconds
               for b in (f"{one} + {one}", f"{one} + {other}")]  # fmt: skip
    assert seconds[1] > 1.25 * seconds[0]
