"""Bad text is refused with the line, a caret and what was expected; bad programs by the verifier."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effcc.errors import EffccError, EncodingError, IRSyntaxError, IRTypeError, UnknownNameError
from effcc.ir.dtypes import f32, i64, u8
from effcc.ir.expr import Axis, Const, Load
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.kernel import Kernel, Param, Scatter, Statement
from effcc.ir.parser import parse_any, parse_encoding, parse_graph, parse_kernel, parse_loops, parse_program, parse_type
from effcc.ir.types import tensor
from effcc.ir.verifier import verify_any, verify_graph, verify_if_asked, verify_kernel, verify_loops, verify_program


def kernel_text(statement: str) -> str:
    return f"kernel @k(X: f32[4], I: i64[4]) -> (Y: f32[4]) over i=4, j=4 {{\n  {statement}\n}}"


def graph_text(node: str) -> str:
    return f"graph @g(%x: f32[4]) {{\n  {node}\n  return %x\n}}"


@pytest.mark.parametrize(
    ("text", "error", "place", "message"),
    [
        (kernel_text("Y[i] = X[i] + "), IRSyntaxError, "3:1", "unexpected '}'; expected one of '\\(', '-', a name"),
        (kernel_text("Y[i] = X[i] ? 2.0"), IRSyntaxError, "2:15", "unexpected '?'"),
        (kernel_text("Y[i + 1] = 1.0"), IRSyntaxError, "2:5", "to write elsewhere use T\\[index\\] set= value"),
        (kernel_text("Y[q] = 1.0"), IRSyntaxError, "2:5", "'q' is no axis of this kernel; its axes are: i, j"),
        (kernel_text("Y[i] = sum(q: 1.0)"), IRSyntaxError, "2:14", "must be names of the kernel's axes"),
        (kernel_text("Y[i] = X[i,j]"), IRTypeError, "2:10", "'X' has 1 dimensions, got 2 indices"),
        (kernel_text("Y[i] = X[i] + i"), IRTypeError, "2:10", "operands of 'add' must have one dtype, got f32, i64"),
        (kernel_text("Y[i] = I[i]"), IRTypeError, "2:3", "'Y' is f32, its value i64"),
        (kernel_text("Y[i] = where(i, 1.0, 2.0)"), IRTypeError, "2:10", "condition of 'where' must be bool, got i64"),
        (kernel_text("Y[i] = X[i + 0.5]"), IRTypeError, "2:16", "expected a value of type i64, got 0.5"),
        (kernel_text("Y[i] = exp(X[i], 1.0)"), IRTypeError, "2:10", "'exp' takes 1 operands, got 2"),
        (kernel_text("Y[i] = max(X[i], 1.0)"), IRTypeError, "2:10", "a reduction is written max\\(axis: value\\)"),
        (kernel_text("Y[i] = cast<f33>(X[i])"), UnknownNameError, "2:10", "unknown dtype 'f33'; did you mean"),
        (kernel_text("Y[i] = Z[i]"), UnknownNameError, "2:10", "unknown buffer 'Z'"),
        (kernel_text("Y[i] = X[i] * n"), UnknownNameError, "2:17", "unknown axis or size 'n'"),
        (kernel_text("Y[i] = sigmod(X[i])"), UnknownNameError, "2:10", "unknown scalar function 'sigmod'; did"),
        (graph_text("%y = gelo %x : f32[4]"), UnknownNameError, "2:8", "unknown op 'gelo'; did you mean 'gelu'"),
        (graph_text("%y = gelu %x {approx=1} : f32[4]"), UnknownNameError, "2:16", "did you mean 'approximate'"),
        (graph_text("%y = cumsum %x : f32[4]"), IRTypeError, "2:8", "needs the attribute 'axis'"),
        (graph_text("%y = exp %z : f32[4]"), UnknownNameError, "2:12", "unknown value '%z'"),
        (graph_text("%y = exp %x : f32[5]"), IRTypeError, "2:17", "op 'exp' gives f32\\[4\\], but f32\\[5\\] is"),
        (graph_text("%x = exp %x : f32[4]"), IRTypeError, "2:3", "%x is defined twice"),
        (graph_text("%y = add %x, %x, %x : f32[4]"), IRTypeError, "2:3", "expected 2 operands, got 3"),
        (graph_text("%y, %z = exp %x : f32[4]"), IRTypeError, "2:21", "has 1 results, got 2 names and 1 types"),
        (graph_text("%y = exp %x"), IRSyntaxError, "3:3", "unexpected 'return'; expected one of"),
        (
            graph_text("%y = softmax %x {axis=[0]} : f32[4]"),
            IRTypeError,
            "2:3",
            "axis=\\(0,\\), .* of the wrong kind",
        ),
        ("graph @g(%x: f32[4] = int9) {\n  return %x\n}", UnknownNameError, "1:14", "did you mean 'int8'"),
        (
            "graph @g(%x: f32[4] = block(0,1)) {\n  return %x\n}",
            EncodingError,
            "1:14",
            "expected rows=a positive integer",
        ),
        ("graph @g(%x: f99[4]) {\n  return %x\n}", UnknownNameError, "1:14", "unknown dtype 'f99'"),
        ("graph @g(%x: f32[4]{1,2}) {\n  return %x\n}", IRTypeError, "1:20", "2 strides for a shape of 1 sizes"),
        ("graph @g(%x: f32[4]) {", IRSyntaxError, "1:23", "unexpected the end of the text; expected one of 'return'"),
        ("\n  module {}", IRSyntaxError, "2:3", "expected one of 'graph', 'kernel', 'loops', 'program'"),
        ("", IRSyntaxError, "1:1", "expected one of 'graph', 'kernel', 'loops', 'program'"),
        ("loops @l() -> (Y: f32[4]) {\n  tile i=4 lanes: Z[i] = 1.0\n}", UnknownNameError, "2:3", "unknown buffer 'Z'"),
        ("loops @l() -> (Y: f32[4]) {\n  alloc a: f32[n] in local\n}", IRSyntaxError, "2:12", "needs constant sizes"),
        ("program @p() -> (y) {\n  main {\n  }\n}", UnknownNameError, "1:18", "unknown buffer 'y'"),
        ("program @p() -> () {\n  main {\n    launch @k() -> ()\n  }\n}", UnknownNameError, "3:12", "kernel '@k'"),
    ],
)
def test_bad_text_is_refused_where_it_is_bad(text: str, error: type[EffccError], place: str, message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        parse_any(text, "model.ir")
    shown = str(raised.value)
    line, column = map(int, place.split(":"))
    assert shown.startswith(f"model.ir:{place}: ")
    assert (raised.value.line, raised.value.column) == (line, column)
    if text:
        *_, source, caret = shown.split("\n")
        assert source == "  " + text.split("\n")[line - 1]
        assert caret == "  " + " " * (column - 1) + "^"


def test_bad_types_and_encodings_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown function of sizes 'flor'; did you mean 'floor'"):
        parse_type("f32[flor(s0)]")
    with pytest.raises(IRSyntaxError, match="positional argument after a named one"):
        parse_encoding("int8(group=32,4)")
    with pytest.raises((IRSyntaxError, EncodingError)):
        parse_encoding("int8 + ")


def verified(statement: Statement, scans: tuple[str, ...] = ()) -> None:
    x, y = Param("X", tensor(f32, 4)), Param("Y", tensor(f32, 4))
    first = Statement("Y", ("i",), Const(0.0, f32))
    statements = (statement,) if statement.target == "Y" and statement.scatter is None else (first, statement)
    verify_kernel(Kernel("k", (x,), (y,), (("i", 4), ("j", 5)), statements, scans))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (Statement("X", ("i",), Const(0.0, f32)), "parameter 'X' is written"),
        (Statement("Y", ("q",), Const(0.0, f32)), "axis 'q' has no extent"),
        (Statement("Y", ("j",), Const(0.0, f32)), "axis 'j' has the extent 5, the dimension of 'Y' the size 4"),
        (Statement("Y", ("i", "j"), Const(0.0, f32)), "'Y' has 1 dimensions, got 2"),
        (Statement("Y", ("i",), Const(0, i64)), "'Y' is f32, its value i64"),
        (Statement("Y", ("i",), Load("X", (Axis("j"),), f32)), "axis 'j' has no value here"),
        (Statement("Y", ("i",), Load("X", (Load("X", (Axis("i"),), i64),), f32)), "'X' is f32, its load says i64"),
        (Statement("Y", ("i",), Load("Z", (Axis("i"),), f32)), "'Z' is read, but is neither a parameter nor defined"),
        (Statement("Y", ("i",), Load("Y", (Axis("i"),), f32)), "'Y' is read before it is defined"),
        (Statement("Y", ("i",), Const(0.0, f32), Scatter((Axis("i"),), "sub")), "a scatter combines by"),
        (Statement("T", ("i",), Const(300, u8)), "constant 300 is outside u8"),
    ],
)
def test_a_kernel_that_makes_no_sense_is_refused(statement: Statement, message: str) -> None:
    with pytest.raises(IRTypeError, match=message) as raised:
        verified(statement)
    assert "kernel @k" in str(raised.value) and f"in: {statement.target}[" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Y[i] = sum(i: X[i])", "'sum' binds 'i', which already has a value here"),
        ("Y[i] = sum(j: X[i]) rescale X[i]", "rescale names no running value"),
        ("A[i] = B[i]\n  B[i]: f32 = X[i]\n  Y[i] = A[i]", "'B' is read before it is defined"),
        ("Y[i] = Y[i + 1]", "'Y' is read before it is defined, and not at an earlier point"),
        ("Y[i] = Y[I[i]]", "'Y' is read before it is defined, and not at an earlier point"),
    ],
)
def test_reads_are_of_what_is_there(text: str, message: str) -> None:
    kernel = replace(parse_kernel(kernel_text(text)), scans=("i",))
    with pytest.raises(IRTypeError, match=message):
        verify_kernel(kernel)


def test_a_recurrence_reads_earlier_points_of_a_scan_axis() -> None:
    kernel = parse_kernel(kernel_text("Y[i] = where(i > 0, Y[i - 1], 0.0) + X[i]"))
    with pytest.raises(IRTypeError, match="'Y' is read before it is defined"):
        verify_kernel(kernel)
    verify_kernel(replace(kernel, scans=("i",)))


def test_an_output_that_nothing_defines_is_refused() -> None:
    with pytest.raises(IRTypeError, match="output 'Y' is defined by no statement"):
        verify_kernel(Kernel("k", (), (Param("Y", tensor(f32, 4)),), (), ()))


def test_a_graph_that_is_not_in_ssa_form_is_refused() -> None:
    x, y, z = Value("x", tensor(f32, 4)), Value("y", tensor(f32, 4)), Value("z", tensor(f32, 5))
    use = Node("exp", (y,), {}, (Value("u", tensor(f32, 4)),))
    define = Node("exp", (x,), {}, (y,))
    verify_graph(Graph("g", (x,), (define, use), (y,)))
    for bad, message in [
        (Graph("g", (x,), (use, define), (y,)), "%y is used, but not defined before"),
        (Graph("g", (x,), (define, define), (y,)), "%y is defined twice"),
        (Graph("g", (x,), (), (Value("x", x.type),)), "its definition is another value of that name"),
        (Graph("g", (x,), (Node("exp", (x,), {}, (z,)),), (z,)), "op 'exp' gives f32\\[4\\], but %z is f32\\[5\\]"),
        (Graph("g", (x,), (Node("exp", (x,), {"a": 1}, (y,)),), (y,)), "unknown attribute of op 'exp' 'a'"),
        (Graph("g", (x, z), (), (x,), updates=((x, z),)), "cannot take %z"),
        (Graph("g", (x,), (), (x,), weights=frozenset(["w"])), "weight 'w' is no parameter"),
    ]:
        with pytest.raises(IRTypeError, match=message):
            verify_graph(bad)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("tile i=4 lanes: X[i] = 1.0", "neither an output nor a local buffer"),
        ("tile i=4 lanes, j=2 loop: Y[i] = 1.0", "axis j is not in the index"),
        ("tile i=4 lines: Y[i] = 1.0", "must be one of"),
        ("for i in 0..4 step 1 {\n tile i=4 lanes: Y[i] = 1.0\n}", "tile axis 'i' hides a loop"),
        ("for i in 0..4 step 0 {\n}", "has the step 0"),
        ("tile i=4 lanes: Y[i] subtract= 1.0", "no operator to combine by"),
        ("alloc a: f32[4] in register\nfor i in 0..4 step 1 {\n tile: a[i] = 1.0\n}", "indexed by tile axes alone"),
        ("alloc X: f32[4] in local", "hides another buffer"),
        ("alloc a: f32[4] in attic", "space of 'a' must be one of"),
    ],
)
def test_a_loop_nest_that_makes_no_sense_is_refused(body: str, message: str) -> None:
    nest = parse_loops(f"loops @l(X: f32[4]) -> (Y: f32[4]) {{\n{body}\n}}")
    with pytest.raises(IRTypeError, match=message):
        verify_loops(nest)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("launch @copy(x) -> (y)", "launch @copy(y) -> (y)", "buffer 'y' is read by @copy before it is written"),
        ("launch @copy(x) -> (y)", "launch @copy(x, x) -> (y)", "@copy has 1 parameters, got 2"),
        ("launch @copy(x) -> (y)", "", "buffer 'y' is returned, but no step writes it"),
        ("y: f32[4] in output", "y: f32[5] in output", "@copy takes Y: f32\\[4\\], got y: f32\\[5\\]"),
        ("y: f32[4] in output", "y: f32[4] in output alias y", "go round in a circle"),
        ("y: f32[4] in output", "y: f32[4] in attic", "space of 'y' must be one of"),
    ],
)
def test_a_program_that_makes_no_sense_is_refused(old: str, new: str, message: str) -> None:
    text = (
        "program @p(x) -> (y) {\n  buffer x: f32[4] in input\n  buffer y: f32[4] in output\n"
        "  kernel @copy(X: f32[4]) -> (Y: f32[4]) over i=4 {\n    Y[i] = X[i]\n  }\n"
        "  main {\n    launch @copy(x) -> (y)\n  }\n}"
    )
    verify_program(parse_program(text))
    with pytest.raises(IRTypeError, match=message):
        verify_program(parse_program(text.replace(old, new)))


def test_verification_between_passes_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = replace(parse_kernel(kernel_text("Y[i] = X[i]")), outputs=(Param("Z", tensor(f32, 4)),))
    monkeypatch.delenv("EFFCC_VERIFY", raising=False)
    verify_if_asked(bad, "fuse")
    monkeypatch.setenv("EFFCC_VERIFY", "1")
    with pytest.raises(IRTypeError, match="after fuse: kernel @k: output 'Z'"):
        verify_if_asked(bad, "fuse")
    verify_any(parse_graph(graph_text("%y = exp %x : f32[4]")))
