"""A scan whose threads meet after every step gives each step all of the one before, however many threads there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effcc.codegen.lower import lower
from effcc.ir.interpreter import run_kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.schedule import Loop
from effcc.passes.tiling.choose import choose
from effcc.runtime.cache import CompileCache
from effcc.target import Target
from tests.codegen.cpp.running import run_nest

RECURRENCE = """
    kernel @recurrence(W: f32[555,555], X: f32[40,555]) -> (H: f32[40,555]) over t=40, i=555, l=555 scan t {
      C[t,i] = sum(l: where(t > 0, H[t - 1,l], 0.0) * W[l,i])
      H[t,i] = tanh(C[t,i] + X[t,i])
    }
"""


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_a_shared_step_reads_all_of_the_one_before(threads: int, target: Target, cache: CompileCache) -> None:
    kernel, schedule = choose(parse_kernel(RECURRENCE), replace(target, cores=4))
    (steps,) = schedule.body
    assert isinstance(steps, Loop) and steps.axis == "t"
    random = np.random.default_rng(0)
    weight = random.standard_normal((555, 555)).astype(np.float32) / 24
    x = random.standard_normal((40, 555)).astype(np.float32)
    expected = run_kernel(kernel, {"W": weight, "X": x})["H"]
    for _ in range(5):
        arrays = {"W": weight, "X": x, "H": np.full((40, 555), np.nan, np.float32)}
        run_nest(lower(kernel, schedule), arrays, target, cache, threads=threads)
        np.testing.assert_allclose(arrays["H"], expected, rtol=1e-3, atol=1e-4)
