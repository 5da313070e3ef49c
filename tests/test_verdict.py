"""Verdicts follow from times and limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effcc.ir.parser import parse_graph
from effcc.roofline import work
from effcc.steps import State, run_steps
from effcc.target import generic
from effcc.traffic import traffic
from effcc.verdict import Facts, verdict

MICRO = 1e-6
MEMORY = Facts(
    launches=1, measured=100 * MICRO, compute=5 * MICRO, memory=78 * MICRO, start=2 * MICRO, call=200 * MICRO,
    predicted=98 * MICRO, bytes=1e6, weights=9e5, weight_bytes=4,
)  # fmt: skip


def test_a_kernel_near_a_limit_is_bound_by_it_and_told_what_lowers_it() -> None:
    said = verdict(MEMORY)
    assert said.startswith("bound by memory, at 78 %; the next step would be storing its weights in 8 bits")
    assert "they are 90 % of its bytes" in said
    assert "it saves 66.2 us at most, 33 % of a call" in said  # 98 us of work, 0.9 * 3/4 of the bytes less


def test_steps_that_round_nothing_come_first() -> None:
    said = verdict(replace(MEMORY, partner="add", between=4e5, saved_launches=1))
    assert "the next step would be fusing it with @add, between which 0.4 MB go through memory" in said
    assert "it saves 41.2 us" in said  # 0.4 of 98 us of work, and a start


def test_far_from_its_limits_another_schedule_is_the_step() -> None:
    said = verdict(replace(MEMORY, memory=20 * MICRO, predicted=30 * MICRO))
    assert said.startswith("held up by neither compute nor memory: at 20 % of what memory allows")
    assert "nearer to the cost model's prediction of 30.0 us" in said and "saves 70.0 us at most" in said


@pytest.mark.parametrize(("launches", "words"), [(1, "starting it takes 4.0 us of 5.0 us"), (4, "starting it 4 times")])
def test_a_kernel_that_is_over_when_it_has_begun_is_bound_by_its_start(launches: int, words: str) -> None:
    small = Facts(launches, 5 * MICRO * launches, 0.1 * MICRO, 0.2 * MICRO, 4 * MICRO, 100 * MICRO * launches)
    assert verdict(small).startswith("bound by its start: ") and words in verdict(small)


def test_of_products_bytes_are_the_step_where_the_machine_sums_them() -> None:
    product = replace(MEMORY, compute=90 * MICRO, memory=5 * MICRO, weight_bytes=0, predicted=99 * MICRO)
    assert "no single step would save 2 % of a call" in verdict(product)
    said = verdict(replace(product, integer_dots=True))
    assert said.startswith("bound by compute, at 90 %") and "it saves 73.5 us at most" in said


def test_rates_that_are_beaten_were_assumed_or_are_wrong() -> None:
    fast = replace(MEMORY, measured=50 * MICRO)
    assert "faster than measured rates allow: memory at 156 %" in verdict(fast)
    assert "`effcc doctor`" in verdict(replace(fast, measured_rates=False))


def test_what_was_not_measured_is_not_judged() -> None:
    assert verdict(replace(MEMORY, measured=None)) == "bound by memory at best, 78.0 us a call; not measured"


def test_between_two_kernels_is_what_no_other_reads() -> None:
    text = """graph @two(%x: f32[64,32], weight %w: f32[48,32]) {
      %p = linear %x, %w : f32[64,48]
      %y = softmax %p {axis=1, safe=false} : f32[64,48]
      return %y
    }"""
    program = run_steps(State(graph=parse_graph(text)), generic("avx2"), until="place").program
    assert program is not None
    first, second = (s.kernel for s in program.steps)  # type: ignore[union-attr]
    found = traffic(program, {name: work(program.kernels[name], {}) for name in (first, second)})
    assert found[first].between == {second: 4.0 * 64 * 48} and found[second].between == {first: 4.0 * 64 * 48}
    assert (found[first].weights, found[first].weight_bytes) == (4.0 * 48 * 32, 4)
    assert found[second].weights == 0 and found[second].pairs == {first: 1}
