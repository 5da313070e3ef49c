"""Reads at known places are views where these follow one another, and come after what is computed from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.ir.graph import Graph
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from effcc.ir.verifier import verify_graph
from effcc.passes.known_places import known_places


def reads(places: str, count: int) -> Graph:
    """x[..., places] for x of f32[3, 5], `places` computed from %i = 0, 1, 2, ..."""
    lines = [f"%i = iota {{size={count}}} : i64[{count}]", *places.replace("N", str(count)).split("; ")]
    text = "\n  ".join([*lines, f"%y = index %x, %p {{axes=[1]}} : f32[3,{count}]"])
    return parse_graph(f"graph @main(%x: f32[3,5]) {{\n  {text}\n  return %y\n}}")


def number(value: int) -> str:
    return f"%c = constant {{value={value}, dtype=i64}} : i64[]"


def ops(graph: Graph) -> set[str]:
    return {node.op for node in graph.nodes}


def check(graph: Graph, found: Graph) -> None:
    verify_graph(found)
    arrays = [np.random.default_rng(0).standard_normal(p.type.shape).astype(np.float32) for p in graph.params]
    for expected, got in zip(run_graph(graph, arrays), run_graph(found, arrays), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("places", "count", "expected"),
    [
        (f"{number(1)}; %p = add %i, %c : i64[N]", 4, {"slice"}),
        (f"{number(2)}; %p = mul %i, %c : i64[N]", 3, {"slice"}),
        (f"{number(4)}; %p = sub %c, %i : i64[N]", 5, {"slice", "flip"}),
        (f"{number(-1)}; %p = sub %c, %i : i64[N]", 5, {"slice", "flip"}),
        (f"{number(2)}; %d = sub %i, %c : i64[N]; %p = abs %d : i64[N]", 6,
         {"slice", "flip", "concat"}),
        (f"{number(4)}; %p = minimum %i, %c : i64[N]", 7, {"slice", "broadcast", "concat"}),
        ("%p = full {shape=[N], value=3, dtype=i64} : i64[N]", 4, {"slice", "broadcast"}),
        (f"{number(2)}; %p = floordiv %i, %c : i64[N]", 10, {"index_select"}),
    ],
)  # fmt: skip
def test_places_in_order_are_views(places: str, count: int, expected: set[str]) -> None:
    graph = reads(places, count)
    found = known_places(graph)
    check(graph, found)
    assert expected <= ops(found) and "index" not in ops(found)


@pytest.mark.parametrize(
    ("places", "count"),
    [
        (f"{number(4)}; %p = add %i, %c : i64[N]", 3),  # beyond the end: the call raises
        (f"{number(-6)}; %p = add %i, %c : i64[N]", 3),
    ],
)
def test_places_outside_stay_checked(places: str, count: int) -> None:
    graph = reads(places, count)
    assert "index" in ops(known_places(graph))


INTERPOLATION = """graph @main(%x: f32[2,3,4]) {{
  %i = iota {{size={size}}} : i64[{size}]
  %c = constant {{value={factor}, dtype=i64}} : i64[]
  %p = floordiv %i, %c : i64[{size}]
  %n = reshape %p {{shape=[{size},1]}} : i64[{size},1]
  %j = iota {{size=4}} : i64[4]
  %k = constant {{value=3, dtype=i64}} : i64[]
  %l = sub %k, %j : i64[4]
  %a = index %x, %n, %l {{axes=[1,2]}} : f32[2,{size},4]
  %m = iota {{size=4}} : i64[4]
  %b = index %x, %n, %m {{axes=[1,2]}} : f32[2,{size},4]
  %y = mul %a, %b : f32[2,{size},4]
  return %y
}}"""


def test_what_is_computed_from_rows_is_computed_once_for_all_that_read_them() -> None:
    graph = parse_graph(INTERPOLATION.format(size=6, factor=2))
    found = known_places(graph)
    check(graph, found)
    assert [n.op for n in found.nodes if n.op in ("mul", "index_select", "index")] == ["mul", "index_select"]


def test_fewer_rows_are_read_before() -> None:
    graph = parse_graph(INTERPOLATION.format(size=2, factor=1))
    found = known_places(graph)
    check(graph, found)
    assert next(n.op for n in reversed(found.nodes)) == "mul"


@pytest.mark.parametrize(
    "model",
    [
        nn.Upsample(scale_factor=2),
        nn.Upsample(size=(7, 3)),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(size=(9, 4), mode="bilinear", align_corners=True),
        nn.ReflectionPad2d((2, 1, 0, 3)),
        nn.ReplicationPad2d(2),
        nn.CircularPad2d((1, 2, 3, 1)),
    ],
    ids=str,
)
def test_modules_are_right(model: nn.Module) -> None:
    x = torch.randn(2, 3, 5, 6)
    compiled: Any = torch.compile(model, backend="effcc", dynamic=False)
    found: Tensor = compiled(x)
    torch.testing.assert_close(found, model(x))
    assert "run by PyTorch: nothing" in str(effcc.explain(compiled))
