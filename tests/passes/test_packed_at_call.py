"""Products of two activations in bfloat16: which factor is packed at each call, and that it is packed anew."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.ir.dtypes import bf16
from effcc.ir.interpreter import run_program
from effcc.ir.parser import parse_program
from effcc.ir.printer import print_program, print_vectors
from effcc.ir.program import Launch, Program
from effcc.ir.verifier import verify_program
from effcc.passes.packed_at_call import pack_at_calls
from effcc.passes.tiling.tile import tile
from effcc.target import Target

TARGET = Target.parse("avx512_bf16")


def program(b: str = "B[k,n]", shape: str = "40,48", m: int = 64, k: int = 40) -> Program:
    return parse_program(f"""
        program @main(a, b) -> (y) {{
          buffer a: bf16[8,{m},{k}] in input
          buffer b: bf16[{shape}] in input
          buffer y: f32[8,{m},48] in output
          kernel @product(A: bf16[8,{m},{k}], B: bf16[{shape}]) -> (Y: f32[8,{m},48])
            over g=8, m={m}, n=48, k={k} {{
            Y[g,m,n] = sum(k: cast<f32>(A[g,m,k]) * cast<f32>({b}))
          }}
          main {{ launch @product(a, b) -> (y) }}
        }}""")


def steps(p: Program) -> list[tuple[str, ...]]:
    return [(s.kernel, *s.arguments) for s in p.steps if isinstance(s, Launch)]


@pytest.mark.parametrize(("b", "shape"), [("B[k,n]", "40,48"), ("B[n,k]", "48,40")])
def test_the_factor_with_lanes_is_packed_before_each_product(b: str, shape: str) -> None:
    given = program(b, shape)
    tiled = tile(pack_at_calls(given, TARGET), TARGET, prepare_once=True).program
    verify_program(tiled)
    assert steps(tiled) == [("pack", "b"), ("product", "a", "b.packed")] and not tiled.prepare
    random = np.random.default_rng(0)
    x = [random.standard_normal([int(d) for d in given.buffer(n).type.shape]).astype(bf16.numpy) for n in "ab"]
    np.testing.assert_allclose(run_program(tiled, x)[0], run_program(given, x)[0], rtol=1e-5, atol=1e-5)


def test_few_rows_and_other_machines_multiply_what_is_stored() -> None:
    few = program(m=8)
    assert pack_at_calls(few, TARGET) is few
    plain = program()
    assert pack_at_calls(plain, Target.parse("avx2")) is plain


def test_pairs_are_stored_side_by_side() -> None:
    tiled = tile(pack_at_calls(program("B[n,k]", "48,40"), TARGET), TARGET, prepare_once=True)
    pack = tiled.program.kernels["pack"]
    text = print_vectors(vectorize(lower(pack, tiled.schedules["pack"]), TARGET))
    assert "store_rows(packed[" in text and "stride=[2]" in text and "do store(" not in text


def test_what_is_prepared_reads_its_factors_as_they_lie() -> None:
    """A product of two weights (a low rank, decoded) runs before the first call, and no step packs for it."""
    text = print_program(program()).replace("main {", "prepare {").replace(" in input", " in weight")
    text = text.replace("buffer y: f32[8,64,48] in output", "buffer y: f32[8,64,48] in prepared")
    prepared = parse_program(text.rstrip().removesuffix("}") + "main { } }")
    assert pack_at_calls(prepared, TARGET) is prepared


def of_unknown_depth(rows: str = "s1") -> Program:
    return parse_program(f"""
        program @main(a, b) -> (y) where s0 in 2.., s1 in 2.. {{
          buffer a: f32[{rows},s0] in input
          buffer b: f32[48,s0] in input
          buffer y: f32[{rows},48] in output
          kernel @product(A: f32[{rows},s0], B: f32[48,s0]) -> (Y: f32[{rows},48]) over m={rows}, n=48, k=s0 {{
            Y[m,n] = sum(k: A[m,k] * B[n,k])
          }}
          main {{ launch @product(a, b) -> (y) }}
        }}""")


@pytest.mark.parametrize("depth", [3, 100])
def test_a_factor_that_lies_along_a_depth_of_unknown_length_is_packed_along_its_own_axis(depth: int) -> None:
    target, given = Target.parse("avx512"), of_unknown_depth()
    tiled = tile(pack_at_calls(given, target), target, prepare_once=True)
    verify_program(tiled.program)
    assert steps(tiled.program) == [("pack", "b"), ("product", "a", "b.packed")] and not tiled.program.prepare
    assert "turned at once" in str(tiled.schedules["pack"])
    random = np.random.default_rng(0)
    x = [random.standard_normal(shape).astype(np.float32) for shape in ((21, depth), (48, depth))]
    nests = {n: lower(k, tiled.schedules[n]) for n, k in tiled.program.kernels.items()}
    np.testing.assert_allclose(run_program(tiled.program, x, nests=nests)[0], x[0] @ x[1].T, rtol=1e-4, atol=1e-5)


def test_few_rows_of_unknown_depth_multiply_what_is_stored() -> None:
    few = of_unknown_depth(rows="3")
    assert pack_at_calls(few, Target.parse("avx512")) is few
