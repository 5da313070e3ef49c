"""Printing and parsing are inverse to each other, on random graphs, kernels, loop nests and programs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from effcc.ir import dtypes
from effcc.ir.dtypes import f16, f32, f64, i64
from effcc.ir.expr import Axis, Call, Const, Load, Reduce
from effcc.ir.graph import Attribute, Graph
from effcc.ir.kernel import Kernel
from effcc.ir.loops import LoopNest
from effcc.ir.parser import (
    parse_any,
    parse_encoding,
    parse_expression,
    parse_graph,
    parse_kernel,
    parse_loops,
    parse_program,
    parse_type,
)  # fmt: skip
from effcc.ir.printer import print_any, print_graph, print_kernel, print_loops, print_program, show_expression
from effcc.ir.program import Extern, Program
from effcc.ir.types import TensorType
from effcc.ir.verifier import verify_any, verify_graph, verify_kernel, verify_loops
from tests.ir.strategies import attributes, encodings, graphs, kernels, loop_nests, programs, types

relaxed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@relaxed
@given(kernels())
def test_a_kernel_is_its_text(kernel: Kernel) -> None:
    verify_kernel(kernel)
    text = print_kernel(kernel)
    assert parse_kernel(text) == kernel
    assert print_kernel(parse_kernel(text)) == text


@relaxed
@given(loop_nests())
def test_a_loop_nest_is_its_text(nest: LoopNest) -> None:
    verify_loops(nest)
    text = print_loops(nest)
    assert parse_loops(text) == nest
    assert print_any(parse_any(text)) == text


@relaxed
@given(graphs())
def test_a_graph_is_its_text(graph: Graph) -> None:
    verify_graph(graph)
    text = print_graph(graph, locations=False)
    parsed = parse_graph(print_graph(graph))
    verify_graph(parsed)
    assert print_graph(parsed) == text
    assert [n.attrs for n in parsed.nodes] == [n.attrs for n in graph.nodes]
    assert parsed.weights == graph.weights and parsed.ranges == graph.ranges


@relaxed
@given(programs())
def test_a_program_is_its_text(program: Program) -> None:
    verify_any(program)
    text = print_program(program, locations=False)
    parsed = parse_program(print_program(program))
    assert print_any(parsed) == text
    assert parsed.buffers == program.buffers and parsed.kernels == program.kernels and parsed.updates == program.updates


@given(encodings())
def test_an_encoding_is_its_text(encoding) -> None:
    assert parse_encoding(str(encoding)) == encoding


@given(types())
def test_a_type_is_its_text(type: TensorType) -> None:
    assert str(parse_type(str(type))) == str(type)


@given(attributes())
def test_an_attribute_is_its_text(value: Attribute) -> None:
    program = Program("p", (), (), (), {}, (Extern("op", (), (), {"a": value}),))
    (extern,) = parse_program(print_program(program)).externs
    assert repr(extern.attrs["a"]) == repr(value)


BUFFERS = {"X": (f32, 1), "Y": (f64, 1), "Z": (f16, 0), "I": (i64, 1)}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("(X[i]+1)*2", "(X[i] + 1.0) * 2.0"),
        ("X[i] - (1.0 - X[i])", "X[i] - (1.0 - X[i])"),
        ("(X[i] - 1.0) - X[i]", "X[i] - 1.0 - X[i]"),
        ("X[(i + 1) * 2 - 1]", "X[(i + 1) * 2 - 1]"),
        ("X[I[i] // 2 % 3]", "X[I[i] // 2 % 3]"),
        ("-(X[i] * X[i])", "-(X[i] * X[i])"),
        ("-X[i] * 2.0", "-X[i] * 2.0"),
        ("neg(1.0)", "neg(1.0)"),
        ("where(i < 1 or i >= 2 and i != 3, X[i], -inf)", "where(i < 1 or i >= 2 and i != 3, X[i], -inf)"),
        ("where((i < 1 or i > 2) and true, X[i], nan)", "where((i < 1 or i > 2) and true, X[i], nan)"),
        ("cast<f32>(0.1 * Y[i])", "cast<f32>(0.1 * Y[i])"),
        ("cast<f32>(f16(0.5))", "cast<f32>(f16(0.5))"),
        ("cast<f32>(Z[])", "cast<f32>(Z[])"),
        ("sum(k: X[k] * X[k]) / 3.0", "sum(k: X[k] * X[k]) / 3.0"),
        ("sum<f32>(k: Z[])", "sum(k: Z[])"),
        ("cast<f32>(sum<f16>(k: Z[]))", "cast<f32>(sum<f16>(k: Z[]))"),
        ("max(i, k: X[k]) rescale exp(X'[i] - X[i])", "max(i, k: X[k]) rescale exp(X'[i] - X[i])"),
        ("max(k: X[k]) rescale (X'[i] - X[i])", "max(k: X[k]) rescale (X'[i] - X[i])"),
        ("cast<f32>(s0 + size(2*s0+1))", "cast<f32>(s0 + size(2*s0+1))"),
        ("X[i - 1] + X[sub(i, 1)]", "X[i - 1] + X[sub(i, 1)]"),
        ("X[sub(i, -1)]", "X[sub(i, -1)]"),
    ],
)
def test_expressions_print_with_the_fewest_parentheses(text: str, canonical: str) -> None:
    parsed = parse_expression(text, BUFFERS, axes=("i", "k"), symbols=("s0",), expected=f32)
    shown = show_expression(parsed, frozenset(("i", "k")), f32)
    assert shown == canonical
    assert parse_expression(shown, BUFFERS, axes=("i", "k"), symbols=("s0",), expected=f32) == parsed


def test_numbers_take_the_dtype_of_what_stands_beside_them() -> None:
    half = parse_expression("Y[i] + 0.5", BUFFERS, axes=("i",))
    assert half == Call("add", (Load("Y", (Axis("i"),), f64), Const(0.5, f64)), f64)
    assert parse_expression("1", {}) == Const(1, i64)
    assert parse_expression("1.0", {}) == Const(1.0, f32)
    assert parse_expression("1", {}, expected=f16) == Const(1.0, f16)


def test_sums_accumulate_wide_unless_they_say_otherwise() -> None:
    body = Load("Z", (), f16)
    assert parse_expression("sum(k: Z[])", BUFFERS, axes=("k",)) == Reduce("sum", ("k",), body, f32)
    assert parse_expression("sum<f16>(k: Z[])", BUFFERS, axes=("k",)) == Reduce("sum", ("k",), body, f16)
    assert parse_expression("max(k: Z[])", BUFFERS, axes=("k",)) == Reduce("max", ("k",), body, f16)
    narrow = parse_expression("sum<i32>(k: cast<i32>(I[k]))", BUFFERS, axes=("k",))
    assert narrow.dtype == dtypes.i32


def test_buffers_may_have_the_names_of_operators_and_keywords() -> None:
    names = [
        "and",
        "or",
        "for",
        "rescale",
        "sum",
        "where",
        "scan",
        "over",
        "cast",
        "size",
        "inf",
        "true",
        "kernel",
        "f32",
    ]
    loads = " + ".join(f"{name}[i]" for name in names)
    params = ", ".join(f"{name}: f32[4]" for name in names[4:])
    statements = [f"{name}[i] = sum[i] * 2.0" for name in names[:4]]
    lines = [
        f"kernel @k({params}) -> (Y: f32[4]) over i=4 {{",
        *(f"  {s}" for s in statements),
        f"  Y[i] = {loads}",
        "}",
    ]
    assert print_kernel(parse_kernel("\n".join(lines))) == "\n".join(lines)


def test_comments_and_locations_are_dropped() -> None:
    text = "# why\ngraph @g(%x: f32[2]) {  # here\n  %y = exp %x : f32[2]  # model.py:3\n  return %y\n}"
    assert print_graph(parse_any(text)) == "graph @g(%x: f32[2]) {\n  %y = exp %x : f32[2]\n  return %y\n}"


def test_dtypes_that_no_kernel_computes_on_print_and_parse() -> None:
    for name, dtype in dtypes.CARRIED.items():
        text = (
            f"graph @call(%z: {name}[3]) {{\n"
            f'  %y = extern %z {{target="aten::clone.default", template=[[["tensor", 0]], []], '
            f"results=[[{name}, [3]]]}} : {name}[3]\n  return %y\n}}\n"
        )
        graph = parse_graph(text)
        assert graph.params[0].type.dtype is dtype
        assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)
