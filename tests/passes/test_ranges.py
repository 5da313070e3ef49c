"""Ranges hold all that a value may be, and are no wider than what clamps say."""

from __future__ import annotations

import pytest

from effcc.ir.parser import parse_graph
from effcc.passes.ranges import range_of

GRAPH = """
    graph @main(%x: f32[4], %b: i8[4]) {
      %low = constant {value=-7.6, dtype=f32, shape=[]} : f32[]
      %high = constant {value=9.0, dtype=f32, shape=[]} : f32[]
      %up = maximum %x, %low : f32[4]
      %cut = minimum %up, %high : f32[4]
      %near = round %cut : f32[4]
      %toward_zero = cast %cut {dtype=i8} : i8[4]
      %moved = reshape %near {shape=[2,2]} : f32[2,2]
      %few = relu %moved : f32[2,2]
      %open = cast %up {dtype=i8} : i8[4]
      %wide = cast %b {dtype=i32} : i32[4]
      %sum = add %wide, %wide : i32[4]
      %wrapped = add %b, %b : i8[4]
      %turned = neg %toward_zero : i8[4]
      %apart = sub %toward_zero, %turned : i8[4]
      return %few, %open, %sum, %wrapped, %apart
    }
"""


@pytest.mark.parametrize(("name", "least", "most"), [
    ("near", -8, 9), ("toward_zero", -7, 9), ("few", 0, 9), ("open", -128, 127), ("wide", -128, 127),
    ("sum", -256, 254), ("wrapped", -128, 127), ("turned", -9, 7), ("apart", -14, 18), ("up", -7.6, float("inf")),
])  # fmt: skip
def test_a_value_lies_between(name: str, least: float, most: float) -> None:
    producers = parse_graph(GRAPH).producers()
    assert range_of(next(v for v in producers if v.name == name), producers) == (least, most)


def test_values_that_meet_themselves_again_and_again_are_looked_at_in_bounded_time() -> None:
    sums = "\n".join(f"%s{i + 1} = add %s{i}, %s{i} : f32[4]" for i in range(60))
    graph = parse_graph(f"graph @main(%x: f32[4]) {{\n%s0 = relu %x : f32[4]\n{sums}\nreturn %s60\n}}")
    assert range_of(graph.outputs[0], graph.producers())[1] == float("inf")
