"""Codes of what codes stand for are read as they lie in memory, and only where they come back as they were."""

from __future__ import annotations

import pytest

from effcc.ir.parser import parse_graph
from effcc.passes.kept_codes import keep_codes

CHAIN = """
    graph @main(%q: {dtype}[8], weight %s: f32[], weight %t: f32[]) {{
      %a = cast %q {{dtype=f32}} : f32[8]
      %z = constant {{value={zero}, dtype=f32}} : f32[]
      %c = sub %a, %z : f32[8]
      %x = mul %c, %s : f32[8]
      %r = reciprocal {step} : f32[]
      %y = mul %x, %r : f32[8]
      %w = round %y : f32[8]
      %v = add %w, %z : f32[8]
      %least = constant {{value={least}, dtype=f32}} : f32[]
      %most = constant {{value={most}, dtype=f32}} : f32[]
      %l = maximum %v, %least : f32[8]
      %m = minimum %l, %most : f32[8]
      %k = cast %m {{dtype={dtype}}} : {dtype}[8]
      %wide = cast %k {{dtype=i32}} : i32[8]
      return %wide
    }}
"""


def test_what_codes_were_clamped_to_comes_back() -> None:
    held = CHAIN.replace("%q: {dtype}[8]", "%p: f32[8]").replace(
        "%a = cast %q",
        """%low = constant {{value=0.0, dtype=f32}} : f32[]
      %high = constant {{value=254.0, dtype=f32}} : f32[]
      %f = maximum %p, %low : f32[8]
      %g = minimum %f, %high : f32[8]
      %q = cast %g {{dtype={dtype}}} : {dtype}[8]
      %a = cast %q""",
    )
    graph = parse_graph(held.format(dtype="u8", zero=0.0, step="%s", least=0.0, most=254.0))
    assert [n.op for n in keep_codes(graph).nodes][-2:] == ["cast", "cast"]
    graph = parse_graph(held.format(dtype="u8", zero=0.0, step="%s", least=0.0, most=253.0))
    assert keep_codes(graph) is graph


@pytest.mark.parametrize(
    ("dtype", "zero", "step", "least", "most", "kept"),
    [
        ("u8", 0.0, "%s", 0.0, 255.0, True),
        ("u8", 3.0, "%s", 0.0, 255.0, True),
        ("i8", 0.0, "%s", -128.0, 127.0, True),
        ("u8", 0.0, "%t", 0.0, 255.0, False),  # another step
        ("u8", 0.0, "%s", 0.0, 127.0, False),  # codes are cut off
    ],
)
def test_codes_stay_where_they_come_back(
    dtype: str, zero: float, step: str, least: float, most: float, kept: bool
) -> None:
    graph = parse_graph(CHAIN.format(dtype=dtype, zero=zero, step=step, least=least, most=most))
    ops = [n.op for n in keep_codes(graph).nodes]
    assert ops == (["cast"] if kept else [n.op for n in graph.nodes])
