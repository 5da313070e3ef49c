"""Schedules of scatters: steps are at least one element, however wide that is beside a register."""

from __future__ import annotations

import pytest

from effcc.driver import State, run_steps
from effcc.ir.parser import parse_graph
from effcc.ir.schedule import Loop, Schedule
from effcc.target import Target

ROWS = """graph @rows(%x: f64[6,s0], %t: i64[6,1]) where s0 in 2.. {
  %zero = full {shape=[6,s0], value=0.0, dtype=f64} : f64[6,s0]
  %t1 = broadcast %t {shape=[6,s0]} : i64[6,s0]
  %y = scatter %zero, %t1, %x {axis=0, combine="add"} : f64[6,s0]
  return %y
}"""


@pytest.mark.parametrize("target", ["scalar", "avx2"])
def test_rows_of_run_time_width_are_cut_into_steps_of_at_least_one_element(target: str) -> None:
    state = run_steps(State(graph=parse_graph(ROWS)), Target.parse(target))
    steps = [loop.step for schedule in state.schedules.values() for loop in _loops(schedule)]
    assert steps and min(steps) >= 1
    assert state.source.entry


def _loops(schedule: Schedule) -> list[Loop]:
    found, pending = [], list(schedule.body)
    while pending:
        node = pending.pop()
        found += [node] if isinstance(node, Loop) else []
        pending += getattr(node, "body", ())
    return found
