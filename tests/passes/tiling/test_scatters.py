"""Schedules of scatters: steps are at least one element, and tasks share out rows, however their index is computed."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.interpreter import run_kernel
from effcc.ir.parser import parse_graph, parse_kernel
from effcc.ir.schedule import Loop, Schedule
from effcc.passes.tiling.axes import in_tasks
from effcc.steps import State, run_steps
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


@pytest.mark.parametrize(
    "index",
    [
        "where(in_range(I[i], 8, 0), I[i], -1)",
        "where(I[i] < 0, I[i] + 8, I[i])",  # what is left of a wrapped index that a clamp keeps inside
        "minimum(7, maximum(0, I[i]))",
    ],
)
def test_each_row_belongs_to_one_task(index: str) -> None:
    kernel = parse_kernel(f"""
        kernel @rows(I: i64[9], X: f32[9,5]) -> (Y: f32[8,5]) over r=8, i=9, c=5 {{
          Y[r,c] = 0.0
          Y[{index},c] add= X[i,c] for i, c
        }}
    """)
    cut = in_tasks(kernel, 4, lambda kernel, statement: True)
    assert cut.extents["t"] == 4
    rows = np.array([0, 3, 3, 7, 1, 3, 0, 6, 2])
    arrays = {"I": rows, "X": np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)}
    np.testing.assert_array_equal(run_kernel(cut, arrays)["Y"], run_kernel(kernel, arrays)["Y"])


def _loops(schedule: Schedule) -> list[Loop]:
    found, pending = [], list(schedule.body)
    while pending:
        node = pending.pop()
        found += [node] if isinstance(node, Loop) else []
        pending += getattr(node, "body", ())
    return found
