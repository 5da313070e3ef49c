"""One index or divisor of a case made wrong: compiled code must refuse it exactly where its program meets it."""

from __future__ import annotations

import pytest

from effcc.fuzz.expected import Expected
from effcc.fuzz.faults import faulty, judge_fault
from effcc.fuzz.generate import Case, case_of
from effcc.fuzz.native import Outcome
from effcc.fuzz.oracles import Examined
from effcc.ir.parser import parse_graph
from effcc.steps import State, run_steps
from effcc.target import Target

ROWS = """graph @rows(%x: f32[5,3], %i: i64[2]) {
  %g = index_select %x, %i {axis=0} : f32[2,3]
  %y = exp %g : f32[2,3]
  return %y
}"""
QUOTIENTS = """graph @quotients(%x: i32[4], %d: i32[4]) {
  %y = floordiv %x, %d : i32[4]
  return %y
}"""
PART = """graph @part(%x: f32[5,3], %i: i64[2]) {
  %g = index_select %x, %i {axis=0} : f32[2,3]
  %y = slice %g {axis=0, start=0, end=1, step=1} : f32[1,3]
  return %y
}"""


def examined(text: str) -> Examined:
    case = faulty(case_of(parse_graph(text)))
    assert case is not None
    state = run_steps(State(graph=case.compiled), Target.parse("avx2"), until="fuse")
    return Examined(case, Expected((), False, 1.0), states=(("fuse", state),))


def returned(code: int) -> Outcome:
    return Outcome(problem=f"effcc_run returned {code}" if code else "")


@pytest.mark.parametrize(("text", "right", "wrong"), [(ROWS, 1, 2), (QUOTIENTS, 2, 1)])
def test_it_must_be_raised_and_as_what_it_is(text: str, right: int, wrong: int) -> None:
    found = examined(text)
    assert judge_fault(found, returned(right)) is None
    for code in (0, wrong):
        assert judge_fault(found, returned(code)) is not None
    assert judge_fault(found, Outcome(problem="buffer 1: byte 40 of 24 written")) is not None


def test_what_nobody_reads_may_be_passed_over() -> None:
    case = case_of(parse_graph(PART))
    index = case.inputs[1].copy()
    index[1] = 7
    found = examined(PART)
    unread = Examined(Case(case.graph, (case.inputs[0], index)), found.expected, states=found.states)
    assert judge_fault(unread, returned(0)) is None and judge_fault(unread, returned(1)) is None


def test_a_case_without_an_index_has_no_fault() -> None:
    assert faulty(case_of(parse_graph("graph @a(%x: f32[2]) { %y = exp %x : f32[2] return %y }"))) is None
