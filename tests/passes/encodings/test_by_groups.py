"""Products of bytes with grouped integers: which are summed in integers, by which dot products, and what they give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.ir.dtypes import b8, f32, i7, i8, u7, u8
from effcc.ir.encodings import storage
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import encoding_of
from effcc.ir.printer import print_schedule
from effcc.ir.program import Launch
from effcc.ir.types import TensorType
from effcc.ir.verifier import verify_schedule, verify_vectors
from effcc.passes.encodings import sum_by_groups
from effcc.passes.fusion import fuse
from effcc.passes.hoist import hoist
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.written import bounds
from effcc.target import Target, generic

SCHEMES = [
    "int4(group=16)", "int8(group=16)", "int3", 'int5(per="tensor")', "int4(group=32,zero=true)", "ternary(group=16)",
    'int4(group=16,minimum=true)', 'int6(group=16,scale="i8",super=32)', "binary", "pow2(bits=4,group=16)",
]  # fmt: skip
FORMS = [
    ("avx512_vnni", "i8", "int8(group=16)", (u8, i8)), ("avx512_vnni", "u8", "int4(group=16)", (u8, i7)),
    ("avx2", "i8", "int4(group=16)", (u8, i7)), ("avx512", "u8", "int7(group=16)", (u8, i7)),
]  # fmt: skip


def product(scheme: str, x: str = "i8", zero: int = 0, rows: int = 64) -> tuple[Graph, list[Any]]:
    """`linear` of bytes, their zero point taken away, with a stored weight and a bias, and arguments for it."""
    random = np.random.default_rng(0)
    made = storage(encoding_of(scheme), (96, 64), f32)
    arrays = made.encode(random.standard_normal((96, 64)).astype(np.float32))
    b = GraphBuilder("main")
    dtype = {"i8": i8, "u8": u8}[x]
    given = b.param("x", TensorType(dtype, (2, rows // 2, 64)))
    parts = [b.param(c.name, c.type, weight=True) for c in made.components]
    bias = b.param("bias", TensorType(f32, (96,)), weight=True)
    weight = b.emit("decode", *parts, encoding=made.encoding, dtype=f32, shape=(96, 64))
    wide = b.emit("cast", given, dtype=f32)
    if zero:
        wide = b.emit("sub", wide, b.emit("constant", value=float(zero), dtype=f32, shape=()))
    limits = np.iinfo(dtype.numpy)
    bytes_ = random.integers(limits.min, limits.max + 1, (2, rows // 2, 64), dtype.numpy)
    return b.build((b.emit("linear", wide, weight, bias),)), [bytes_, *arrays, np.float32(random.standard_normal(96))]


def summed(graph: Graph, target: Target) -> list[tuple[Any, Any]]:
    """The dtypes of what the integer products of a graph multiply."""
    producers = graph.producers()
    products = [n for n in graph.nodes if n.op == "einsum"]
    return [tuple(producers[o].operands[0].type.dtype for o in n.operands) for n in products]  # type: ignore[misc]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("x", "zero"), [("i8", 0), ("u8", 3)])
def test_such_products_are_the_products(scheme: str, x: str, zero: int) -> None:
    graph, given = product(scheme, x, zero)
    made, choices = sum_by_groups(graph, generic("avx512_vnni"))
    assert len(summed(made, generic("avx512_vnni"))) == len(choices) == 1
    (want,), (got,) = run_graph(graph, given), run_graph(made, given)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize(("machine", "x", "scheme", "form"), FORMS)
def test_factors_are_what_the_machine_multiplies(machine: str, x: str, scheme: str, form: tuple[Any, Any]) -> None:
    made, _ = sum_by_groups(product(scheme, x)[0], generic(machine))
    assert summed(made, generic(machine)) == [form]


@pytest.mark.parametrize(
    ("scheme", "machine"), [("nf4", "avx512_vnni"), ("int8(group=48)", "avx512_vnni"), ("int4", "scalar")]
)
def test_others_stay_as_they_are(scheme: str, machine: str) -> None:
    graph, _ = product(scheme)
    assert sum_by_groups(graph, generic(machine))[0] is graph


def test_bytes_without_dot_products_of_the_machine_stay_unless_they_are_small() -> None:
    graph, _ = product("int8(group=16)")
    assert sum_by_groups(graph, generic("avx2"))[0] is graph


def test_one_row_stays_as_it_is() -> None:
    graph, _ = product("int4(group=16)", rows=2)
    one = replace(graph, params=graph.params)
    assert sum_by_groups(one, generic("scalar"))[0] is one


@pytest.mark.parametrize("machine", ["avx512_vnni", "avx2"])
def test_all_of_a_group_is_summed_in_registers(machine: str) -> None:
    """Product, scales and what follows are one kernel, whose sums of a group no memory sees."""
    graph, _ = product("int4(group=16,minimum=true)")
    target = generic(machine)
    split = hoist(sum_by_groups(graph, target)[0])
    program = fuse(split.main, target, split.prepare)
    kernels = [program.kernels[s.kernel] for s in program.steps if isinstance(s, Launch)]
    (kernel,) = (k for k in kernels if any("einsum" in s.target for s in k.statements))
    reading, schedule = choose(kernel, target)
    text = print_schedule(kernel.name, schedule)
    assert "in local" not in text and text.count("hold einsum in registers") == 1 and "by 4 packed" in text
    verify_schedule(kernel, schedule, bounds(target))
    verify_vectors(vectorize(lower(reading, schedule), target))


def bounded(graph: Graph, op: str, bound: int) -> Graph:
    """The product of rows that `op` with a bound has cut."""
    x = graph.params[0]
    b = GraphBuilder("main")
    for p in graph.params:
        b.adopt(p, p.name in graph.weights)
    cut = b.emit(op, x, b.emit("cast", b.emit("constant", value=bound, dtype=i8, shape=()), dtype=x.type.dtype))
    for node in graph.nodes:
        b.append(replace(node, operands=tuple(cut if o is x else o for o in node.operands)))
    return b.build(graph.outputs)


def test_a_row_around_zero_takes_signed_bytes_on_avx2() -> None:
    graph, given = product("int8(group=16)", "i8")
    small = bounded(graph, "maximum", -127)
    made, _ = sum_by_groups(small, generic("avx2"))
    assert summed(made, generic("avx2")) == [(b8, i8)]
    (want,), (got,) = run_graph(small, given), run_graph(made, given)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max())


def test_a_small_unsigned_row_takes_bytes_on_every_machine() -> None:
    graph, given = product("int8(group=16)", "u8")
    small = bounded(graph, "minimum", 127)
    made, _ = sum_by_groups(small, generic("avx2"))
    assert summed(made, generic("avx2")) == [(u7, i8)]
    (want,), (got,) = run_graph(small, given), run_graph(made, given)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max())
