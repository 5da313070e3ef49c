"""Intermediates are stored as their readers' lanes want them; nothing else about the program changes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from effcc.ir.dtypes import f32
from effcc.ir.interpreter import run_program
from effcc.ir.parser import parse_graph
from effcc.ir.program import Program
from effcc.ir.types import TensorType
from effcc.ir.verifier import verify_program
from effcc.passes.fusion import fuse
from effcc.passes.hoist import hoist
from effcc.passes.layout import _eliminate, _Table, arrange
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
    """Of many rows that read them: stores that lie apart cost more than a few rows win."""
    many = SCORES.replace("%q: f32[2,64,32]", "%q: f32[2,256,32]").replace("f32[2,64,64]", "f32[2,256,64]")
    program = arrange(fused(many), TARGET)
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


TYPES = tuple(TensorType(f32, (2, 3), s) for s in (None, (1, 2)))


@given(st.data())
def test_elimination_finds_the_cheapest_assignment(data: st.DataObject) -> None:
    names = [f"b{i}" for i in range(data.draw(st.integers(1, 6)))]
    free = dict.fromkeys(names, TYPES)
    tables = []
    for _ in range(data.draw(st.integers(1, 8))):
        held = tuple(data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)))
        prices = {a: float(data.draw(st.integers(0, 50))) for a in product(TYPES, repeat=len(held))}
        tables.append(_Table(held, prices))

    def price(chosen: Mapping[str, TensorType]) -> float:
        return sum(t.prices[tuple(chosen[b] for b in t.buffers)] for t in tables)

    least = min(price(dict(zip(names, a, strict=True))) for a in product(TYPES, repeat=len(names)))
    assert price(_eliminate(free, tables)) == least


CHAIN = """
    graph @main(%x: f32[1,24,28,28], weight %u: f32[144,24,1,1], weight %d: f32[144,1,3,3],
                weight %v: f32[24,144,1,1]) {
      %a = convolution %x, %u {padding=[0,0], stride=[1,1], dilation=[1,1]} : f32[1,144,28,28]
      %b = convolution %a, %d {groups=144, padding=[1,1], stride=[1,1], dilation=[1,1]} : f32[1,144,28,28]
      %c = convolution %b, %v {padding=[0,0], stride=[1,1], dilation=[1,1]} : f32[1,24,28,28]
      %e = convolution %c, %u {padding=[0,0], stride=[1,1], dilation=[1,1]} : f32[1,144,28,28]
      %f = convolution %e, %d {groups=144, padding=[1,1], stride=[1,1], dilation=[1,1]} : f32[1,144,28,28]
      return %f
    }
"""


def test_a_chain_of_convolutions_agrees_on_channels_last() -> None:
    """Also the 24 channels between, which fill one and a half vectors: rows of the image alone would be cheaper."""
    program = arrange(fused(CHAIN), TARGET)
    inner = {b.name: b.type.layout[0] for b in program.buffers if b.space == "arena" and b.type.shape[1:] == (28, 28)}
    inner |= {b.name: b.type.layout[1] for b in program.buffers if b.space == "arena" and b.type.rank == 4}
    assert inner and set(inner.values()) == {1}


NORMED = """
    graph @main(%x: f32[1,32,12,12], weight %u: f32[32,32,3,3], weight %w: f32[32]) {
      %a = convolution %x, %u {padding=[1,1], stride=[1,1], dilation=[1,1]} : f32[1,32,12,12]
      %b = group_norm %a, %w, %w {groups=4} : f32[1,32,12,12]
      %c = silu %b : f32[1,32,12,12]
      %d = convolution %c, %u {padding=[1,1], stride=[1,1], dilation=[1,1]} : f32[1,32,12,12]
      return %d
    }
"""


def test_convolutions_see_whole_channels_of_what_a_group_norm_sees_in_groups() -> None:
    """So that both sides of it lie channels last, and packed weights are read along channels."""
    before, after = fused(NORMED), arrange(fused(NORMED), TARGET)
    verify_program(after)
    assert {str(after.buffer(name).type) for name in "ac"} == {"f32[32,12,12]{1,384,32}"}
    seen = {str(p.type) for k in after.kernels.values() for p in k.outputs}
    assert "f32[4,8,12,12]{8,1,384,32}" in seen
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(s).astype(np.float32) for s in ((1, 32, 12, 12), (32, 32, 3, 3), (32,))]
    (expected,), (found,) = (run_program(p, arrays) for p in (before, after))
    np.testing.assert_array_equal(found, expected)


STRIDED = """
    graph @main(%x: f32[1,64,9,9], weight %u: f32[512,64,1,1], weight %v: f32[64,512,1,1], weight %w: f32[64,512,3,3]) {
      %a = convolution %x, %u {groups=1, padding=[0,0], stride=[1,1], dilation=[1,1]} : f32[1,512,9,9]
      %b = relu %a : f32[1,512,9,9]
      %c = convolution %b, %v {groups=1, padding=[0,0], stride=[STEP,STEP], dilation=[1,1]} : f32[1,64,SIZE,SIZE]
      %d = convolution %b, %w {groups=1, padding=[1,1], stride=[STEP,STEP], dilation=[1,1]} : f32[1,64,SIZE,SIZE]
      %y = add %c, %d : f32[1,64,SIZE,SIZE]
      return %y
    }
"""


def test_a_line_stands_between_pixels_whose_rows_would_share_a_set_of_the_cache() -> None:
    """Every other pixel of 512 channels is 4096 bytes further, one by one they are 2048: of those twice as many fit."""
    every, other = (
        fused(STRIDED.replace("STEP", str(step)).replace("SIZE", str(size))) for step, size in ((1, 9), (2, 5))
    )
    pixels = [
        {b.type.strides for b in arrange(p, TARGET).buffers if b.type.shape[-3:] == (512, 9, 9)} for p in (every, other)
    ]
    assert pixels[0] <= {None, (1, 9 * 512, 512)} and pixels[1] == {(1, 9 * 528, 528)}
    after = arrange(other, TARGET)
    verify_program(after)
    random = np.random.default_rng(0)
    arrays = [
        random.standard_normal(tuple(map(int, other.buffer(n).type.shape))).astype(np.float32) for n in other.inputs
    ]
    (expected,), (found,) = (run_program(p, arrays) for p in (other, after))
    np.testing.assert_array_equal(found, expected)
