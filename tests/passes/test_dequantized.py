"""Products of dequantized integers become those of the integers: exact sums, nearer to the truth than floats'."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.dtypes import i8
from effcc.ir.graph import Graph
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.parser import parse_graph
from effcc.passes.dequantized import multiply_integers
from effcc.passes.fusion import fuse
from effcc.passes.hoist import hoist
from effcc.passes.integers import sum_by_dots
from effcc.target import generic

LINEAR = """
    graph @main(%q: u8[6,70], weight %values: i8[20,70], weight %scale: f32[20], weight %bias: f32[20], %step: f32[],
                %p: i32[1]) {{
      {zero}
      %wide = cast %q {{dtype=f32}} : f32[6,70]
      %centred = sub %wide, %zero : f32[6,70]
      %x = mul %centred, %step : f32[6,70]
      %w = decode %values, %scale {{encoding=<int8(per="channel")>, dtype=f32, shape=[20,70], whole=false, part=""}}
        : f32[20,70]
      %y = linear %x, %w, %bias : f32[6,20]
      return %y
    }}
"""
CONSTANT = "%zero = constant {value=121.0, dtype=f32, shape=[]} : f32[]"
CHOSEN = """
      %most = constant {value=255, dtype=i32, shape=[]} : i32[]
      %up = relu %p : i32[1]
      %cut = minimum %most, %up : i32[1]
      %f = cast %cut {dtype=f32} : f32[1]
      %zero = reshape %f {shape=[]} : f32[]
"""
ANY = """
      %f = cast %p {dtype=f32} : f32[1]
      %zero = reshape %f {shape=[]} : f32[]
"""
CONVOLUTION = """
    graph @main(%q: u8[2,8,9,7], weight %values: i8[6,8,3,3], weight %scale: f32[6], weight %bias: f32[6],
                %step: f32[]) {
      %zero = constant {value=121.0, dtype=f32, shape=[]} : f32[]
      %wide = cast %q {dtype=f32} : f32[2,8,9,7]
      %centred = sub %wide, %zero : f32[2,8,9,7]
      %x = mul %centred, %step : f32[2,8,9,7]
      %w = decode %values, %scale {encoding=<int8(per="channel")>, dtype=f32, shape=[6,8,3,3], whole=false, part=""}
        : f32[6,8,3,3]
      %y = convolution %x, %w, %bias {stride=[1, 1], padding=[1, 1], dilation=[1, 1], groups=1} : f32[2,6,9,7]
      return %y
    }
"""


def of_i8(text: str) -> str:
    return text.replace("%q: u8", "%q: i8").replace("121.0", "-128.0")


def drawn(graph: Graph) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    codes = (-128, 128) if graph.params[0].type.dtype == i8 else (0, 256)
    given = {"q": codes, "values": (-127, 128), "p": (90, 91)}
    return [
        random.integers(*given[p.name], p.type.shape).astype(p.type.dtype.numpy)
        if p.name in given
        else random.uniform(0.001, 0.02, p.type.shape).astype(np.float32)
        for p in graph.params
    ]


def summed(graph: Graph) -> str:
    (product,) = (n for n in graph.nodes if n.op in ("linear", "convolution"))
    return str(product.result.type.dtype)


@pytest.mark.parametrize("machine", ["avx2", "avx512_vnni"])
@pytest.mark.parametrize(
    "text",
    [
        LINEAR.format(zero=CONSTANT),
        LINEAR.format(zero=CHOSEN),
        CONVOLUTION,
        of_i8(LINEAR.format(zero=CONSTANT)),
        of_i8(CONVOLUTION),
    ],
    ids=["zero point", "zero point chosen at each call", "border", "negative zero point", "border of negative codes"],
)
def test_sums_are_exact(machine: str, text: str) -> None:
    target, graph = generic(machine), parse_graph(text)
    made = multiply_integers(graph, target)
    assert (summed(graph), summed(made)) == ("f32", "i32")
    given = drawn(graph)
    exact = parse_graph(text.replace("f32", "f64"))
    wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in given]
    (want,), (floats,), (got,) = run_graph(exact, wide), run_graph(graph, given), run_graph(made, given)
    most = 4 * np.finfo(np.float32).eps * np.abs(want).max()
    assert np.abs(got - want).max() <= min(most, np.abs(floats - want).max() + most / 8)
    split = hoist(sum_by_dots(made, target))
    program = fuse(split.main, target, split.prepare)
    np.testing.assert_allclose(run_program(program, given)[0], got, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("machine", "text"), [
    ("avx2", LINEAR.format(zero=ANY)), ("scalar", LINEAR.format(zero=CONSTANT)),
    ("avx2", LINEAR.format(zero=CONSTANT).replace("weight %values", "%values")),
    ("avx2", LINEAR.format(zero=CONSTANT.replace("121.0", "0.5"))),
    ("avx2", LINEAR.format(zero=CONSTANT).replace("%step: f32[]", "%step: f32[6,70]")),
    ("avx2", LINEAR.format(zero=CONSTANT.replace("121.0", "inf"))),
    ("avx2", LINEAR.format(zero=CONSTANT.replace("121.0", "-1.0"))),
    ("avx2", CONVOLUTION.replace("[2,8,9,7]", "[2,1040,9,7]").replace("[6,8,3,3]", "[6,520,3,3]")
     .replace("groups=1", "groups=2")),
], ids=["any zero point", "no dot products", "no weight", "no integer", "a step for each element", "infinite",
        "not among the codes", "sums beyond what f32 counts"])  # fmt: skip
def test_other_products_stay(machine: str, text: str) -> None:
    graph = parse_graph(text)
    assert multiply_integers(graph, generic(machine)) is graph
