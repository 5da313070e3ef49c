"""Products read encoded weights as they are stored: text in, text out, and the same numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from effcc.ir.encodings import stored_as
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_kernel
from effcc.ir.program import Program
from effcc.ir.verifier import verify_program
from effcc.passes.encodings import choose, encode
from effcc.passes.fusion import fuse
from effcc.passes.hoist import hoist
from effcc.target import generic

LINEAR = """
graph @g(%x: f32[{rows},{k}], {params}, weight %b: f32[{n}]) {{
  %w = decode {operands} {{encoding=<{encoding}>, dtype=f32, shape=[{n},{k}]}} : f32[{n},{k}]
  %y = linear %x, %w, %b : f32[{rows},{n}]
  return %y
}}
"""
COMPONENTS = {
    "int8": "weight %q: i8[{n},{k}], weight %s: f32[{n}]",
    "block(4,1)": "weight %c: i32[{m},{j}], weight %v: f32[{m},{j},4]",
    "block(4,1) . int8": "weight %c: i32[{m},{j}], weight %q: i8[{m},{j},4], weight %s: f32[{n}]",
    "block(4,1) . f16": "weight %c: i32[{m},{j}], weight %v: f16[{m},{j},4]",
    "block(4,1) . bfp(group=4)": "weight %c: i32[{m},{j}], weight %q: u8[{m},{j},2], weight %s: i8[{n},{groups_of_j}]",
    "csr": "weight %p: i32[{after}], weight %c: i32[{j}], weight %v: f32[{j}]",
    "bcsr(2,3)": "weight %p: i32[{half_after}], weight %c: i32[{j}], weight %v: f32[{j},2,3]",
    "nm(2,4)": "weight %i: u8[{n},{bytes}], weight %v: f32[{n},{groups},2]",
    "block(2,3) . int8": "weight %c: i32[{h},{j}], weight %q: i8[{h},{j},2,3], weight %s: f32[{n}]",
}


def linear(encoding: str, rows: int = 16, n: int = 8, k: int = 12, j: int = 3) -> str:
    """A linear layer with a stored weight, as text."""
    params = COMPONENTS[encoding].format(
        n=n, k=k, m=n // 4, h=n // 2, j=j, after=n + 1, half_after=n // 2 + 1, groups=k // 4, groups_of_j=-(-j // 4),
        bytes=-(-k // 4 * 2 // 4)
    )  # fmt: skip
    operands = ", ".join(part.split(":")[0].split()[-1] for part in params.split(", weight"))
    return LINEAR.format(rows=rows, n=n, k=k, params=params, operands=operands, encoding=encoding)


def fused(text: str) -> Program:
    """With weights read as they are stored, whatever is predicted to be quicker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose, "dense_seconds", lambda *_: math.inf)
        split, _ = encode(hoist(parse_graph(text)), generic("avx512"))
    program = fuse(split.main, generic("avx512"), split.prepare)
    verify_program(program)
    return program


def products(program: Program) -> str:
    """The statements of a program's kernels that sum over a product."""
    lines = [line.strip() for kernel in program.kernels.values() for line in print_kernel(kernel).splitlines()]
    return "\n".join(line for line in lines if "= sum(" in line)


def inputs(text: str, seed: int = 0) -> list[Any]:
    """Random inputs of a graph whose first node decodes the components of a random weight."""
    graph = parse_graph(text)
    random = np.random.default_rng(seed)
    decode = graph.nodes[0]
    shapes = [o.type.shape for o in decode.operands]
    stored = stored_as(decode.attrs["encoding"], decode.attrs["shape"], decode.attrs["dtype"], shapes)  # type: ignore[arg-type]
    dense = random.standard_normal(stored.shape).astype(np.float32)
    components = dict(zip((o.name for o in decode.operands), stored.encode(dense), strict=True))
    return [
        components[p.name] if p.name in components else random.standard_normal(p.type.shape).astype(p.type.dtype.numpy)
        for p in graph.params
    ]


def test_a_scale_of_channels_moves_out_of_the_sum() -> None:
    program = fused(linear("int8"))
    assert products(program) == "linear[m,n] = sum(k: x0[m,k] * cast<f32>(w0[n,k]))"
    assert "linear[m,n] * w1[n] + w2[n]" in "".join(map(print_kernel, program.kernels.values()))


def test_a_product_over_stored_blocks_runs_over_them_only() -> None:
    place = "cast<i64>(minimum(maximum(w0[n_o,j], 0), 11))"
    assert products(fused(linear("block(4,1)"))) == f"linear[m,n_o,n_i] = sum(j: x0[{place},m] * w1[n_o,j,n_i])"


def test_long_rows_of_sums_are_turned_as_a_whole() -> None:
    program = fused(linear("block(4,1)", rows=64))
    place = "cast<i64>(minimum(maximum(w0[n_o,j], 0), 11))"
    assert products(program) == f"linear[n_o,n_i,m] = sum(j: x0[{place},m] * w1[n_o,j,n_i])"
    assert [len(program.kernels[s.kernel].statements) for s in program.steps] == [1, 1, 1]  # type: ignore[union-attr]


def test_levels_and_values_compose_without_a_rewrite_of_their_own() -> None:
    place = "cast<i64>(minimum(maximum(w0[n_o,j], 0), 11))"
    assert (
        products(fused(linear("block(4,1) . int8")))
        == f"linear[m,n_o,n_i] = sum(j: x0[{place},m] * cast<f32>(w1[n_o,j,n_i]))"
    )


def test_codes_become_floats_once_for_many_rows_and_where_they_are_read_for_few() -> None:
    """What makes floats of a block's codes is a kernel of its own, not a part of each task of rows."""
    many, few = (fused(linear("block(4,1) . int8", rows=rows, n=64, k=96, j=20)) for rows in (64, 16))
    made = [k for k in many.kernels.values() if all(s.reduction is None for s in k.statements)]
    assert any("cast<f32>(w0[" in print_kernel(k) for k in made)
    assert "cast" not in products(many).replace("cast<i64>", "")
    assert "cast<f32>" in products(few)


@pytest.mark.parametrize("values", ["f16", "bfp(group=4)"])
def test_codes_become_floats_with_the_scales_of_their_groups(values: str) -> None:
    """The sum reads one factor beside the rows: no scale is multiplied, or made, for each of them again."""
    sum_ = products(fused(linear(f"block(4,1) . {values}", rows=64, n=64, k=96, j=20)))
    assert "x0[" in sum_ and not any(word in sum_.replace("cast<i64>", "") for word in ("cast", "exp2", "shr")), sum_


def test_rows_of_free_lengths_are_sums_over_spans() -> None:
    """They are stored as rows of what is gathered, and turned as a whole: of these sums one is there at a time."""
    program = fused(linear("csr"))
    place = "cast<i64>(minimum(maximum(w0[p], 0), 11))"
    span = "p in cast<i64>(w2[n])..cast<i64>(w2[n + 1])"
    assert products(program) == f"linear[n,m] = sum({span}: x0[{place},m] * w1[p])"
    assert [len(program.kernels[s.kernel].statements) for s in program.steps] == [1, 1, 1]  # type: ignore[union-attr]


def test_fields_of_bits_are_known_to_stay_inside() -> None:
    """So no gathered row is guarded."""
    place = "g * 4 + cast<i64>(shr(cast<i32>(w0[n,g // 2]), cast<i32>((g % 2 * 2 + s) * 2)) and 3)"
    assert products(fused(linear("nm(2,4)"))) == f"linear[m,n] = sum(g, s: x0[{place},m] * w1[n,g,s])"


def test_few_rows_are_gathered_from_where_they_are() -> None:
    text = products(fused(linear("block(4,1)", rows=1)))
    assert text == "linear[n_o,n_i] = sum(j: x0[cast<i64>(minimum(maximum(w0[n_o,j], 0), 11))] * w1[n_o,j,n_i])"


@pytest.mark.parametrize("encoding", COMPONENTS)
@pytest.mark.parametrize("rows", [1, 5, 16])
def test_the_program_computes_what_the_graph_does(encoding: str, rows: int) -> None:
    text = linear(encoding, rows)
    arrays = inputs(text)
    (expected,) = run_graph(parse_graph(text), arrays)
    program = fused(text)
    named = dict(zip((p.name for p in parse_graph(text).params), arrays, strict=True))
    (got,) = run_program(program, [named[name] for name in program.inputs])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_two_products_share_the_transposed_operand() -> None:
    text = """
    graph @g(%x: f32[16,12], weight %c: i32[2,3], weight %v: f32[2,3,4], weight %d: i32[2,3], weight %u: f32[2,3,4]) {
      %w = decode %c, %v {encoding=<block(4,1)>, dtype=f32, shape=[8,12]} : f32[8,12]
      %t = decode %d, %u {encoding=<block(4,1)>, dtype=f32, shape=[8,12]} : f32[8,12]
      %y = linear %x, %w : f32[16,8]
      %z = linear %x, %t : f32[16,8]
      return %y, %z
    }
    """
    assert sum("gathered" in b.name for b in fused(text).buffers) == 1


def test_a_weight_read_along_its_rows_is_decoded_once() -> None:
    """x @ W reads a block's elements in another order than they are stored in."""
    text = """
    graph @g(%x: f32[16,8], weight %c: i32[2,3], weight %v: f32[2,3,4]) {
      %w = decode %c, %v {encoding=<block(4,1)>, dtype=f32, shape=[8,12]} : f32[8,12]
      %y = matmul %x, %w : f32[16,12]
      return %y
    }
    """
    program = fused(text)
    assert len(program.prepare) == 1
    arrays = inputs(text)
    (expected,) = run_graph(parse_graph(text), arrays)
    named = dict(zip(("x", "c", "v"), arrays, strict=True))
    (got,) = run_program(program, [named[name] for name in program.inputs])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_the_sum_that_a_scale_is_taken_out_of_has_no_axis_of_one_row() -> None:
    """The result is a row, [1,N]; what is summed for it is not: else its scale would be a nest of its own."""
    text = """
    graph @g(%x: f32[1,64], weight %q: i8[32,64], weight %s: f32[32]) {
      %w = decode %q, %s {encoding=<int8>, dtype=f32, shape=[32,64]} : f32[32,64]
      %y = linear %x, %w : f32[1,32]
      return %y
    }
    """
    target = generic("avx512")
    program = fuse(parse_graph(text), target)
    (kernel,) = program.kernels.values()
    assert 1 not in kernel.extents.values(), print_kernel(kernel)
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.standard_normal((1, 64), np.float32),
        "q": rng.integers(-9, 9, (32, 64), np.int8),
        "s": rng.standard_normal(32, np.float32),
    }
    (expected,) = run_graph(parse_graph(text), list(arrays.values()))
    (found,) = run_program(program, [arrays[name] for name in program.inputs])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
