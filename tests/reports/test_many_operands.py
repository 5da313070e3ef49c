"""Generated code holds for any number of operands: what is joined, unrolled, summed or returned in hundreds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from effcc.driver import compile_graph
from effcc.ir.dtypes import f32
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.parser import parse_program
from effcc.ir.printer import print_program
from effcc.ir.types import TensorType
from effcc.ir.verifier import verify_program


def joined(count: int, axis: int) -> Graph:
    """`count` tensors of two sizes along `axis`; every third is empty."""
    builder = GraphBuilder("joined")
    shapes = [tuple((k % 3) * (1 + k % 2) if n == axis else d for n, d in enumerate((2, 3, 5))) for k in range(count)]
    given = [builder.param(f"x{k}", TensorType(f32, shape)) for k, shape in enumerate(shapes)]
    return builder.build((builder.emit("concat", *given, axis=axis),))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_many_tensors_are_joined_by_copies(axis: int) -> None:
    graph = joined(130, axis)
    inputs = [torch.randn(p.type.shape) for p in graph.params]
    compiled = compile_graph(graph)
    program = compiled.state.program
    assert program is not None and not program.kernels
    (result,) = compiled(*inputs)
    torch.testing.assert_close(result, torch.cat(inputs, axis), rtol=0, atol=0)
    verify_program(program)
    again = parse_program(print_program(program))
    (read,) = run_program(again, [t.numpy() for t in inputs])
    np.testing.assert_array_equal(read, result.numpy())


def check(function: Callable[..., object], *inputs: torch.Tensor, dynamic: bool = False) -> None:
    torch._dynamo.reset()
    with torch.no_grad():
        expected = function(*inputs)
        got = torch.compile(function, backend="effcc", dynamic=dynamic, fullgraph=True)(*inputs)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_an_unrolled_loop_of_64_steps() -> None:
    weight = torch.randn(8, 8) * 0.2

    def unrolled(x: torch.Tensor) -> torch.Tensor:
        state, states = torch.zeros(4, 8), []
        for step in range(64):
            state = torch.tanh(state @ weight + x[:, step])
            states.append(state)
        return torch.stack(states, 1)

    check(unrolled, torch.randn(4, 64, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_joined_results_and_views_of_every_kind(dtype: torch.dtype) -> None:
    def split(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pieces = [x[:, k] for k in range(x.shape[1])]
        return torch.stack(pieces[::-1]), torch.cat([p.t() for p in pieces], 1)

    check(split, (torch.randn(4, 40, 3) * 3).to(dtype))


def test_joined_tensors_of_run_time_size() -> None:
    check(lambda x, y: torch.cat([x, y] * 40, 0) * 2.0, torch.randn(3, 4), torch.randn(2, 4), dynamic=True)


def test_sums_of_hundreds_are_several_kernels() -> None:
    builder = GraphBuilder("sums")
    first, *others = [builder.param(f"x{k}", TensorType(f32, (4, 3))) for k in range(300)]
    total = first
    for other in others:
        total = builder.emit("add", total, other)
    compiled = compile_graph(builder.build((total,)))
    program = compiled.state.program
    assert program is not None and max(len(k.signature) for k in program.kernels.values()) <= 130
    inputs = [torch.randn(4, 3) for _ in range(300)]
    (result,) = compiled(*inputs)
    torch.testing.assert_close(result, sum(inputs), rtol=1e-5, atol=1e-5)


def test_long_chains_are_several_kernels_and_equal_ones_share_code() -> None:
    builder = GraphBuilder("chain")
    x = builder.param("x", TensorType(f32, (4, 16)))
    value, one = x, builder.emit("constant", value=0.1, dtype=f32)
    for _ in range(400):
        value = builder.emit("mul", builder.emit("neg", builder.emit("sub", one, value)), value)
    graph = builder.build((value,))
    compiled = compile_graph(graph)
    program = compiled.state.program
    assert program is not None and len(program.steps) > len(program.kernels)
    given = torch.rand(4, 16)
    (result,), (expected,) = compiled(given), run_graph(graph, [given.numpy()])
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-30)
