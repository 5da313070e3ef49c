"""Graphs and kernels through fusion, blocks and Triton text, run by a runner and compared with the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from effcc.codegen.triton.program import emit_program
from effcc.gpu import GpuTarget, parse
from effcc.ir.dims import evaluate
from effcc.ir.dtypes import boolean, f64
from effcc.ir.graph import Graph, GraphBuilder, Value
from effcc.ir.interpreter import run_graph, run_kernel
from effcc.ir.kernel import Kernel
from effcc.ir.program import Buffer, Launch, Program
from effcc.ir.types import TensorType
from effcc.passes.fusion import fuse
from effcc.passes.tiling.gpu import tile_gpu
from effcc.runtime.triton_run import Runner, run_triton

SM_80 = parse("sm_80")


def graph_of(build: Callable[..., Value], *types: TensorType) -> Graph:
    """The graph that `build(builder, *params)` makes of parameters with the given types."""
    builder = GraphBuilder("test")
    return builder.build((build(builder, *(builder.param(f"p{n}", t) for n, t in enumerate(types))),))


def program_of(kernel: Kernel) -> Program:
    """A program that launches one kernel on buffers named like its parameters."""
    buffers = [Buffer(p.name, p.type, "input") for p in kernel.params]
    buffers += [Buffer(p.name, p.type, "output") for p in kernel.outputs]
    inputs, outputs = (tuple(p.name for p in side) for side in (kernel.params, kernel.outputs))
    return Program(
        "test", tuple(buffers), inputs, outputs, {kernel.name: kernel}, (Launch(kernel.name, inputs, outputs),)
    )


def emitted(program: Program, target: GpuTarget = SM_80) -> tuple[Program, str]:
    """The program in launches for a GPU, and its module."""
    tiled, schedules = tile_gpu(program, target)
    return tiled, emit_program(tiled, schedules, target)


def fused(graph: Graph) -> Program:
    return fuse(graph, SM_80.as_target())


def drawn(type: TensorType, sizes: Mapping[str, int], seed: int) -> np.ndarray:
    """Values of a type: normal floats, integers from 0 to 6."""
    rng = np.random.default_rng(seed)
    shape = tuple(evaluate(d, sizes) for d in type.shape)
    if type.dtype == boolean:
        return rng.integers(0, 2, shape).astype(bool)
    if type.dtype.is_integer:
        return rng.integers(0, 7, shape).astype(type.dtype.numpy)
    return rng.standard_normal(shape).astype(type.dtype.numpy)


def check_graph(graph: Graph, run: Runner, inputs: list[Any] | None = None, within: float = 2e-6, **sizes: int) -> str:
    """The graph's module, after its result was found near the reference in float64, relative to its largest."""
    if inputs is None:
        inputs = [drawn(p.type, sizes, n) for n, p in enumerate(graph.params)]
    program, text = emitted(fused(graph))
    by_name = {p.name: array for p, array in zip(graph.params, inputs, strict=True)}
    found = run_triton(program, text, [by_name[n] for n in program.inputs], run, sizes)
    compare(found, run_graph(graph, inputs, sizes or None, f64), within)
    return text


def check_kernel(kernel: Kernel, run: Runner, inputs: Mapping[str, Any], within: float = 2e-6, **sizes: int) -> str:
    """As `check_graph`, for a kernel."""
    program, text = emitted(program_of(kernel))
    found = run_triton(program, text, [inputs[n] for n in program.inputs], run, sizes)
    wanted = run_kernel(kernel, inputs, sizes or None, f64)
    compare(found, [wanted[p.name] for p in kernel.outputs], within)
    return text


def compare(found: list[Any], wanted: list[Any], within: float) -> None:
    """Each array near its reference: NaN and infinities at the same places, integers and booleans equal."""
    assert len(found) == len(wanted)
    for ours, reference in zip(found, wanted, strict=True):
        assert ours.shape == reference.shape
        if ours.dtype.kind in "biu":
            np.testing.assert_array_equal(ours, reference)
            continue
        largest = np.max(np.abs(reference), initial=0.0, where=np.isfinite(reference.astype(np.float64)))
        np.testing.assert_allclose(ours.astype(np.float64), reference, rtol=0, atol=within * max(1.0, float(largest)))
