"""Run-time sizes count as what they are in the call that is compiled for, where what is quickest is estimated."""

from __future__ import annotations

import pytest
import torch

import effcc.backend
from effcc.driver import Compiled, compile_graph
from effcc.ir.dims import hinted, hints
from effcc.ir.graph import Graph
from effcc.ir.parser import parse_graph, parse_kernel
from effcc.ir.schedule import places
from effcc.passes.tiling.choose import choose
from effcc.remembered import key_of
from effcc.target import Target

GRAPH = "graph @g(%x: f32[s0,8]) where s0 in 2.. { %y = exp %x : f32[s0,8] return %y }"


def test_sizes_of_the_call_are_known_where_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, int]] = []

    def see(graph: Graph, *given: object) -> Compiled:
        seen.append(dict(hints()))
        return compile_graph(graph, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(effcc.backend, "compile_graph", see)
    run = torch.compile(lambda x: x.exp(), backend="effcc", dynamic=True)
    x = torch.randn(5, 7)
    torch.testing.assert_close(run(x), x.exp())
    torch.testing.assert_close(run(x[:3]), x[:3].exp())
    assert [sorted(h.values()) for h in seen] == [[5, 7]] and not hints()


def test_programs_of_other_hints_are_remembered_apart() -> None:
    graph, target = parse_graph(GRAPH), Target.parse("avx2")
    with hinted({"s0": 4}):
        few = key_of(graph, target)
    assert few != key_of(graph, target)


def test_lanes_run_along_what_has_points_enough() -> None:
    kernel = parse_kernel("""
        kernel @k(X: f32[s0,40]{1,s0}) -> (Y: f32[s0,40]) over n=s0, c=40 {
          Y[n,c] = exp(X[n,c])
        }""")

    def lanes() -> set[str | None]:
        found, schedule = choose(kernel, Target.parse("avx512"))
        return {p.lanes for p in places(found, schedule)}

    with hinted({"s0": 3}):
        assert lanes() == {"c"}
    assert lanes() == {"n"}
