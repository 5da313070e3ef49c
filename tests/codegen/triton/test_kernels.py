"""Kernels of every kind under Triton's interpreter, beside the reference: all of them come out of the one printer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from effcc.ir.dims import symbol
from effcc.ir.dtypes import DType, bf16, boolean, f16, f32, f64, i8, i32, i64
from effcc.ir.graph import GraphBuilder, Value
from effcc.ir.types import TensorType, tensor
from effcc.runtime.triton_run import TritonInterpreter, run_triton
from tests.codegen.triton.running import check_graph, drawn, emitted, encoder_layer, fused, graph_of

s0 = symbol("s0")


def floats(*shape: Any) -> TensorType:
    return tensor(f32, *shape)


def mlp(b: GraphBuilder, x: Value, w: Value, bias: Value) -> Value:
    return b.emit("gelu", b.emit("linear", x, w, bias))


def attention(b: GraphBuilder, q: Value, k: Value, v: Value, mask: Value) -> Value:
    scores = b.emit("add", b.emit("matmul", q, b.emit("transpose", k, perm=(0, 1, 3, 2))), mask)
    return b.emit("matmul", b.emit("softmax", scores, axis=-1), v)


def convolution(b: GraphBuilder, x: Value, w: Value, stride: int = 1, groups: int = 1) -> Value:
    return b.emit("convolution", x, w, stride=(stride, stride), padding=(1, 1), dilation=(1, 1), groups=groups)


def scaled_weights(b: GraphBuilder, x: Value, q: Value, scale: Value) -> Value:
    return b.emit("linear", x, b.emit("mul", b.emit("cast", q, dtype=f32), scale))


CASES: dict[str, tuple[Any, list[TensorType]]] = {
    "pointwise_with_broadcast": (lambda b, x, y: b.emit("add", b.emit("mul", x, y), x), [floats(7, 33), floats(33)]),
    "pointwise_transposed": (lambda b, x: b.emit("relu", b.emit("transpose", x, perm=(1, 0))), [floats(20, 30)]),
    "softmax": (lambda b, x: b.emit("softmax", x, axis=-1), [floats(6, 50)]),
    "softmax_of_columns": (lambda b, x: b.emit("softmax", x, axis=0), [floats(37, 12)]),
    "layer_norm": (lambda b, x, g, h: b.emit("layer_norm", x, g, h), [floats(5, 77), floats(77), floats(77)]),
    "group_norm": (
        lambda b, x, g, h: b.emit("group_norm", x, g, h, groups=2), [floats(2, 6, 5, 5), floats(6), floats(6)]
    ),
    "linear_gelu": (mlp, [floats(20, 40), floats(50, 40), floats(50)]),
    "linear_gelu_of_one_row": (mlp, [floats(1, 40), floats(50, 40), floats(50)]),
    "linear_gelu_dynamic": (mlp, [floats(s0, 40), floats(50, 40), floats(50)]),
    "softmax_dynamic": (lambda b, x: b.emit("softmax", x, axis=-1), [floats(3, s0)]),
    "attention": (attention, [floats(1, 2, 20, 16), floats(1, 2, 50, 16), floats(1, 2, 50, 16), floats(1, 1, 1, 50)]),
    "attention_dynamic": (
        attention, [floats(1, 2, 20, 16), floats(1, 2, s0, 16), floats(1, 2, s0, 16), floats(1, 1, 1, s0)]
    ),
    "int8_weights": (scaled_weights, [floats(20, 40), tensor(i8, 50, 40), floats(50, 1)]),
    "embedding": (lambda b, w, i: b.emit("embedding", w, i), [floats(7, 24), tensor(i64, 3, 5)]),
    "gather": (lambda b, x, i: b.emit("gather", x, i, axis=0), [floats(7, 4), tensor(i64, 3, 4)]),
    "convolution": (convolution, [floats(1, 3, 9, 9), floats(20, 3, 3, 3)]),
    "convolution_strided": (
        lambda b, x, w: convolution(b, x, w, stride=2), [floats(2, 20, 9, 9), floats(20, 20, 3, 3)]
    ),
    "convolution_depthwise": (lambda b, x, w: convolution(b, x, w, groups=8), [floats(1, 8, 6, 6), floats(8, 1, 3, 3)]),
    "max_pool": (
        lambda b, x: b.emit("max_pool", x, kernel=(3, 3), stride=(2, 2), padding=(1, 1)), [floats(1, 2, 7, 7)]
    ),
    "sum_of_everything": (lambda b, x: b.emit("sum", x, axes=(0, 1)), [floats(33, 77)]),
    "mean_of_the_middle": (lambda b, x: b.emit("mean", x, axes=(1,), keepdim=True), [floats(3, 77, 5)]),
    "sum_of_nothing": (lambda b, x: b.emit("sum", x, axes=(1,)), [floats(3, 0)]),
    "product_of_no_rows": (mlp, [floats(0, 40), floats(50, 40), floats(50)]),
    "scalar": (lambda b, x: b.emit("exp", x), [floats()]),
    "strided": (lambda b, x: b.emit("softmax", x, axis=-1), [TensorType(f32, (8, s0), (1, 8))]),
    "batched_product": (lambda b, x, y: b.emit("matmul", x, y), [floats(3, 20, 33), floats(3, 33, 18)]),
    "select": (lambda b, c, x, y: b.emit("where", c, x, y), [tensor(boolean, 8, 30), floats(8, 30), floats(30)]),
    "running_sum": (lambda b, x: b.emit("cumsum", x, axis=1), [floats(3, 20)]),
    "argmax": (lambda b, x: b.emit("argmax", x, axes=(1,)), [floats(3, 40)]),
    "any": (lambda b, x: b.emit("any", x, axes=(1,)), [tensor(boolean, 5, 20)]),
    "integer_sum": (lambda b, x: b.emit("sum", x, axes=(1,)), [tensor(i64, 20, 9)]),
    "concat": (lambda b, x, y: b.emit("concat", x, y, axis=1), [floats(4, 5), floats(4, 7)]),
    "pad": (lambda b, x: b.emit("pad", x, low=(1, 0), high=(2, 3), value=1.5), [floats(4, 5)]),
    "scatter_add": (
        lambda b, x, i, u: b.emit("scatter", x, i, u, axis=0, combine="add"),
        [floats(7, 4), tensor(i64, 3, 4), floats(3, 4)],
    ),
    "scatter_max": (
        lambda b, x, i, u: b.emit("scatter", x, i, u, axis=0, combine="max"),
        [floats(7, 4), tensor(i64, 3, 4), floats(3, 4)],
    ),
    "scatter_product": (
        lambda b, x, i, u: b.emit("scatter", x, i, u, axis=0, combine="mul"),
        [floats(7, 4), tensor(i64, 3, 4), floats(3, 4)],
    ),
    "bf16_maximum": (lambda b, x: b.emit("max", x, axes=(1,)), [tensor(bf16, 5, 20)]),
    "bf16_of_integers": (lambda b, x: b.emit("cast", x, dtype=bf16), [tensor(i64, 40)]),
    "double": (lambda b, x, w: b.emit("tanh", b.emit("matmul", x, w)), [tensor(f64, 20, 20), tensor(f64, 20, 20)]),
    "norm_before_product": (
        lambda b, x, g, w: b.emit("linear", b.emit("rms_norm", x, g), w), [floats(20, 40), floats(40), floats(30, 40)]
    ),
    "two_products": (
        lambda b, x, w, v: b.emit("linear", b.emit("softmax", b.emit("linear", x, w), axis=-1), v),
        [floats(20, 40), floats(30, 40), floats(25, 30)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_triton_agrees_with_the_reference(name: str, interpreter: TritonInterpreter) -> None:
    build, types = CASES[name]
    sizes = {"s0": 45} if any(not isinstance(d, int) for t in types for d in t.shape) else {}
    check_graph(graph_of(build, *types), interpreter.run, **sizes)


def test_an_encoder_layer_agrees_with_the_reference(interpreter: TritonInterpreter) -> None:
    graph = encoder_layer(heads=2, width=32, tokens=20)
    inputs = [drawn(p.type, {}, n) * np.float32(0.3) for n, p in enumerate(graph.params)]
    check_graph(graph, interpreter.run, inputs)


def test_one_module_serves_every_dynamic_size(interpreter: TritonInterpreter) -> None:
    graph = graph_of(mlp, floats(s0, 40), floats(50, 40), floats(50))
    texts = {check_graph(graph, interpreter.run, s0=size) for size in (1, 16, 130)}
    assert len(texts) == 1


def test_long_attention_is_one_pass_over_the_keys(interpreter: TritonInterpreter) -> None:
    types = [floats(1, 1, 20, 16), floats(1, 1, 300, 16), floats(1, 1, 300, 16), floats(1, 1, 1, 300)]
    text = check_graph(graph_of(attention, *types), interpreter.run)
    assert text.count("for n_0 in range(0, 300") == 1 and text.count("tl.program_id") == 1


def test_a_fully_masked_row_of_attention_is_nan_as_in_eager(interpreter: TritonInterpreter) -> None:
    types = [floats(1, 1, 4, 16), floats(1, 1, 20, 16), floats(1, 1, 20, 16), floats(1, 1, 4, 20)]
    graph = graph_of(attention, *types)
    inputs = [drawn(t, {}, n) for n, t in enumerate(types)]
    inputs[3][0, 0, 1, :] = -np.inf
    inputs[3][0, 0, 2, 5:] = -np.inf
    check_graph(graph, interpreter.run, inputs)


def test_a_row_too_long_to_hold_is_read_in_passes(interpreter: TritonInterpreter) -> None:
    graph = graph_of(lambda b, x: b.emit("log_softmax", x, axis=-1), floats(2, 9000))
    text = check_graph(graph, interpreter.run)
    assert "range(0, 9000" in text


@pytest.mark.parametrize(("dtype", "within"), [(f16, 1e-3), (bf16, 1e-2)])
def test_half_products_accumulate_in_f32(dtype: Any, within: float, interpreter: TritonInterpreter) -> None:
    graph = graph_of(
        lambda b, x, w: b.emit("relu", b.emit("linear", x, w)), tensor(dtype, 20, 40), tensor(dtype, 50, 40)
    )
    text = check_graph(graph, interpreter.run, within=within)
    dot = next(line for line in text.splitlines() if "tl.dot" in line)
    assert "ieee" not in dot and ".to(tl.float32)" not in dot


def test_maxima_carry_nan_and_infinities(interpreter: TritonInterpreter) -> None:
    graph = graph_of(lambda b, x: b.emit("max", x, axes=(1,)), floats(4, 20))
    x = drawn(floats(4, 20), {}, 0)
    x[0, 3], x[1, 5], x[2, :] = np.nan, np.inf, -np.inf
    check_graph(graph, interpreter.run, [x])


def test_integer_divisions_round_down(interpreter: TritonInterpreter) -> None:
    values = np.arange(-9, 9, dtype=np.int32)
    by = np.array([-3, -2, 2, 3, 5, -5] * 3, dtype=np.int32)
    for op in ("floordiv", "mod", "fmod"):
        graph = graph_of(lambda b, x, y, op=op: b.emit(op, x, y), tensor(i32, 18), tensor(i32, 18))
        check_graph(graph, interpreter.run, [values, by])


@pytest.mark.parametrize("dtype", [f16, f32, f64])
def test_zeros_keep_their_signs(dtype: DType, interpreter: TritonInterpreter) -> None:
    b = GraphBuilder("g")
    x = b.param("x", tensor(dtype, 3))
    graph = b.build((b.emit("neg", x), b.emit("full", shape=(), value=-0.0, dtype=dtype)))
    program, text = emitted(fused(graph))
    found = run_triton(program, text, [np.array([0.0, -0.0, 2.0], dtype.numpy)], interpreter.run, {})
    assert [np.signbit(r).tolist() for r in found] == [[True, False, True], True]
