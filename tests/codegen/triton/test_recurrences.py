"""Recurrences on GPUs: a program goes through the steps of its rows, and waits where it reads what it stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from effcc.ir.dtypes import f32
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.types import tensor
from effcc.runtime.triton_run import TritonInterpreter
from tests.codegen.triton.running import check_graph, drawn

GATES = {"lstm": (4, 2), "gru": (3, 1), "rnn": (1, 1)}
"""Gates and states of each cell."""


def layer(op: str, steps: int, batch: int, inputs: int, hidden: int, **attrs: Any) -> Graph:
    """One direction of a recurrent layer, all of whose results are outputs."""
    gates, states = GATES[op]
    b = GraphBuilder(op)
    operands = [b.param("x", tensor(f32, steps, batch, inputs))]
    operands += [b.param(f"state{n}", tensor(f32, batch, hidden)) for n in range(states)]
    operands += [b.param(f"w{n}", tensor(f32, gates * hidden, k), weight=True) for n, k in enumerate((inputs, hidden))]
    operands += [b.param(f"b{n}", tensor(f32, gates * hidden), weight=True) for n in range(2)]
    node = b.node(op, *operands, **attrs)
    return b.build(tuple(node.results))


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_recurrent_layers_agree_with_the_reference(
    op: str, reverse: bool, batch: int, interpreter: TritonInterpreter
) -> None:
    graph = layer(op, 5, batch, 6, 10, reverse=reverse)
    inputs = [drawn(p.type, {}, n) * np.float32(0.3) for n, p in enumerate(graph.params)]
    check_graph(graph, interpreter.run, inputs)


def test_a_layer_with_many_rows_multiplies_blocks(interpreter: TritonInterpreter) -> None:
    graph = layer("lstm", 3, 20, 8, 32)
    inputs = [drawn(p.type, {}, n) * np.float32(0.3) for n, p in enumerate(graph.params)]
    text = check_graph(graph, interpreter.run, inputs)
    assert "for t_0 in range(0, 3, 1)" in text
