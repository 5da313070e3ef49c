"""Contraction schedules: what wins on known machines, that everything fits, and that the model means what it says."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.codegen.cpp.prefetch_panels import PANEL_OF_L2
from effcc.errors import ScheduleError
from effcc.passes.tiling.constraints import evaluate
from effcc.passes.tiling.contraction import (
    MODEL,
    ContractionNest,
    Made,
    contraction_problem,
    contraction_schedules,
    schedule_contraction,
)
from effcc.passes.tiling.cost import PANEL_PARTS, ROOFLINE
from effcc.passes.tiling.notation import parse_model
from effcc.passes.tiling.operands import Axis
from effcc.passes.tiling.solver import solve
from effcc.target import generic
from tests.passes.tiling.brute_force import brute_force

AVX512, AVX2 = generic("avx512"), generic("avx2")
ZEN3 = replace(AVX2, cores=2, l2_bytes=512 << 10, l3_bytes=32 << 20)
"""A part of a server with AVX2."""


def product(m: int, n: int, k: int, batch: int = 1, **options) -> ContractionNest:
    return ContractionNest(
        (Axis("b", batch, "batch"), Axis("m", m, "m"), Axis("n", n, "n"), Axis("k", k, "k")), **options
    )


@pytest.mark.parametrize("m", [32, 128, 512])
@pytest.mark.parametrize(("n", "k"), [(384, 384), (1536, 384), (384, 1536), (768, 768)])
def test_avx512_takes_a_tile_that_is_among_the_fastest_measured(m, n, k):
    (best,) = schedule_contraction(product(m, n, k), AVX512)
    assert (best.mr, best.nr) in {(r, 32) for r in range(10, 15)} | {(7, 48), (8, 48), (9, 48)}


@pytest.mark.parametrize("m", [32, 128, 512])
def test_avx2_takes_a_tile_that_fills_its_sixteen_registers(m):
    (best,) = schedule_contraction(product(m, 768, 768), AVX2)
    assert (best.mr, best.nr) in {(6, 16), (5, 16), (4, 24)}


@pytest.mark.parametrize("target", [AVX512, AVX2, generic("scalar")], ids=lambda t: t.name)
@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 300), n=st.integers(1, 1200), k=st.integers(1, 5000), batch=st.sampled_from((1, 12)))
def test_every_schedule_fits_registers_and_cache_and_covers_the_product(target, m, n, k, batch):
    (s,) = schedule_contraction(product(m, n, k, batch), target)
    vectors = s.nr // s.lanes
    assert s.nr % s.lanes == 0
    assert s.mr * vectors + vectors + 1 <= target.vector_registers
    assert 4 * (s.mc * s.kc + s.kc * s.nr) <= target.l2_bytes
    assert s.mc == m or s.mc % s.mr == 0
    assert s.nc % s.nr == 0
    assert s.tasks == batch * -(-m // s.mc) * -(-n // s.nc)
    assert s.padded_columns == -n % s.nr
    assert s.prediction.seconds >= 2 * batch * m * n * k / target.peak_flops


def test_different_schedules_come_best_first():
    found = schedule_contraction(product(128, 768, 768), AVX512, k=25)
    seconds = [s.prediction.seconds for s in found]
    assert seconds == sorted(seconds)
    assert len({(s.mr, s.nr, s.mc, s.nc, s.kc) for s in found}) == 25


def test_long_rows_make_packed_products_wide_for_each_is_a_stream_of_its_own():
    """Of 12 or 13 rows and 32 columns as many multiply-adds fill the registers as of 8 rows and 48 columns."""
    problem = contraction_problem(product(128, 768, 768), AVX512)
    assert solve(problem)[0].values["mr"] <= 9
    free = replace(problem, parameters={**problem.parameters, "line_slots": 0})
    assert solve(free)[0].values["mr"] >= 12


def test_the_best_schedule_is_that_of_brute_force():
    whole = contraction_problem(product(50, 200, 96), AVX512)
    few = {"mr": (5, 9, 12, 13), "nr": (16, 32, 48), "kc": (32, 48, 96), "m_parts": (1, 2, 4), "n_parts": (1, 2, 4, 8)}
    problem = replace(whole, domains={name: few.get(name, domain) for name, domain in whole.domains.items()})
    expected = brute_force(problem)[:5]
    assert [(s.cost, tuple(s.values.values())) for s in solve(problem, k=5)] == expected


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), m=st.integers(1, 200), n=st.integers(1, 600), k=st.integers(1, 2000))
def test_a_fair_share_never_exceeds_what_the_busiest_thread_does(seed, m, n, k):
    """The second terms of the model's `max`es are there for the bound alone; where they won, they would change a
    cost.
    """
    problem = contraction_problem(product(m, n, k, batch=3), AVX512)
    random = Random(seed)
    v = {**problem.parameters, **{name: random.choice(domain) for name, domain in problem.domains.items()}}
    terms = {name: evaluate(e, v) for name, e in parse_model(MODEL + ROOFLINE).definitions.items()}
    assert terms["busy_panels"] == terms["rounds"] * terms["nt"]
    assert terms["all_slots"] <= v["threads"] * terms["busy_panels"] * terms["panel_slots"]
    assert terms["all_bytes"] <= v["threads"] * terms["busy_panels"] * terms["panel_bytes"]
    assert terms["all_time"] <= v["threads"] * terms["task_time"]


def test_a_short_left_over_tile_is_avoided():
    (best,) = schedule_contraction(product(32, 768, 768), AVX512)
    assert 32 % best.mr == 0 or 32 % best.mr >= 6


def test_one_row_is_bound_by_reading_the_weights():
    (best,) = schedule_contraction(product(1, 3072, 768), AVX512)
    assert best.mr == 1
    assert best.prediction.bound_by == "outer"


def test_a_product_too_small_to_share_stays_on_one_thread():
    (best,) = schedule_contraction(product(4, 16, 16), AVX512)
    assert best.tasks == 1


def test_a_panel_too_long_for_the_cache_is_blocked_over_k():
    (best,) = schedule_contraction(product(256, 768, 12288), AVX512)
    assert best.kc < 12288
    (whole,) = schedule_contraction(product(256, 768, 12288, block_k=False), AVX512)
    assert whole.kc == 12288


@pytest.mark.parametrize("inner", [512, 1023, 1024, 5000, 70000])
@pytest.mark.parametrize("target", [AVX2, ZEN3, AVX512], ids=["avx2", "zen3", "avx512"])
def test_long_sums_within_a_block_have_a_schedule_whatever_the_cache_holds(target, inner):
    """As of a convolution with 64 taps along its rows, and 1024 channels for each of them."""
    axes = (Axis("m", 128, "m"), Axis("n", 128, "n"), Axis("taps", 64, "k"), Axis("channels", inner, "k"))
    for block_k in (True, False):
        assert schedule_contraction(ContractionNest(axes, block_k=block_k), target)


@pytest.mark.parametrize(("m", "n", "k"), [(128, 768, 3072), (197, 768, 3072), (128, 384, 1536), (49, 768, 3072)])
def test_rows_leave_room_in_the_second_cache_for_a_panel_and_the_next_one(m, n, k):
    (best,) = schedule_contraction(product(m, n, k), ZEN3)
    panel = 4 * best.kc * best.nr
    assert 4 * panel <= ZEN3.l2_bytes and 4 * best.mc * best.kc + 2 * panel <= ZEN3.l2_bytes
    problem = contraction_problem(product(m, n, k), ZEN3)
    free = solve(replace(problem, parameters={**problem.parameters, "panel_parts": 0}))[0].values
    assert 4 * free["kc"] * free["nr"] > panel, "nobody waits for panels that nobody asks for"


def test_schedules_count_on_the_panels_that_code_asks_for():
    assert PANEL_PARTS == PANEL_OF_L2


def test_one_tile_of_rows_reads_panels_of_any_length_as_a_stream():
    assert schedule_contraction(product(4, 768, 3072), ZEN3)[0].kc == 3072


def test_rows_that_share_a_set_of_the_first_cache_limit_the_tile():
    (apart,) = schedule_contraction(product(128, 768, 1024, lhs_row_stride=4096 + 64), AVX512)
    (aliased,) = schedule_contraction(product(128, 768, 1024, lhs_row_stride=4096), AVX512)
    assert apart.mr > 6
    assert aliased.mr + 2 <= AVX512.l1_bytes // 4096


def test_without_padding_columns_divide():
    (best,) = schedule_contraction(product(64, 80, 256, may_pad=False), AVX512)
    assert 80 % best.nr == 0
    assert best.padded_columns == 0


def test_without_padding_and_without_a_divisor_the_constraint_is_named():
    with pytest.raises(ScheduleError, match=r"n % nr == 0 or padded == 1\nwhere\n  nr in"):
        schedule_contraction(product(64, 7, 256, may_pad=False), AVX512)


def test_the_reasons_are_the_model_s_constraints_with_their_numbers():
    (best,) = schedule_contraction(product(32, 384, 384), AVX512)
    accumulators = (best.mr + 1) * best.nr // 16 + 1
    text = "(1 + beside) * mr * nr / lanes + (1 + turned) * nr / lanes + 1 + ones_registers + masks <= vector_registers"
    assert f"{text}    # {accumulators} <= 32" in best.reasons


def test_outer_axes_multiply_the_tasks_and_inner_reduced_axes_stay_whole():
    axes = (Axis("oh", 14, "m"), Axis("ow", 14, "m"), Axis("co", 256, "n"), Axis("ci", 64, "k"), Axis("kh", 3, "k"))
    (best,) = schedule_contraction(ContractionNest(axes), AVX512)
    assert best.mr <= 14
    assert best.kc <= 64
    assert best.tasks % 14 == 0


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ((Axis("m", 4, "m"), Axis("n", 4, "n")), "no axis of role 'k'"),
        ((Axis("m", 0, "m"), Axis("n", 4, "n"), Axis("k", 4, "k")), "are empty"),
    ],
)
def test_nests_that_are_no_contraction_are_refused(axes, message):
    with pytest.raises(ScheduleError, match=message):
        next(contraction_schedules(ContractionNest(axes), AVX512))


def test_a_kernel_is_scheduled_in_a_few_milliseconds():
    """By boxes opened rather than by the clock, so that a busy machine does not fail the test: a box takes about 30
    us.
    """
    boxes = []
    random = Random(0)
    for _ in range(60):
        m, n, k = random.choice([1, 32, 49, 128, 197, 512]), *random.choices([64, 197, 384, 768, 1000, 3072], k=2)
        boxes.append(solve(contraction_problem(product(m, n, k), AVX512))[0].boxes)
    assert sorted(boxes)[30] < 250


@pytest.mark.parametrize("n", [100, 16385, 49152])
def test_panels_that_tasks_make_are_one_a_task_for_any_number_of_columns(n):
    """Of a vocabulary's columns, too."""
    (s,) = schedule_contraction(product(128, n, 576, made=Made(7, n * 300)), AVX512)
    assert s.nc == s.nr


@pytest.mark.parametrize("target", [AVX512, AVX2], ids=lambda t: t.name)
def test_columns_that_lie_pages_apart_cost_what_bringing_each_line_takes(target):
    near = product(64, 3136, 256, rhs="rows")
    (a,) = schedule_contraction(near, target)
    (b,) = schedule_contraction(replace(near, rhs_row_stride=4 * 3136), target)
    (c,) = schedule_contraction(replace(near, rhs_row_stride=8192), target)  # every row in the same sets of L1
    assert a.prediction.seconds < b.prediction.seconds <= c.prediction.seconds


def test_masks_of_columns_take_registers_and_slots():
    plain = product(64, 56, 576, rhs="rows")
    (free,) = schedule_contraction(plain, AVX2)
    (masked,) = schedule_contraction(replace(plain, masks=3, decode_slots=13), AVX2)
    vectors = masked.nr // masked.lanes
    assert masked.mr * vectors + vectors + 1 + 3 <= AVX2.vector_registers
    assert masked.prediction.seconds > 1.5 * free.prediction.seconds


def test_a_short_innermost_loop_over_k_costs_more_than_a_long_one():
    def taps(*k: int) -> ContractionNest:
        axes = [Axis("m", 28, "m"), Axis("n", 128, "n"), *(Axis(f"k{i}", e, "k") for i, e in enumerate(k))]
        return ContractionNest(tuple(axes), block_k=False)

    (channels_first,) = schedule_contraction(taps(128, 3, 3), AVX2)
    (channels_last,) = schedule_contraction(taps(3, 3, 128), AVX2)
    assert channels_last.prediction.seconds < channels_first.prediction.seconds


def test_a_tile_of_two_rows_loads_its_columns_twice_and_gives_way_to_a_taller_one():
    (best,) = schedule_contraction(product(512, 200, 512, rhs="rows"), AVX2)
    assert best.mr > 2
