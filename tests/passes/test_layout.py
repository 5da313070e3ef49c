"""Intermediates are stored as their readers' lanes want them; nothing else about the program changes."""

from __future__ import annotations

import numpy as np

from effcc.ir.interpreter import run_program
from effcc.ir.parser import parse_graph
from effcc.ir.program import Program
from effcc.ir.verifier import verify_program
from effcc.passes.fusion import fuse
from effcc.passes.hoist import hoist
from effcc.passes.layout import arrange
from effcc.target import generic

TARGET = generic("avx512")

SCORES = """
    graph @main(%q: f32[2,64,32], %k: f32[2,64,32]) {
      %keys = softmax %k {axis=1} : f32[2,64,32]
      %t = transpose %keys {perm=[0,2,1]} : f32[2,32,64]
      %y = matmul %q, %t : f32[2,64,64]
      return %y
    }
"""


def fused(text: str) -> Program:
    split = hoist(parse_graph(text))
    return fuse(split.main, TARGET, split.prepare)


def test_keys_are_written_transposed_by_whoever_computes_them() -> None:
    program = arrange(fused(SCORES), TARGET)
    (keys,) = (b for b in program.buffers if b.space == "arena")
    assert keys.type.strides == (2048, 1, 64)


def test_inputs_and_outputs_keep_their_layouts() -> None:
    before, after = fused(SCORES), arrange(fused(SCORES), TARGET)
    for name in (*before.inputs, *before.outputs):
        assert after.buffer(name).type == before.buffer(name).type


def test_what_is_computed_stays_the_same() -> None:
    before, after = fused(SCORES), arrange(fused(SCORES), TARGET)
    verify_program(after)
    random = np.random.default_rng(0)
    arrays = [random.standard_normal((2, 64, 32)).astype(np.float32) for _ in range(2)]
    (expected,), (found,) = (run_program(p, arrays) for p in (before, after))
    np.testing.assert_array_equal(found, expected)


def test_a_program_without_intermediates_is_left_alone() -> None:
    program = fused("graph @main(%x: f32[8,8]) {\n  %y = exp %x : f32[8,8]\n  return %y\n}")
    assert arrange(program, TARGET) is program


BLOCK = """
    graph @main(%x: f32[14,14,96], weight %u: f32[96,96], weight %d: f32[96,1,7,7], weight %g: f32[96],
                weight %v: f32[384,96], weight %w: f32[96,384]) {
      %first = linear %x, %u : f32[14,14,96]
      %last = transpose %first {perm=[2,0,1]} : f32[96,14,14]
      %image = reshape %last {shape=[1,96,14,14]} : f32[1,96,14,14]
      %near = convolution %image, %d {groups=96, padding=[3,3], stride=[1,1], dilation=[1,1]} : f32[1,96,14,14]
      %rows = transpose %near {perm=[0,2,3,1]} : f32[1,14,14,96]
      %even = layer_norm %rows, %g {axes=1, eps=1e-6} : f32[1,14,14,96]
      %wide = linear %even, %v : f32[1,14,14,384]
      %bent = gelu %wide : f32[1,14,14,384]
      %deep = linear %bent, %w : f32[1,14,14,96]
      %back = transpose %deep {perm=[0,3,1,2]} : f32[1,96,14,14]
      %sum = add %image, %back : f32[1,96,14,14]
      return %sum
    }
"""


def test_row_major_order_does_not_confirm_itself() -> None:
    """Over channels first a window's lanes are masked at every edge; its weights can be packed for either layout."""
    program = arrange(fused(BLOCK), TARGET)
    assert program.buffer("near").type.strides == (1, 14 * 96, 96)
