"""Products of bytes take the form that a machine has dot products of, and stay the same integers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.ir.dtypes import DType, b8, i7, i8, i16, u7, u8
from effcc.ir.graph import Graph
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_schedule
from effcc.ir.program import Program
from effcc.ir.verifier import verify_vectors
from effcc.passes.fusion import fuse
from effcc.passes.hoist import hoist
from effcc.passes.integers import sum_by_dots
from effcc.passes.tiling.choose import choose
from effcc.target import Target, generic

PRODUCT = """
    graph @main(%x: {x}[6,70], weight %w: {w}[20,70]) {{
      %a = cast %x {{dtype=i32}} : i32[6,70]
      %b = cast %w {{dtype=i32}} : i32[20,70]
      %y = linear %a, %b : i32[6,20]
      return %y
    }}
"""
FORMS = [
    ("avx512_vnni", "i8", "i8", (u8, i8)), ("avx2_vnni", "u8", "i8", (u8, i8)), ("avx512_vnni", "i8", "u8", (i8, u8)),
    ("avx512_vnni", "u8", "u8", (i16, i16)), ("avx2", "i8", "i8", (i16, i16)), ("avx512", "u8", "i8", (i16, i16)),
    ("scalar", "i8", "i8", (i8, i8)),
]  # fmt: skip


CLAMPED = """
    graph @main(%x: f32[6,70], weight %w: i8[20,70]) {{
      %least = constant {{value={least}, dtype=f32, shape=[]}} : f32[]
      %most = constant {{value={most}, dtype=f32, shape=[]}} : f32[]
      %up = maximum %x, %least : f32[6,70]
      %cut = minimum %up, %most : f32[6,70]
      %near = round %cut : f32[6,70]
      %bytes = cast %near {{dtype={x}}} : {x}[6,70]
      %a = cast %bytes {{dtype=i32}} : i32[6,70]
      %b = cast %w {{dtype=i32}} : i32[20,70]
      %y = linear %a, %b : i32[6,20]
      return %y
    }}
"""


REDUCED = """
    graph @main(%x: {x}[6,70], weight %w: i8[20,70]) {{
      %least = constant {{value={least}, dtype=i8, shape=[]}} : i8[]
      %most = constant {{value={most}, dtype=i8, shape=[]}} : i8[]
      %up = maximum %w, %least : i8[20,70]
      %cut = minimum %up, %most : i8[20,70]
      %a = cast %x {{dtype=i32}} : i32[6,70]
      %b = cast %cut {{dtype=i32}} : i32[20,70]
      %y = linear %a, %b : i32[6,20]
      return %y
    }}
"""


def product(machine: str, x: str, w: str) -> tuple[Kernel, list[np.ndarray], list[np.ndarray]]:
    """The kernel that multiplies, and what graph and program give."""
    graph = parse_graph(PRODUCT.format(x=x, w=w))
    split = hoist(sum_by_dots(graph, generic(machine)))
    program = fuse(split.main, generic(machine), split.prepare)
    random = np.random.default_rng(0)
    drawn = [np.iinfo(p.type.dtype.numpy) for p in graph.params]
    given = [random.integers(d.min, d.max + 1, p.type.shape, d.dtype) for d, p in zip(drawn, graph.params, strict=True)]
    (kernel,) = (k for k in program.kernels.values() if any("linear" in s.target for s in k.statements))
    return kernel, run_graph(graph, given), run_program(program, given)


@pytest.mark.parametrize(("machine", "x", "w", "form"), FORMS)
def test_factors_are_what_the_machine_multiplies(machine: str, x: str, w: str, form: tuple) -> None:
    kernel, want, got = product(machine, x, w)
    np.testing.assert_array_equal(got[0], want[0])
    held = {p.name: p.type.dtype for p in kernel.params}
    (total,) = (s.reduction for s in kernel.statements if s.reduction is not None)
    assert tuple(held[load.buffer] for load in dict.fromkeys(e for e in kernel.statements[0].reads)) == form
    assert total.dtype.name == "i32"


@pytest.mark.parametrize("machine", ["avx512_vnni", "avx2", "avx2_vnni", "amx"])
def test_such_products_are_packed(machine: str) -> None:
    kernel, _, _ = product(machine, "i8", "i8")
    kernel, schedule = choose(kernel, generic(machine))
    verify_vectors(vectorize(lower(kernel, schedule), generic(machine)))
    assert "packed" in print_schedule(kernel.name, schedule)
    assert schedule.packs[0].group == (2 if machine == "avx2" else 4)


def test_products_of_what_is_computed_stay_as_they_are() -> None:
    graph = parse_graph(PRODUCT.format(x="i8", w="i8").replace("weight %w", "%w"))
    assert [n.op for n in sum_by_dots(graph, generic("avx512_vnni")).nodes] == [n.op for n in graph.nodes]


@pytest.mark.parametrize(("machine", "lanes"), [("avx512_vnni", 16), ("avx2_vnni", 8), ("avx2", 8)])
def test_a_load_serves_more_than_one_dot_product(machine: str, lanes: int) -> None:
    graph = parse_graph(PRODUCT.replace("6", "128").replace("70", "768").replace("20", "768").format(x="i8", w="i8"))
    split = hoist(sum_by_dots(graph, generic(machine)))
    kernels = fuse(split.main, generic(machine), split.prepare).kernels.values()
    (kernel,) = (k for k in kernels if any("linear" in s.target for s in k.statements))
    _, schedule = choose(kernel, generic(machine))
    rows, columns = re.search(r"tile (\d+)x(\d+)", " ".join(schedule.notes)).groups()  # type: ignore[union-attr]
    assert int(columns) >= 2 * lanes and int(rows) * int(columns) >= 8 * lanes


def summed_by_dots(graph: Graph, target: Target) -> Program:
    split = hoist(sum_by_dots(graph, target))
    return fuse(split.main, target, split.prepare)


@pytest.mark.parametrize(("machine", "x", "least", "most", "rows"), [
    ("avx2", "i8", -63.0, 63.0, u7), ("avx512", "i8", -100.0, 27.0, u7), ("avx2", "i8", -64.0, 64.0, b8),
    ("avx2", "i8", -127.0, 127.0, b8), ("avx2", "u8", 1.0, 255.0, i16), ("avx512", "i8", -127.0, 127.0, i16),
    ("avx2", "u8", 0.0, 127.0, u7), ("avx2", "u8", 3.0, 254.0, b8), ("avx2", "i8", -127.0, 0.4, u7),
    ("avx2_vnni", "i8", -63.0, 63.0, u8), ("scalar", "i8", -63.0, 63.0, i8),
])  # fmt: skip
def test_rows_in_a_small_range_are_summed_four_by_four(
    machine: str, x: str, least: float, most: float, rows: DType
) -> None:
    target = generic(machine)
    graph = parse_graph(CLAMPED.format(x=x, least=least, most=most))
    program = summed_by_dots(graph, target)
    random = np.random.default_rng(0)
    w = random.choice([-128, 127, 5], (20, 70)).astype(np.int8)
    given = [random.choice([-200.0, -3.0, 200.0], (6, 70)).astype(np.float32), w]
    np.testing.assert_array_equal(run_program(program, given)[0], run_graph(graph, given)[0])
    (kernel,) = (k for k in program.kernels.values() if any("linear" in s.target for s in k.statements))
    assert kernel.params[0].type.dtype == rows
    kernel, schedule = choose(kernel, target)
    verify_vectors(vectorize(lower(kernel, schedule), target))
    assert schedule.packs[0].group == (1 if machine == "scalar" else 2 if rows == i16 else 4)


@pytest.mark.parametrize(("machine", "x", "least", "most", "form"), [
    ("avx2", "i8", -64, 63, (u8, i7)), ("avx2", "u8", -63, 63, (u8, i7)), ("avx512", "i8", -63, 63, (u8, i7)),
    ("avx2", "i8", -64, 64, (i16, i16)), ("avx2_vnni", "i8", -63, 63, (u8, i8)), ("scalar", "i8", -63, 63, (i8, i8)),
])  # fmt: skip
def test_weights_in_a_small_range_are_summed_four_by_four(
    machine: str, x: str, least: int, most: int, form: tuple[DType, DType]
) -> None:
    target = generic(machine)
    graph = parse_graph(REDUCED.format(x=x, least=least, most=most))
    program = summed_by_dots(graph, target)
    random = np.random.default_rng(0)
    bounds = np.iinfo(graph.params[0].type.dtype.numpy)
    given = [random.choice([bounds.min, bounds.max], (6, 70)), random.choice([-128, 127, 5], (20, 70))]
    given = [a.astype(p.type.dtype.numpy) for a, p in zip(given, graph.params, strict=True)]
    np.testing.assert_array_equal(run_program(program, given)[0], run_graph(graph, given)[0])
    (kernel,) = (k for k in program.kernels.values() if any("linear" in s.target for s in k.statements))
    held = {p.name: p.type.dtype for p in kernel.params}
    assert tuple(held[load.buffer] for load in dict.fromkeys(kernel.statements[0].reads)) == form
    kernel, schedule = choose(kernel, target)
    verify_vectors(vectorize(lower(kernel, schedule), target))
    assert schedule.packs[0].group == (1 if machine == "scalar" else 2 if form == (i16, i16) else 4)


def test_nodes_of_several_results_are_no_products() -> None:
    graph = parse_graph("""
    graph @g(%x: f32[5,2,1], %h: f32[2,3], %w: f32[3,1], %u: f32[3,3]) {
      %y, %last = rnn %x, %h, %w, %u {reverse=false} : f32[5,2,3], f32[2,3]
      return %y, %last
    }""")
    assert sum_by_dots(graph, generic("avx512")) is graph


def test_rows_of_another_shape_are_bytes_too() -> None:
    """Layers quantize what has more axes than a matrix, which `torch._int_mm` wants."""
    graph = parse_graph("""
        graph @main(%x: i8[30,70], weight %w: i8[20,70]) {
          %wide = cast %x {dtype=i32} : i32[30,70]
          %zero = constant {value=3, dtype=i32, shape=[]} : i32[]
          %centred = sub %wide, %zero : i32[30,70]
          %a = reshape %centred {shape=[5,6,70]} : i32[5,6,70]
          %b = cast %w {dtype=i32} : i32[20,70]
          %y = linear %a, %b : i32[5,6,20]
          return %y
        }
    """)
    made = sum_by_dots(graph, generic("avx512_vnni"))
    random = np.random.default_rng(0)
    given = [random.integers(-128, 128, p.type.shape, np.int8) for p in graph.params]
    np.testing.assert_array_equal(run_graph(made, given)[0], run_graph(graph, given)[0])
    (product,) = (n for n in made.nodes if n.op == "linear")
    wide = made.producers()[product.operands[0]]
    assert (wide.op, wide.operands[0].type.dtype) == ("cast", u8)
