"""Control flow becomes steps of the program: they compute what the graph says, in place and prepared where they can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_program
from effcc.ir.program import Branch, Launch, Loop, Program, nested, within
from effcc.ir.verifier import verify_program
from effcc.steps import State, run_steps
from effcc.target import generic

TYPES = "(%x: f32[8,8], %w: f32[64,8], %v: f32[64,8])"
CHOICE = f"""
    graph @main(%c: bool[], %x: f32[8,8], weight %w: f32[64,8], weight %v: f32[64,8]) {{
      %a, %b = cond %c, %x, %w, %v graph @then{TYPES} {{
        %y = linear %x, %w : f32[8,64]
        return %y, %x
      }} graph @else{TYPES} {{
        %h = tanh %x : f32[8,8]
        %y = linear %h, %w : f32[8,64]
        return %y, %h
      }} : f32[8,64], f32[8,8]
      return %a, %b
    }}
"""
STATE = "(%i: i64[], %x: f32[6,8], %n: i64[])"
LOOP = f"""
    graph @main(%i: i64[], %x: f32[6,8], %n: i64[]) {{
      %j, %y = while %i, %x, %n {{carried=2}} graph @test{STATE} {{
        %more = lt %i, %n : bool[]
        return %more
      }} graph @body{STATE} {{
        %one = constant {{value=1, dtype=i64}} : i64[]
        %next = add %i, %one : i64[]
        BODY
        return %next, %z
      }} : i64[], f32[6,8]
      return %j, %y
    }}
"""
HALVED = """%half = constant {value=0.5, dtype=f32} : f32[]
        %halves = broadcast %half {shape=[6,8]} : f32[6,8]
        %z = mul %x, %halves : f32[6,8]"""
SOFTMAX = "%z = softmax %x {axis=0} : f32[6,8]"
ROW = """%at = reshape %i {shape=[1]} : i64[1]
        %f = cast %i {dtype=f32} : f32[]
        %row = broadcast %f {shape=[8]} : f32[8]
        %z = index_put %x, %row, %at {axes=[0]} : f32[6,8]"""
SWAP = """
    graph @main(%n: i64[], %a: f32[4], %b: f32[4]) {
      %m, %c, %d = while %n, %a, %b {carried=3} graph @test(%n: i64[], %a: f32[4], %b: f32[4]) {
        %zero = constant {value=0, dtype=i64} : i64[]
        %more = gt %n, %zero : bool[]
        return %more
      } graph @body(%n: i64[], %a: f32[4], %b: f32[4]) {
        %one = constant {value=1, dtype=i64} : i64[]
        %next = sub %n, %one : i64[]
        return %next, %b, %a
      } : i64[], f32[4], f32[4]
      return %c, %d
    }
"""


def compiled(text: str) -> Program:
    program = run_steps(State(graph=parse_graph(text)), generic("avx512"), until="tile").program
    assert program is not None and not program.externs
    verify_program(program)
    return program


def check(text: str, *inputs: Any) -> Program:
    """The program of a graph computes what the graph says."""
    given = [np.asarray(x) for x in inputs]
    expected = run_graph(parse_graph(text), [x.copy() for x in given])
    program = compiled(text)
    for found, wanted in zip(run_program(program, [x.copy() for x in given]), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    return program


def f32s(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def turn(program: Program) -> list[str]:
    """The kernels of a loop's body."""
    (loop,) = (s for s in program.steps if isinstance(s, Loop))
    return [s.kernel for s in within(loop.body) if isinstance(s, Launch)]


@pytest.mark.parametrize("way", [True, False])
def test_both_ways_of_a_branch_read_one_packed_copy_of_a_weight(way: bool) -> None:
    program = check(CHOICE, way, f32s(8, 8), f32s(64, 8), f32s(64, 8))
    assert [b.name for b in program.buffers if b.space == "prepared"] == ["w.packed"]
    assert len(program.prepare) == 1
    (branch,) = program.steps
    assert isinstance(branch, Branch)
    assert len(branch.then) == 2, "what a branch returns as it was given is copied"
    assert len(branch.orelse) == 2, "what it computes is written where it belongs"


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
@pytest.mark.parametrize(("body", "copies"), [(HALVED, 0), (SOFTMAX, 1), (ROW, 0)])
def test_a_loop_updates_what_it_carries_in_place_where_it_can(body: str, copies: int, turns: int) -> None:
    program = check(LOOP.replace("BODY", body), 0, f32s(6, 8), turns)
    assert sum(kernel.startswith(("copy", "update")) for kernel in turn(program)) == copies


@pytest.mark.parametrize("turns", range(4))
def test_a_loop_may_exchange_what_it_carries(turns: int) -> None:
    check(SWAP, turns, f32s(4), f32s(2, 4)[1])


def test_the_text_of_control_flow_is_taken_up_again() -> None:
    from effcc.ir.parser import parse_program

    program = compiled(LOOP.replace("BODY", HALVED))
    text = print_program(program, locations=False)
    assert "    loop {\n" in text and "    } while holds {\n" in text
    assert print_program(parse_program(text), locations=False) == text


def test_equal_kernels_of_two_bodies_are_one() -> None:
    text = CHOICE.replace("%h = tanh %x : f32[8,8]\n        %y = linear %h, %w", "%y = linear %x, %v").replace(
        "return %y, %h", "return %y, %x"
    )
    program = compiled(text)
    launched = {s.kernel for s in nested(program.steps) if isinstance(s, Launch)}
    assert len(launched) == 2, "one product, one copy"
