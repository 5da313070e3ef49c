"""What cannot be lowered says which kernel and axis, and what to do."""

from __future__ import annotations

import pytest

from effcc.codegen.lower import lower
from effcc.errors import ScheduleError
from effcc.ir.parser import parse_kernel
from effcc.passes.tiling.choose import choose
from effcc.target import generic


def test_a_reduction_inside_an_expression_is_refused_by_name() -> None:
    text = "kernel @k(X: f32[8,4]) -> (Y: f32[8]) over i=8, r=4 {\n  Y[i] = exp(sum(r: X[i,r]))\n}"
    with pytest.raises(ScheduleError, match=r"'k': the reduction over r .* give it a statement of its own"):
        lower(*choose(parse_kernel(text), generic("avx512")))
