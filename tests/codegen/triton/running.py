"""Graphs and kernels through fusion, blocks and Triton text, run by a runner and compared with the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from effcc.codegen.lower import lower
from effcc.codegen.triton.program import emit_program
from effcc.gpu import GpuTarget, parse
from effcc.ir.dims import evaluate
from effcc.ir.dtypes import boolean, f32, f64
from effcc.ir.graph import Graph, GraphBuilder, Value
from effcc.ir.interpreter import run_graph, run_kernel
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_schedule
from effcc.ir.printer import print_schedule
from effcc.ir.program import Buffer, Launch, Program
from effcc.ir.types import TensorType, tensor
from effcc.passes.fusion import fuse
from effcc.passes.tiling.axes import settle
from effcc.passes.tiling.gpu import tile_gpu
from effcc.passes.tiling.written import device_bounds
from effcc.runtime.triton_run import Runner, run_triton

SM_80 = parse("sm_80")


def graph_of(build: Callable[..., Value], *types: TensorType) -> Graph:
    """The graph that `build(builder, *params)` makes of parameters with the given types."""
    builder = GraphBuilder("test")
    return builder.build((build(builder, *(builder.param(f"p{n}", t) for n, t in enumerate(types))),))


def encoder_layer(heads: int = 12, width: int = 384, tokens: int = 32) -> Graph:
    """A layer of MiniLM: attention, its projections, two norms, and the wide linear with gelu."""
    b = GraphBuilder("layer")
    head = width // heads
    x, mask = b.param("x", tensor(f32, 1, tokens, width)), b.param("mask", tensor(f32, 1, 1, 1, tokens))

    def linear(name: str, value: Value, columns: int, rows: int) -> Value:
        weight = b.param(f"{name}.weight", tensor(f32, rows, columns), weight=True)
        return b.emit("linear", value, weight, b.param(f"{name}.bias", tensor(f32, rows), weight=True))

    def norm(name: str, value: Value) -> Value:
        parts = (b.param(f"{name}.{p}", tensor(f32, width), weight=True) for p in ("weight", "bias"))
        return b.emit("layer_norm", value, *parts)

    def split(value: Value) -> Value:
        return b.emit("transpose", b.emit("reshape", value, shape=(1, tokens, heads, head)), perm=(0, 2, 1, 3))

    q, k, v = (split(linear(name, x, width, width)) for name in ("query", "key", "value"))
    scores = b.emit("matmul", q, b.emit("transpose", k, perm=(0, 1, 3, 2)))
    scores = b.emit("add", b.emit("mul", scores, b.emit("constant", value=head**-0.5, dtype=f32)), mask)
    mixed = b.emit("transpose", b.emit("matmul", b.emit("softmax", scores, axis=-1), v), perm=(0, 2, 1, 3))
    attended = linear("output", b.emit("reshape", mixed, shape=(1, tokens, width)), width, width)
    x = norm("norm1", b.emit("add", attended, x))
    wide = b.emit("gelu", linear("wide", x, width, 4 * width))
    return b.build((norm("norm2", b.emit("add", linear("narrow", wide, 4 * width, width), x)),))


def program_of(kernel: Kernel) -> Program:
    """A program that launches one kernel on buffers named like its parameters."""
    buffers = [Buffer(p.name, p.type, "input") for p in kernel.params]
    buffers += [Buffer(p.name, p.type, "output") for p in kernel.outputs]
    inputs, outputs = (tuple(p.name for p in side) for side in (kernel.params, kernel.outputs))
    return Program(
        "test", tuple(buffers), inputs, outputs, {kernel.name: kernel}, (Launch(kernel.name, inputs, outputs),)
    )


def emitted(program: Program, target: GpuTarget = SM_80) -> tuple[Program, str]:
    """The program in launches for a GPU, and its module; its schedules, as they are printed, were found to fit."""
    tiled, schedules = tile_gpu(settle(program, target.as_target()), target)
    for name, kernel in tiled.kernels.items():
        parse_schedule(print_schedule(name, schedules[name])).check(kernel, device_bounds(target))
    nests = {name: lower(kernel, schedules[name]) for name, kernel in tiled.kernels.items()}
    return tiled, emit_program(tiled, schedules, nests, target)


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
