"""Unrolled loops become scans and batched steps, whatever the length, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.dtypes import f32
from effcc.ir.graph import Graph, GraphBuilder, Value
from effcc.ir.interpreter import run_graph
from effcc.ir.types import tensor
from effcc.passes.reroll import reroll
from effcc.passes.simplify import simplify

ROWS = 3


def at(b: GraphBuilder, x: Value, t: int) -> Value:
    """x[:, t], as tracing writes it."""
    return b.emit("reshape", b.emit("slice", x, axis=1, start=t, end=t + 1), shape=(ROWS,))


def unrolled(steps: int, skip: int | None = None) -> Graph:
    """h_t = a_t * h_{t-1} + b_t and y_t = h_t * c_t, step after step; before the step `skip`, h is squared."""
    b = GraphBuilder("loop")
    factors, summands, outputs = (b.param(n, tensor(f32, ROWS, steps)) for n in ("a", "b", "c"))
    state = b.param("h", tensor(f32, ROWS))
    parts = []
    for t in range(steps):
        if t == skip:
            state = b.emit("mul", state, state)
        state = b.emit("add", b.emit("mul", at(b, factors, t), state), at(b, summands, t))
        parts.append(b.emit("reshape", b.emit("mul", state, at(b, outputs, t)), shape=(ROWS, 1)))
    return b.build((b.emit("concat", *parts, axis=1), state))


def tree(steps: int) -> Graph:
    """The same scan without a start as torch's `associative_scan` writes it, along axis 0."""
    b = GraphBuilder("tree")
    factors, summands = (b.param(n, tensor(f32, steps, 1, ROWS)) for n in ("a", "b"))

    def part(x: Value, start: int, end: int | None, step: int) -> Value:
        return b.emit("slice", x, axis=0, start=start, end=end, step=step)

    def combine(first: tuple[Value, Value], second: tuple[Value, Value]) -> tuple[Value, Value]:
        product = b.emit("mul", first[0], second[0])
        return product, b.emit("add", b.emit("mul", second[0], first[1]), second[1])

    def interleave(even: Value, odd: Value) -> Value:
        count = odd.type.shape[0]
        both = b.emit("concat", part(even, 0, count, 1), odd, axis=1)
        woven = b.emit("reshape", both, shape=(2 * count, 1, ROWS))
        return woven if even.type.shape[0] == count else b.emit("concat", woven, part(even, count, None, 1), axis=0)

    def scan(x: tuple[Value, Value]) -> tuple[Value, Value]:
        count = x[0].type.shape[0]
        if count < 2:
            return x
        odd = scan(combine(tuple(part(v, 0, -1, 2) for v in x), tuple(part(v, 1, None, 2) for v in x)))
        before = odd if count % 2 else tuple(part(v, 0, -1, 1) for v in odd)
        if count > 2:
            even = combine(before, tuple(part(v, 2, None, 2) for v in x))
            even = tuple(b.emit("concat", part(v, 0, 1, 1), e, axis=0) for v, e in zip(x, even, strict=True))
        else:
            even = tuple(part(v, 0, 1, 1) for v in x)
        return tuple(interleave(e, o) for e, o in zip(even, odd, strict=True))

    return b.build((b.emit("exp", scan((factors, summands))[1]),))


def inputs(graph: Graph) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.uniform(-1, 1, p.type.shape).astype(np.float32) for p in graph.params]


def assert_same(graph: Graph, other: Graph) -> None:
    arrays = inputs(graph)
    for got, expected in zip(run_graph(other, arrays), run_graph(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


@pytest.mark.parametrize("steps", [4, 5, 16])
def test_an_unrolled_recurrence_is_a_scan_and_its_outputs_one_step(steps):
    graph = unrolled(steps)
    rolled = simplify(graph)
    assert [op for op in ops(rolled) if op not in ("reshape", "transpose", "slice")] == ["linear_recurrence", "mul"]
    assert len(rolled.nodes) <= 10, "the length does not matter"
    assert_same(graph, rolled)


def test_a_recurrence_that_is_interrupted_is_two():
    graph = unrolled(12, skip=6)
    rolled = simplify(graph)
    assert ops(rolled).count("linear_recurrence") == 2
    assert_same(graph, rolled)


def test_three_steps_are_not_worth_a_scan():
    graph = unrolled(3)
    assert reroll(graph) is graph


@pytest.mark.parametrize("steps", [2, 3, 7, 8, 13, 16, 33])
def test_a_scan_written_as_a_tree_is_a_scan(steps):
    graph = tree(steps)
    rolled = simplify(graph)
    assert [op for op in ops(rolled) if op not in ("reshape", "transpose")] == ["linear_recurrence", "exp"]
    assert_same(graph, rolled)


def test_a_tree_that_is_no_scan_is_left_alone():
    b = GraphBuilder("other")
    x, y = (b.param(n, tensor(f32, 8, 1, ROWS)) for n in ("a", "b"))
    halves = [b.emit("slice", v, axis=0, start=s, step=2) for v in (x, y) for s in (0, 1)]
    combined = b.emit("add", b.emit("mul", halves[1], halves[2]), halves[3])
    graph = b.build((b.emit("exp", combined),))
    assert reroll(graph) is graph


def test_concatenated_steps_that_differ_stay():
    b = GraphBuilder("other")
    x = b.param("x", tensor(f32, ROWS, 4))
    parts = [b.emit("slice", x, axis=1, start=t, end=t + 1) for t in range(4)]
    parts[2] = b.emit("neg", parts[2])
    graph = b.build((b.emit("concat", *parts, axis=1),))
    assert reroll(graph) is graph


def test_a_batched_step_may_share_a_weight():
    b = GraphBuilder("steps")
    x, w = b.param("x", tensor(f32, 2, 5, 4)), b.param("w", tensor(f32, 3, 4), weight=True)
    steps = [b.emit("slice", x, axis=1, start=t, end=t + 1) for t in range(5)]
    graph = b.build((b.emit("concat", *(b.emit("relu", b.emit("linear", s, w)) for s in steps), axis=1),))
    rolled = simplify(graph)
    assert ops(rolled).count("linear") == 1 and "concat" not in ops(rolled)
    assert_same(graph, rolled)
