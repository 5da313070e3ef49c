"""A scan whose steps are dear is shared by threads within each step, and computes the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.ir.interpreter import run_kernel, run_loops
from effcc.ir.parser import parse_kernel
from effcc.ir.schedule import Loop, Schedule, nodes
from effcc.passes.tiling.choose import choose
from effcc.target import generic

TARGET = replace(generic("avx512"), cores=3)
RECURRENCE = """
    kernel @recurrence(W: f32[{n},{n}], X: f32[5,{b}{n}]) -> (H: f32[5,{b}{n}])
        over t=5{axis}, i={n}, l={n} scan t {{
      C[t,{a}i] = sum(l: where(t > 0, H[t - 1,{a}l], 0.0) * W[l,i])
      H[t,{a}i] = tanh(C[t,{a}i] + X[t,{a}i])
    }}
"""


def schedule(n: int, rows: int = 1) -> Schedule:
    b, axis, a = (f"{rows},", f", b={rows}", "b,") if rows > 1 else ("", "", "")
    return choose(parse_kernel(RECURRENCE.format(n=n, b=b, axis=axis, a=a)), TARGET)[1]


def parallel(found: Schedule) -> list[Loop]:
    return [node for _, node in nodes(found.body) if isinstance(node, Loop) and node.kind == "parallel"]


def is_stepwise(found: Schedule) -> bool:
    (steps,) = found.body
    return isinstance(steps, Loop) and steps.axis == "t" and [*steps.body] == parallel(found)


def test_a_dear_step_is_shared() -> None:
    found = schedule(600)
    assert is_stepwise(found)
    (tiles,) = parallel(found)
    assert tiles.axis == "i"
    assert -(-600 // tiles.step) == 3


def test_a_cheap_step_runs_on_one_thread() -> None:
    found = schedule(32)
    assert not parallel(found)


def test_rows_that_need_nothing_of_one_another_run_on_their_own() -> None:
    found = schedule(600, rows=3)
    assert not is_stepwise(found)
    assert [x.axis for x in parallel(found)] == ["b"]


@pytest.mark.parametrize("n", [600, 555])
def test_the_loops_compute_the_kernel(n: int) -> None:
    kernel, found = choose(parse_kernel(RECURRENCE.format(n=n, b="", axis="", a="")), TARGET)
    assert is_stepwise(found)
    random = np.random.default_rng(0)
    weight = random.standard_normal((n, n)).astype(np.float32) / n**0.5
    x = random.standard_normal((5, n)).astype(np.float32)
    arrays = {"W": weight, "X": x}
    expected = run_kernel(kernel, arrays)["H"]
    got = run_loops(lower(kernel, found), arrays)["H"]
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)
