"""What many rows compute of a sum's inputs alike is stored once, and changes nothing of what is summed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effcc.ir.interpreter import run_program
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel
from effcc.ir.printer import print_kernel
from effcc.ir.program import Buffer, Launch, Program
from effcc.passes.fusion.codes import sum_codes
from effcc.passes.fusion.split import split_axes
from effcc.passes.inputs import share_inputs
from effcc.target import Target

WIDE, NARROW = Target.parse("avx512"), Target.parse("avx2")
"""A group's 16 bytes are one vector of 16 lanes, or two of 8."""
HEAD = "kernel @linear(x: f32[64], Q: u8[96,32], S: f32[96,2], T: f32[16]) -> (O: f32[96]) over n=96, k=64"
BITS = "and(shr(cast<i32>(Q[n,k // 2]), cast<i32>(4 * (k % 2))), 15)"
FORMS = {"integers": f"cast<f32>({BITS} - 8) * S[n,k // 32]", "table": f"T[cast<i64>({BITS})] * S[n,k // 32]"}


def kernel(form: str, head: str = HEAD) -> Kernel:
    found = parse_kernel(f"{head} {{ O[n] = sum(k: x[k] * ({FORMS[form]})) }}")
    return sum_codes(split_axes(replace(found, weights=frozenset({"Q", "S", "T"}))))


def program(*kernels: Kernel) -> Program:
    """A launch of each kernel with the same arguments."""
    (first, *_) = kernels
    buffers = [Buffer(p.name, p.type, "weight" if p.name in first.weights else "input") for p in first.params]
    results = [f"O{i}" for i in range(len(kernels))]
    outputs = [Buffer(name, k.outputs[0].type, "output") for name, k in zip(results, kernels, strict=True)]
    names = tuple(p.name for p in first.params)
    steps = tuple(Launch(f"k{i}", tuple(p.name for p in k.params), (results[i],)) for i, k in enumerate(kernels))
    named = {f"k{i}": replace(k, name=f"k{i}") for i, k in enumerate(kernels)}
    return Program("p", tuple(buffers + outputs), names, tuple(results), named, steps)


@pytest.mark.parametrize("form", FORMS)
def test_inputs_are_stored_once_and_sums_stay_what_they_were(form: str) -> None:
    before = program(kernel(form))
    after = share_inputs(before, WIDE)
    assert len(after.steps) == 2
    first, rest = (after.kernels[s.kernel] for s in after.steps if isinstance(s, Launch))
    assert [p.name for p in first.params] == ["x"]
    assert all(p.name != "x" for p in rest.params), "the sum reads what is stored, and nothing else of the inputs"
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal(64, np.float32), rng.integers(0, 256, (96, 32), np.uint8),
        rng.standard_normal((96, 2), np.float32), rng.standard_normal(16, np.float32),
    ]  # fmt: skip
    given = dict(zip(("x", "Q", "S", "T"), arrays, strict=True))
    arguments = [given[name] for name in before.inputs]
    np.testing.assert_array_equal(run_program(after, arguments)[0], run_program(before, arguments)[0])


def test_kernels_that_read_the_same_inputs_alike_share_them() -> None:
    one = kernel("integers")
    after = share_inputs(program(one, replace(one, name="other")), WIDE)
    assert [s.kernel for s in after.steps if isinstance(s, Launch)] == ["k0_inputs", "k0", "k1"]


def test_inputs_that_were_written_since_are_stored_anew() -> None:
    made = program(kernel("integers"), kernel("integers"))
    written = parse_kernel("kernel @double(y: f32[64]) -> (z: f32[64]) over i=64 { z[i] = y[i] * 2.0 }")
    steps = (made.steps[0], Launch("double", ("x",), ("x",)), made.steps[1])
    after = share_inputs(replace(made, kernels={**made.kernels, "double": written}, steps=steps), WIDE)
    names = [s.kernel for s in after.steps if isinstance(s, Launch)]
    assert names == ["k0_inputs", "k0", "double", "k0_inputs", "k1"]


@pytest.mark.parametrize("target", [WIDE, NARROW])
def test_few_rows_compute_their_inputs_themselves(target: Target) -> None:
    few = program(kernel("integers", HEAD.replace("96", "16")))
    assert share_inputs(few, target) == few


def test_vectors_of_a_group_are_summed_before_its_scale() -> None:
    before = program(kernel("integers"))
    after = share_inputs(before, NARROW)
    (rest,) = (k for name, k in after.kernels.items() if name == "k0")
    text = print_kernel(rest)
    assert text.count("S[n,k_o_o]") == 1
    assert "sum(k_o_o, k_o_i_l: " in text and "k_o_i_l=8" in text
    assert [str(p.type) for p in rest.params[:3]] == ["f32[2,8]", "f32[2,16]", "f32[2,16]"], (
        "what codes are off is one vector of a group's inputs; what they are multiplied with lies side by side"
    )
    rng = np.random.default_rng(0)
    given = [
        rng.integers(-64, 64, 64).astype(np.float32) * 16,  # a 16th is an integer: none is rounded
        rng.integers(0, 256, (96, 32), np.uint8),
        np.exp2(rng.integers(-2, 3, (96, 2))).astype(np.float32),
        np.zeros(16, np.float32),
    ]
    np.testing.assert_array_equal(run_program(after, given)[0], run_program(before, given)[0])


def test_codes_of_a_table_are_looked_up_for_whole_groups() -> None:
    assert "k_o_i_l" not in print_kernel(share_inputs(program(kernel("table")), NARROW).kernels["k0"])
