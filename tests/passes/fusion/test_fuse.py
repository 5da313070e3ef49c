"""What fuses: each test names a graph, and says which kernels come out and that they compute the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from effcc.ir.dtypes import f32
from effcc.ir.graph import Graph, GraphBuilder, Value
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.printer import print_kernel
from effcc.ir.program import Program
from effcc.ir.types import tensor
from effcc.passes.fusion import fuse
from effcc.target import generic

TARGET = generic("avx512")


def build(body: Callable[[GraphBuilder], tuple[Value, ...]]) -> Graph:
    builder = GraphBuilder("g")
    return builder.build(body(builder))


def agree(graph: Graph, program: Program) -> None:
    """The program, interpreted, gives what the graph gives."""
    random = np.random.default_rng(0)
    inputs = [random.standard_normal([int(d) for d in p.type.shape]).astype(np.float32) for p in graph.params]
    for got, expected in zip(run_program(program, inputs), run_graph(graph, inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=3e-5, atol=1e-6 * max(1.0, float(np.abs(expected).max())))


def fused(graph: Graph) -> Program:
    program = fuse(graph, TARGET)
    agree(graph, program)
    return program


def only_kernel(graph: Graph) -> str:
    program = fused(graph)
    assert len(program.steps) == 1, list(program.kernels)
    (kernel,) = program.kernels.values()
    return print_kernel(kernel)


def test_a_chain_of_pointwise_ops_is_one_statement() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x, y = b.param("x", tensor(f32, 4, 8)), b.param("y", tensor(f32, 8))
        return (b.emit("exp", b.emit("mul", b.emit("add", x, y), x)),)

    assert "exp[i,i1] = exp((x0[i,i1] + x1[i1]) * x0[i,i1])" in only_kernel(build(body))


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_is_one_kernel(op: str) -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        return (b.emit(op, b.param("x", tensor(f32, 6, 16)), axis=-1),)

    text = only_kernel(build(body))
    assert "max(" in text and "sum(" in text


def norms() -> dict[str, Callable[[GraphBuilder], tuple[Value, ...]]]:
    def layer(b: GraphBuilder) -> tuple[Value, ...]:
        w = b.param("w", tensor(f32, 16), weight=True)
        return (b.emit("layer_norm", b.param("x", tensor(f32, 6, 16)), w, w),)

    def rms(b: GraphBuilder) -> tuple[Value, ...]:
        return (b.emit("rms_norm", b.param("x", tensor(f32, 6, 16)), b.param("w", tensor(f32, 16), weight=True)),)

    def group(b: GraphBuilder) -> tuple[Value, ...]:
        w = b.param("w", tensor(f32, 8), weight=True)
        return (b.emit("group_norm", b.param("x", tensor(f32, 2, 8, 5, 3)), w, w, groups=2),)

    def batch(b: GraphBuilder) -> tuple[Value, ...]:
        ones = b.param("variance", tensor(f32, 8), weight=True)
        squared = b.emit("mul", ones, ones)
        x = b.param("x", tensor(f32, 2, 8, 5, 3))
        return (b.emit("batch_norm", x, ones, squared, ones, ones),)

    return {"layer": layer, "rms": rms, "group": group, "batch": batch}


@pytest.mark.parametrize("name", list(norms()))
def test_a_norm_is_one_kernel(name: str) -> None:
    only_kernel(build(norms()[name]))


def test_results_cut_into_groups_are_read_whole_where_dimensions_of_one_are_not_seen() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        w = b.param("w", tensor(f32, 8), weight=True)
        normal = b.emit("group_norm", b.param("x", tensor(f32, 2, 8, 5, 3)), w, w, groups=2)
        mean = b.emit("mean", normal, axes=(2, 3), keepdim=True)
        filters = b.param("filters", tensor(f32, 4, 8, 1, 1), weight=True)
        return mean, b.emit("convolution", mean, filters, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)

    assert len(fused(build(body)).steps) == 2


def test_bias_activation_and_residual_follow_a_product_in_its_kernel() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x, r = b.param("x", tensor(f32, 6, 16)), b.param("r", tensor(f32, 6, 8))
        w, bias = b.param("w", tensor(f32, 8, 16), weight=True), b.param("b", tensor(f32, 8), weight=True)
        return (b.emit("add", b.emit("gelu", b.emit("linear", x, w, bias)), r),)

    text = only_kernel(build(body))
    assert text.count("sum(") == 1 and "erf(" in text


def test_an_expensive_producer_is_not_recomputed_for_every_column_of_a_product() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        w = b.param("w", tensor(f32, 64, 16), weight=True)
        return (b.emit("linear", b.emit("gelu", b.param("x", tensor(f32, 6, 16))), w),)

    program = fused(build(body))
    assert len(program.steps) == 2


def test_a_product_does_not_join_the_product_whose_weights_it_would_read_again() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x = b.param("x", tensor(f32, 32, 64))
        first = b.emit("linear", x, b.param("w1", tensor(f32, 64, 64), weight=True))
        return (b.emit("linear", first, b.param("w2", tensor(f32, 64, 64), weight=True)),)

    assert len(fused(build(body)).steps) == 2


def attention(b: GraphBuilder, mask: bool = False, outputs: bool = False) -> tuple[Value, ...]:
    q, k, v = (b.param(n, tensor(f32, 4, 12, 8)) for n in "qkv")
    scores = b.emit("matmul", q, b.emit("transpose", k, perm=(0, 2, 1)))
    if mask:
        scores = b.emit("add", scores, b.param("mask", tensor(f32, 12, 12)))
    weights = b.emit("softmax", scores, axis=-1)
    return (b.emit("matmul", weights, v), weights) if outputs else (b.emit("matmul", weights, v),)


@pytest.mark.parametrize("mask", [False, True])
def test_attention_is_one_kernel_in_one_pass(mask: bool) -> None:
    text = only_kernel(build(lambda b: attention(b, mask)))
    assert text.count("rescale") == 2, text


def test_attention_that_returns_its_weights_keeps_three_passes() -> None:
    text = "\n".join(print_kernel(k) for k in fused(build(lambda b: attention(b, outputs=True))).kernels.values())
    assert "rescale" not in text


def test_a_softmax_that_is_safe_where_all_is_masked_is_one_pass_too() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        q, k, v = (b.param(n, tensor(f32, 2, 6, 8)) for n in "qkv")
        scores = b.emit("matmul", q, b.emit("transpose", k, perm=(0, 2, 1)))
        return (b.emit("matmul", b.emit("softmax", scores, axis=2, safe=True), v),)

    assert only_kernel(build(body)).count("rescale") == 2


def test_a_mask_of_positions_is_computed_where_it_is_read_however_many_read_it() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        row, column = b.emit("iota", size=6), b.emit("iota", size=6)
        zero, lowest = (b.emit("constant", value=v, dtype=f32) for v in (0.0, -np.inf))
        seen = b.emit("where", b.emit("le", column, b.emit("reshape", row, shape=(6, 1))), zero, lowest)
        heads = (b.param(f"x{n}", tensor(f32, 4 + n, 6, 6)) for n in range(3))
        return tuple(b.emit("softmax", b.emit("add", x, seen), axis=2) for x in heads)

    program = fused(build(body))
    assert len(program.steps) == 3
    assert all(len(k.params) == 1 for k in program.kernels.values())


def test_many_heads_of_long_rows_are_fused_as_one_head_is() -> None:
    def steps(heads: int) -> int:
        def body(b: GraphBuilder) -> tuple[Value, ...]:
            q, k, v = (b.param(n, tensor(f32, heads, 256, 64)) for n in "qkv")
            scores = b.emit("matmul", q, b.emit("transpose", k, perm=(0, 2, 1)))
            return (b.emit("matmul", b.emit("softmax", scores, axis=2), v),)

        return len(fuse(build(body), replace(TARGET, l2_bytes=512 << 10)).steps)

    assert steps(heads=1) == steps(heads=16) == 1


def test_scores_are_not_computed_where_keys_are_made() -> None:
    """Key by key there are no rows of scores, and their softmax would be a kernel of its own."""

    def body(b: GraphBuilder) -> tuple[Value, ...]:
        q, k, v, turn = (b.param(n, tensor(f32, 4, 64, 64)) for n in ("q", "k", "v", "turn"))
        keys = b.emit("add", b.emit("mul", k, turn), b.emit("sin", b.emit("mul", k, turn)))
        scores = b.emit("matmul", q, b.emit("transpose", keys, perm=(0, 2, 1)))
        return (b.emit("matmul", b.emit("softmax", scores, axis=2), v),)

    _, attention = fuse(build(body), TARGET).kernels.values()
    assert print_kernel(attention).count(" = sum(") == 3


def test_one_pass_attention_survives_rows_that_are_masked_at_first() -> None:
    graph = build(lambda b: attention(b, mask=True))
    program = fuse(graph, TARGET)
    random = np.random.default_rng(1)
    inputs = [random.standard_normal([int(d) for d in p.type.shape]).astype(np.float32) for p in graph.params]
    inputs[3][:, :9] = -np.inf
    inputs[3][5, :] = -np.inf
    got, expected = run_program(program, inputs)[0], run_graph(graph, inputs)[0]
    assert np.isnan(expected[:, 5]).all()
    np.testing.assert_allclose(got, expected, rtol=3e-5, atol=3e-6)


def test_several_results_of_one_kernel_are_all_stored() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x = b.emit("exp", b.param("x", tensor(f32, 64, 16)))
        return x, b.emit("sum", x, axes=(1,)), b.emit("max", x, axes=(1,))

    program = fused(build(body))
    assert len(program.steps) == 1


def test_equal_layers_share_one_kernel() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x = b.param("x", tensor(f32, 6, 16))
        for layer in range(4):
            x = b.emit("relu", b.emit("linear", x, b.param(f"w{layer}", tensor(f32, 16, 16), weight=True)))
        return (x,)

    program = fused(build(body))
    assert len(program.steps) == 4
    assert len(program.kernels) <= 2  # the last writes an output, which may have another type


def test_an_output_behind_views_is_stored_in_place() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x = b.emit("exp", b.param("x", tensor(f32, 2, 3, 4)))
        return (b.emit("reshape", b.emit("transpose", x, perm=(1, 0, 2)), shape=(3, 8)),)

    graph = build(body)
    program = fuse(graph, TARGET)
    assert len(program.steps) == 1
    (kernel,) = program.kernels.values()
    assert kernel.outputs[0].type.layout == (4, 8, 1)


def test_a_merged_axis_is_taken_apart_in_the_product_that_reads_it() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x = b.emit("exp", b.param("x", tensor(f32, 4, 6, 8)))
        heads = b.emit("reshape", b.emit("transpose", x, perm=(1, 0, 2)), shape=(6, 32))
        return (b.emit("linear", heads, b.param("w", tensor(f32, 16, 32), weight=True)),)

    program = fused(build(body))
    assert not any("//" in print_kernel(k) for k in program.kernels.values())


def test_a_recurrence_stays_in_one_kernel_and_in_order() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        return (b.emit("cumsum", b.param("x", tensor(f32, 4, 9)), axis=1),)

    assert "scan" in only_kernel(build(body))


def test_two_matrices_times_a_vector_stay_apart_so_that_each_runs_on_all_cores() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x = b.param("x", tensor(f32, 1, 768))
        hidden = b.emit("linear", x, b.param("w", tensor(f32, 768, 768), weight=True))
        return (b.emit("linear", hidden, b.param("v", tensor(f32, 768, 768), weight=True)),)

    assert len(fuse(build(body), TARGET).steps) == 2


def test_a_product_with_one_row_is_not_computed_behind_its_norm_on_one_core() -> None:
    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x, w = b.param("x", tensor(f32, 1, 128)), b.param("w", tensor(f32, 512, 128), weight=True)
        return (b.emit("linear", b.emit("rms_norm", x), w),)

    assert len(fused(build(body)).steps) == 2


def test_padding_is_read_through_by_windows() -> None:
    """Also where it is wider on one side, which no convolution's own padding can be."""

    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x, w = b.param("x", tensor(f32, 1, 4, 6, 6)), b.param("w", tensor(f32, 4, 1, 3, 3))
        high = b.emit("exp", x)
        padded = b.emit("pad", high, low=(0, 0, 0, 0), high=(0, 0, 1, 1), value=0.0)
        return (b.emit("convolution", padded, w, stride=(2, 2), padding=(0, 0), dilation=(1, 1), groups=4),)

    program = fused(build(body))
    sizes = {p.type.shape for k in program.kernels.values() for p in k.signature}
    assert (1, 4, 7, 7) not in sizes
    assert not any(set(s.axes) and s.value.dtype == f32 and k.extents[s.axes[-1]] == 7
                   for k in program.kernels.values() for s in k.statements)  # fmt: skip


def test_padding_is_stored_where_points_are_summed_and_taps_kept() -> None:
    """The gradient of a filter: loops over what is summed would be cut at its borders, for every few taps."""

    def body(b: GraphBuilder) -> tuple[Value, ...]:
        x, grad = b.param("x", tensor(f32, 4, 1, 6, 6)), b.param("grad", tensor(f32, 8, 1, 6, 6))
        padded = b.emit("pad", x, low=(0, 0, 1, 1), high=(0, 0, 1, 1), value=0.0)
        return (b.emit("convolution", padded, grad, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1),)

    program = fused(build(body))
    (summed,) = (s for k in program.kernels.values() for s in k.statements if s.reduction is not None)
    assert "where" not in str(summed.value)
