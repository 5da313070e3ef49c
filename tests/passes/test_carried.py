"""What scans carry: buffers of one step, where no more is read."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.errors import ScheduleError
from effcc.ir.dtypes import f32
from effcc.ir.interpreter import run_kernel, run_loops
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel, parse_program, parse_schedule
from effcc.ir.verifier import verify_loops, verify_schedule
from effcc.passes.carried import carry_steps
from effcc.passes.tiling.choose import choose
from effcc.target import Target

PROGRAM = """
    program @main(x) -> (y) {{
      buffer x: f32[4,9] in input
      buffer y: f32[4,9] in output
      buffer s: f64[4,9] in arena
      {more}
      kernel @k(X: f32[4,9]) -> (Y: f32[4,9], S: f64[4,9]) over i=4, t=9 scan t {{
        S[i,t] = where(t > 0, {before}, 0.0) + cast<f64>(X[i,t])
        Y[i,t] = cast<f32>(S[i,t])
      }}
      {reader}
      main {{
        launch @k(x) -> (y, s)
        {launch}
      }}
    }}"""


def carried(before: str = "S[i,t - 1]", more: str = "", reader: str = "", launch: str = "") -> tuple[str, ...]:
    """The outputs of the scan's kernel."""
    program = carry_steps(parse_program(PROGRAM.format(before=before, more=more, reader=reader, launch=launch)))
    return tuple(p.name for p in program.kernels["k"].outputs)


def test_sums_of_which_one_step_is_read_are_no_buffer() -> None:
    program = carry_steps(parse_program(PROGRAM.format(before="S[i,t - 1]", more="", reader="", launch="")))
    assert [b.name for b in program.buffers] == ["x", "y"] and carried() == ("Y",)


def test_what_others_read_or_two_steps_before_stays_whole() -> None:
    assert carried(before="where(t > 1, S[i,t - 2], S[i,t - 1])") == ("Y", "S")
    reader = "kernel @r(S: f64[4,9]) -> (Z: f64[4,9]) over i=4, t=9 { Z[i,t] = exp(S[i,t]) }"
    more = "buffer z: f64[4,9] in arena"
    assert carried(more=more, reader=reader, launch="launch @r(s) -> (z)") == ("Y", "S")


def scan(output: str = "Y") -> Kernel:
    return parse_kernel(f"""
        kernel @k(X: f32[6,9]) -> ({output}: f32[6,9]) over i=6, t=9 scan t {{
          S[i,t]: f32 = where(t > 0, S[i,t - 1], 1.0) * X[i,t]
          Y[i,t]: f32 = S[i,t] + X[i,t]
        }}""")


REGISTERS = "schedule @k { parallel i by 4 { for i by 2 unroll { hold S in registers { for t by 1 { do S do Y } } } } }"
CACHE = "schedule @k { parallel i by 4 { hold S in local { for t by 1, i by 8 lanes { do S do Y } } } }"
LATER = "schedule @k { hold S in local { for t by 1, i by 1 { do S } for t by 1, i by 1 { do Y } } }"
LATER_OF_ONE = "schedule @k { for i by 1 { hold S in registers { for t by 1 { do S } for t by 1 { do Y } } } }"
INSIDE = "schedule @k { parallel i by 4 { for t by 1 { hold S in local { for i by 8 lanes { do S do Y } } } } }"


@pytest.mark.parametrize(("text", "output"), [(REGISTERS, "Y"), (REGISTERS, "S"), (CACHE, "Y")])
def test_a_hold_keeps_one_step_and_stores_outputs_as_they_come(text: str, output: str) -> None:
    kernel, schedule = scan(output), parse_schedule(text).schedule
    verify_schedule(kernel, schedule)
    nest = lower(kernel, schedule)
    verify_loops(nest)
    x = {"X": np.random.default_rng(0).standard_normal((6, 9)).astype(f32.numpy)}
    np.testing.assert_array_equal(run_loops(nest, x)[output], run_kernel(kernel, x)[output])


def test_a_hold_inside_of_the_loop_is_refused() -> None:
    with pytest.raises(ScheduleError, match="the next step of t reads S: hold it around `for t by 1`"):
        verify_schedule(scan(), parse_schedule(INSIDE).schedule)


@pytest.mark.parametrize(("text", "output"), [(LATER, "Y"), (LATER_OF_ONE, "Y"), (LATER_OF_ONE, "S")])
def test_steps_that_are_no_longer_kept_are_not_read(text: str, output: str) -> None:
    """Each row was what its last step gave."""
    with pytest.raises(ScheduleError, match="of which one step is kept: put both inside of one `for t by 1`"):
        verify_schedule(scan(output), parse_schedule(text).schedule)


def test_rows_are_scanned_a_few_at_once_and_columns_in_lanes() -> None:
    target = Target.parse("avx2")
    along = "kernel @k(X: f32[64,900]) -> (Y: f32[64,900]) over i=64, t=900 scan t {{ Y[i,t] = {} }}"
    plus = "where(t > 0, Y[i,t - 1], 0.0) + X[i,t]"
    assert "4 rows at once along t" in choose(parse_kernel(along.format(plus)), target)[1].notes[0]
    dear = f"exp(sin(cos(tanh(sin(exp({plus}))))))"
    assert "vectors" in choose(parse_kernel(along.format(dear)), target)[1].notes[0]
    across = """kernel @k(X: f32[900,64]) -> (Y: f32[900,64]) over t=900, i=64 scan t {
        Y[t,i] = where(t > 0, Y[t - 1,i], 0.0) + X[t,i] }"""
    assert "vectors" in choose(parse_kernel(across), target)[1].notes[0]
