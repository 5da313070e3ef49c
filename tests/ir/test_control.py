"""Ops with regions: their type rules, and what they compute."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.errors import IRTypeError
from effcc.ir.dtypes import boolean, f32, i64
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.interpreter import run_graph
from effcc.ir.types import tensor


def scaled(name: str, factor: float) -> Graph:
    """`x * factor`."""
    builder = GraphBuilder(name)
    x = builder.param("x", tensor(f32, 3))
    return builder.build((builder.emit("mul", x, builder.emit("constant", value=factor, dtype=f32)),))


def choice(then: Graph, orelse: Graph) -> Graph:
    builder = GraphBuilder("choice")
    condition, x = builder.param("condition", tensor(boolean)), builder.param("x", tensor(f32, 3))
    return builder.build(builder.node("cond", condition, x, regions=(then, orelse)).results)


@pytest.mark.parametrize("condition", [True, False])
def test_cond_runs_one_region(condition: bool) -> None:
    x = np.arange(3, dtype=np.float32)
    (y,) = run_graph(choice(scaled("then", 2.0), scaled("else", -1.0)), [np.asarray(condition), x])
    np.testing.assert_array_equal(y, x * (2 if condition else -1))


def test_the_branches_of_cond_must_agree() -> None:
    builder = GraphBuilder("other")
    builder.param("x", tensor(f32, 3))
    other = builder.build((builder.emit("full", shape=(2,), value=0.0, dtype=f32),))
    with pytest.raises(IRTypeError, match=r"results of the two branches: expected \(f32\[3\]\), got \(f32\[2\]\)"):
        choice(scaled("then", 2.0), other)


def test_a_region_must_take_what_it_is_given() -> None:
    builder = GraphBuilder("wrong")
    x = builder.param("x", tensor(i64, 3))
    wrong = builder.build((x,))
    with pytest.raises(IRTypeError, match=r"parameters of @wrong: expected \(f32\[3\]\), got \(i64\[3\]\)"):
        choice(wrong, wrong)


def test_while_doubles_until_it_is_large() -> None:
    def region(name: str) -> tuple[GraphBuilder, tuple[object, object]]:
        builder = GraphBuilder(name)
        return builder, (builder.param("x", tensor(f32, 3)), builder.param("limit", tensor(f32)))

    condition, (x, limit) = region("condition")
    largest = condition.emit("max", x)  # type: ignore[arg-type]
    holds = condition.build((condition.emit("lt", largest, limit),))  # type: ignore[arg-type]
    body, (x, limit) = region("body")
    doubled = body.build((body.emit("add", x, x),))  # type: ignore[arg-type]
    builder = GraphBuilder("loop")
    x, limit = builder.param("x", tensor(f32, 3)), builder.param("limit", tensor(f32))
    graph = builder.build(builder.node("while", x, limit, regions=(holds, doubled), carried=1).results)
    start = np.array([1, 2, 3], np.float32)
    (y,) = run_graph(graph, [start, np.asarray(20, np.float32)])
    np.testing.assert_array_equal(y, start * 8)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_carries_a_state_and_stacks_results(reverse: bool) -> None:
    body = GraphBuilder("body")
    total, x = body.param("total", tensor(f32, 2)), body.param("x", tensor(f32, 2))
    added = body.emit("add", total, x)
    step = body.build((added, body.emit("neg", added)))
    builder = GraphBuilder("running")
    start, xs = builder.param("start", tensor(f32, 2)), builder.param("xs", tensor(f32, 4, 2))
    node = builder.node("scan", start, xs, regions=(step,), carried=1, scanned=1, length=4, reverse=reverse)
    assert [r.type for r in node.results] == [tensor(f32, 2), tensor(f32, 4, 2)]
    data = np.arange(8, dtype=np.float32).reshape(4, 2)
    last, stacked = run_graph(builder.build(node.results), [np.ones(2, np.float32), data])
    ordered = data[::-1] if reverse else data
    running = 1 + np.cumsum(ordered, axis=0)
    np.testing.assert_array_equal(last, running[-1])
    np.testing.assert_array_equal(stacked, -(running[::-1] if reverse else running))
