"""Sums of one kind over one row, whose results meet, are one kernel with one loop; others are not."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.dtypes import f32, i64
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.printer import print_kernel
from effcc.ir.program import Program
from effcc.ir.types import tensor
from effcc.passes.fusion import fuse
from effcc.passes.tiling.axes import settle
from effcc.passes.tiling.tile import tile
from effcc.target import generic

TARGET = generic("avx512")


def gated(rows: int = 1, depth: int = 24, other: str = "x", columns: int = 40) -> Graph:
    """silu(x @ A) * (other @ B)."""
    b = GraphBuilder("g")
    x, y = (b.param(n, tensor(f32, rows, depth)) for n in "xy")
    gate, up = (b.param(n, tensor(f32, columns, depth), weight=True) for n in ("gate", "up"))
    g = b.emit("linear", x, gate)
    u = b.emit("linear", {"x": x, "y": y}[other], up)
    return b.build((b.emit("mul", b.emit("mul", g, b.emit("sigmoid", g)), u),))


def fused(graph: Graph) -> Program:
    program = fuse(graph, TARGET)
    random = np.random.default_rng(0)
    inputs = [random.standard_normal([int(d) for d in p.type.shape]).astype(np.float32) for p in graph.params]
    for got, expected in zip(run_program(program, inputs), run_graph(graph, inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=3e-5, atol=1e-4)
    return program


def test_a_rows_gate_and_up_products_are_one_kernel_with_one_loop() -> None:
    program = fused(gated())
    assert len(program.steps) == 1
    tiled = tile(settle(program, TARGET), TARGET)
    ((name, kernel),) = tiled.program.kernels.items()
    assert len([s for s in kernel.statements if s.reduction is not None]) == 2
    assert len({s.reduction.axes for s in kernel.statements if s.reduction is not None}) == 1
    sums = [note for note in tiled.schedules[name].notes if "accumulators" in note]
    assert len(sums) == 1, f"one nest for both: {sums}"


@pytest.mark.parametrize("more", [{"rows": 5}, {"other": "y"}], ids=str)
def test_products_of_many_rows_or_of_other_rows_stay_apart(more: dict[str, object]) -> None:
    program = fused(gated(**more))  # type: ignore[arg-type]
    products = [k for k in program.kernels.values() if "sum(" in print_kernel(k)]
    assert all(len([s for s in k.statements if s.reduction is not None]) == 1 for k in products)


def test_sums_of_different_kinds_stay_apart() -> None:
    b = GraphBuilder("g")
    x = b.param("x", tensor(f32, 1, 24))
    gate, up = (b.param(n, tensor(f32, 40, 24), weight=True) for n in ("gate", "up"))
    squares = b.emit("linear", b.emit("mul", x, x), up)
    program = fused(b.build((b.emit("mul", b.emit("linear", x, gate), squares),)))
    sums = [len([s for s in k.statements if s.reduction is not None]) for k in program.kernels.values()]
    assert max(sums) == 1


def test_what_others_wait_for_still_comes_first() -> None:
    """Two pairs, one after the other, with readers of each part outside."""
    b = GraphBuilder("g")
    x = b.param("x", tensor(f32, 1, 24))
    weights = [b.param(f"w{n}", tensor(f32, 24, 24), weight=True) for n in range(4)]
    outputs = []
    for first, second in (weights[:2], weights[2:]):
        g, u = b.emit("linear", x, first), b.emit("linear", x, second)
        x = b.emit("mul", b.emit("tanh", g), u)
        outputs += [b.emit("softmax", g, axis=-1), b.emit("softmax", u, axis=-1)]
    fused(b.build((x, *outputs)))


def test_sums_in_spans_meet_no_others() -> None:
    """What is written there has other axes than what computes it."""
    b = GraphBuilder("g")
    x, ends, weights = (
        b.param("x", tensor(f32, 9, 1)),
        b.param("ends", tensor(i64, 4)),
        b.param("w", tensor(f32, 3, 1, 5)),
    )
    graph = b.build((b.emit("tanh", b.emit("grouped_matmul", x, weights, ends)),))
    given = [np.ones((9, 1), np.float32), np.array([0, 2, 2, 9]), np.arange(15, dtype=np.float32).reshape(3, 1, 5) / 15]
    for got, expected in zip(run_program(fuse(graph, TARGET), given), run_graph(graph, given), strict=True):
        np.testing.assert_allclose(got, expected, rtol=3e-5, atol=1e-6)
