"""Rows of half types become f32 once, and results stay what they were to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from effcc.ir.contraction import contractions
from effcc.ir.interpreter import run_program
from effcc.ir.parser import parse_graph
from effcc.ir.program import Launch, Program
from effcc.ir.verifier import verify_program
from effcc.passes.fusion import fuse
from effcc.passes.halves import widen_rows
from effcc.passes.hoist import hoist
from effcc.statistics import require_programs
from effcc.target import generic

SHARED = """
    graph @main(%x: bf16[8,512], %a: bf16[{columns},512], %b: bf16[{columns},512]) {{
      %p = linear %x, %a : bf16[8,{columns}]
      %q = linear %x, %b : bf16[8,{columns}]
      return %p, %q
    }}
"""


def fused(columns: int) -> Program:
    split = hoist(parse_graph(SHARED.format(columns=columns)))
    return fuse(split.main, generic("avx512"), split.prepare)


def casts(program: Program) -> list[str]:
    return [s.kernel for s in program.steps if isinstance(s, Launch) and s.kernel.startswith("widen")]


def test_two_products_of_one_input_share_its_f32_copy() -> None:
    before = fused(64)
    after = widen_rows(before, generic("avx512"))
    verify_program(after)
    assert casts(after).count("widen") == 1
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(before.buffer(n).type.shape).astype(np.float32) for n in before.inputs]
    dtype = before.buffer(before.inputs[0]).type.dtype.numpy
    arrays = [a.astype(dtype) for a in arrays]
    for expected, found in zip(run_program(before, arrays), run_program(after, arrays), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_few_columns_are_not_worth_a_copy() -> None:
    before = fused(32)
    assert widen_rows(before, generic("avx512")) is before


def test_machines_that_sum_products_of_bf16_read_them_as_they_are() -> None:
    before = fused(96)
    held = {n: frozenset(c.right.data.buffer for c in contractions(k).values()) for n, k in before.kernels.items()}
    before = replace(before, kernels={n: replace(k, weights=held[n]) for n, k in before.kernels.items()})
    assert widen_rows(before, generic("avx512")) is not before
    assert widen_rows(before, generic("avx512_bf16")) is before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_compiled_product_of_halves_reads_f32_rows(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    model = torch.nn.Linear(256, 96).to(dtype).eval()
    x = torch.randn(20, 256).to(dtype)
    with torch.no_grad():
        compiled = torch.compile(model, backend="effcc", options={"target": "avx2"})
        wide = model.double()(x.double())
        model.to(dtype)
        torch.testing.assert_close(compiled(x).double(), wide, rtol=2**-7, atol=2**-7)
    (program,) = require_programs(compiled)
    assert program.state.program is not None
    assert casts(program.state.program)


def test_what_is_prepared_stays_as_it_is() -> None:
    """A product of weights, decoded before the first call, has no step that would make f32 of them."""
    before = fused(64)
    step = before.steps[0]
    assert isinstance(step, Launch)
    shared = replace(before, prepare=(step,), steps=before.steps[1:])
    assert widen_rows(before, generic("avx512")).kernels[step.kernel] != before.kernels[step.kernel]
    assert widen_rows(shared, generic("avx512")).kernels[step.kernel] == before.kernels[step.kernel]
