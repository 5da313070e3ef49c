"""Convolutions of bytes give the same integers in every form, with borders, zero points and codes of padded values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.ir.graph import Graph
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.kernel import Kernel, Param
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_graph, print_schedule
from effcc.ir.program import Program
from effcc.ir.types import TensorType
from effcc.ir.verifier import verify_vectors
from effcc.passes.fusion import fuse
from effcc.passes.hoist import hoist
from effcc.passes.integers import sum_by_dots
from effcc.passes.tiling.choose import choose
from effcc.target import generic

SIGNED = """
    graph @main(%x: {x}[2,{c},9,7], weight %w: i8[{o},{g},3,3]) {{
      %a = cast %x {{dtype={wide}}} : {wide}[2,{c},9,7]
      %zero = constant {{value={zero}, dtype={wide}}} : {wide}[]
      %s = sub %a, %zero : {wide}[2,{c},9,7]
      %b = cast %w {{dtype={wide}}} : {wide}[{o},{g},3,3]
      %y = convolution %s, %b {{stride=[{stride}, 1], padding=[1, 2], dilation=[1, 1], groups={groups}}}
        : {wide}[2,{o},{rows},9]
      return %y
    }}
"""


def drawn(graph: Graph) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    found = []
    for p in graph.params:
        if p.type.dtype.is_float:
            found.append(random.normal(size=p.type.shape).astype(p.type.dtype.numpy))
        else:
            bounds = np.iinfo(p.type.dtype.numpy)
            found.append(random.integers(bounds.min, bounds.max + 1, p.type.shape, p.type.dtype.numpy))
    return found


def made(text: str, machine: str) -> tuple[Graph, Program]:
    """The graph as the machine's, and its program, which gives what the text does."""
    graph = parse_graph(text)
    changed = sum_by_dots(graph, generic(machine))
    split = hoist(changed)
    program = fuse(split.main, generic(machine), split.prepare)
    given = drawn(graph)
    want = run_graph(graph, given)
    for got in (run_graph(changed, given), run_program(program, given)):
        for one, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(one, other)
    return changed, program


def signed(**changed: object) -> str:
    given: dict[str, object] = {"x": "i8", "c": 8, "o": 6, "g": 8, "groups": 1, "zero": 0, "wide": "i32", "stride": 1}
    given |= changed
    return SIGNED.format(**given, rows=9 if given["stride"] == 1 else 5)


def channels_last(kernel: Kernel, rows: Param) -> Kernel:
    """The kernel with rows as layouts are chosen."""
    n, c, h, w = rows.type.shape
    type = TensorType(rows.type.dtype, (n, c, h, w), (h * w * c, 1, w * c, c))
    return replace(kernel, params=tuple(replace(p, type=type) if p is rows else p for p in kernel.params))


@pytest.mark.parametrize("machine", ["avx512_vnni", "avx2_vnni", "avx2", "amx"])
@pytest.mark.parametrize(("x", "zero", "stride"), [("i8", 0, 1), ("u8", 0, 2), ("u8", 37, 1)])
def test_sums_over_channels_are_packed(machine: str, x: str, zero: int, stride: int) -> None:
    _, program = made(signed(x=x, zero=zero, stride=stride), machine)
    (kernel,) = (
        k for k in program.kernels.values() if any(s.reduction is not None and k.weights for s in k.statements)
    )
    (total,) = (s.reduction for s in kernel.statements if s.reduction is not None)
    assert "where" not in str(total), "the border lies in memory"
    rows = next(p for p in kernel.params if p.name not in kernel.weights)
    kernel = channels_last(kernel, rows)
    kernel, schedule = choose(kernel, generic(machine))
    verify_vectors(vectorize(lower(kernel, schedule), generic(machine)))
    assert "packed" in print_schedule(kernel.name, schedule)


def test_wide_sums_are_those_of_i32() -> None:
    changed, _ = made(signed(wide="i64"), "avx512_vnni")
    assert {n.result.type.dtype.name for n in changed.nodes if n.op == "convolution"} == {"i32"}


@pytest.mark.parametrize(("c", "g", "o", "groups"), [(6, 1, 6, 6), (8, 4, 4, 2)])
@pytest.mark.parametrize("zero", [0, 5])
def test_sums_of_few_channels_are_those_of_f32(c: int, g: int, o: int, groups: int, zero: int) -> None:
    changed, _ = made(signed(x="u8", c=c, g=g, o=o, groups=groups, zero=zero), "avx512_vnni")
    assert {n.result.type.dtype.name for n in changed.nodes if n.op == "convolution"} == {"f32"}


@pytest.mark.parametrize("reader", ["f32", "bf16"])
def test_sums_of_floats_that_are_made_floats_are_read_as_they_are(reader: str) -> None:
    """A depthwise convolution's sums go to their scale without becoming integers; else they stay."""
    text = signed(x="u8", c=6, g=1, o=6, groups=6, zero=5)
    scaled = f"%f = cast %y {{dtype={reader}}} : {reader}[2,6,9,9] %r = mul %f, %f : {reader}[2,6,9,9] return %r"
    changed, _ = made(text.replace("return %y", scaled), "avx512_vnni")
    back = [
        n for n in changed.nodes if n.op == "cast" and n.result.type.dtype.name == "i32" and n.result.type.rank == 4
    ]
    integers = [n for n in back if n.operands[0].type.dtype.name == "f32"]
    assert bool(integers) == (reader == "bf16")
    both, _ = made(text.replace("return %y", scaled.replace("return %r", "return %y, %f")), "avx512_vnni")
    assert {o.type.dtype.name for o in both.outputs} == {"i32", reader}


@pytest.mark.parametrize(("machine", "form"), [("avx512_vnni", "i32"), ("avx2", "f32")])
@pytest.mark.parametrize(("c", "zero", "stride"), [(3, 7, 1), (3, 0, 2), (2, 5, 1)])
def test_windows_of_few_channels_are_lines_where_dot_products_are_quick(
    machine: str, form: str, c: int, zero: int, stride: int
) -> None:
    changed, _ = made(signed(x="u8", c=c, g=c, o=5, zero=zero, stride=stride), machine)
    (node,) = (n for n in changed.nodes if n.op == "convolution")
    assert node.result.type.dtype.name == form
    assert [o.type.shape[1] for o in node.operands[:2]] == ([1, 1] if form == "i32" else [c, c])
    assert form == "f32" or node.operands[1].type.shape[3] == -(-3 * c // 4) * 4


def test_sums_that_f32_does_not_hold_stay() -> None:
    text = signed(c=120, g=60, o=2, groups=2)
    changed, _ = made(text, "avx512_vnni")
    assert print_graph(changed) == print_graph(parse_graph(text))


PADDED = """
    graph @main(%x: f32[1,8,5,6], weight %step: f32[], weight %w: i8[6,8,3,3]) {{
      %p = pad %x {{low=[0, 0, 0, 1], high=[0, 0, 2, 1], value={border}}} : f32[1,8,7,8]
      %m = mul %p, %step : f32[1,8,7,8]
      %r = round %m : f32[1,8,7,8]
      %least = constant {{value=-128.0, dtype=f32}} : f32[]
      %most = constant {{value=127.0, dtype=f32}} : f32[]
      %l = maximum %r, %least : f32[1,8,7,8]
      %u = minimum %l, %most : f32[1,8,7,8]
      %q = cast %u {{dtype=i8}} : i8[1,8,7,8]
      %a = cast %q {{dtype=i32}} : i32[1,8,7,8]
      %b = cast %w {{dtype=i32}} : i32[6,8,3,3]
      %y = convolution %a, %b {{stride=[1, 1], padding=[0, 0], dilation=[1, 1]}} : i32[1,6,5,6]
      return %y
    }}
"""


@pytest.mark.parametrize("machine", ["avx512_vnni", "avx2"])
def test_what_is_padded_and_quantized_is_quantized_first(machine: str) -> None:
    changed, _ = made(PADDED.format(border="0.0"), machine)
    live = {o for n in changed.nodes for o in n.operands} | set(changed.results)
    pads = [n for n in changed.nodes if n.op == "pad" and n.result in live]
    assert pads[-1].operands[0].type.dtype.name in ("u8", "i16")
    convolution = next(n for n in changed.nodes if n.op == "convolution")
    assert convolution.operands[0].type.shape == (1, 8, 7, 8)


def test_another_border_stays_before_the_codes() -> None:
    changed, _ = made(PADDED.format(border="1.0"), "avx512_vnni")
    (pad,) = (n for n in changed.nodes if n.op == "pad")
    assert pad.result.type.dtype.name == "f32"


CHAIN = """
    graph @main(%x: u8[1,16,8,8], weight %w: i8[16,16,1,1], weight %v: i8[16,16,3,3], weight %s: f32[16,1,1]) {
      %a = cast %x {dtype=i32} : i32[1,16,8,8]
      %b = cast %w {dtype=i32} : i32[16,16,1,1]
      %y = convolution %a, %b {stride=[1, 1], padding=[0, 0], dilation=[1, 1]} : i32[1,16,8,8]
      %f = cast %y {dtype=f32} : f32[1,16,8,8]
      %g = mul %f, %s : f32[1,16,8,8]
      %r = relu %g : f32[1,16,8,8]
      %i = round %r : f32[1,16,8,8]
      %most = constant {value=255.0, dtype=f32} : f32[]
      %u = minimum %i, %most : f32[1,16,8,8]
      %q = cast %u {dtype=u8} : u8[1,16,8,8]
      %c = cast %q {dtype=i32} : i32[1,16,8,8]
      %d = cast %v {dtype=i32} : i32[16,16,3,3]
      %z = convolution %c, %d {stride=[1, 1], padding=[1, 1], dilation=[1, 1]} : i32[1,16,8,8]
      return %z
    }
"""


def test_between_two_layers_only_bytes_travel() -> None:
    _, program = made(CHAIN, "avx512_vnni")
    assert {b.type.dtype.name for b in program.buffers if b.space == "arena"} == {"u8"}
