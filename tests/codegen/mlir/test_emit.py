"""Graphs as linalg on tensors: MLIR's verifier accepts them, and its engine computes what the op table says."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.codegen.mlir.emit import emit_graph
from effcc.codegen.mlir.spelling import NO_SPELLING, spelling
from effcc.errors import UnsupportedError
from effcc.ir.dims import symbol
from effcc.ir.dtypes import DType, boolean, f32, f64, i64
from effcc.ir.encodings import storage
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.interpreter import run_graph
from effcc.ir.ops import TABLE
from effcc.ir.parser import encoding_of, parse_graph
from effcc.ir.scalars import FUNCTIONS
from effcc.ir.types import tensor
from tests.ir.op_samples import Sample, samples

pytest.importorskip("torch_mlir")
execute = pytest.importorskip("effcc.codegen.mlir.execute")

PLAIN = {f32, f64, i64, boolean}
REFUSED = {("not", f32), ("pow", i64)}


def graph_of(sample: Sample) -> Graph:
    builder = GraphBuilder("one")
    values = [builder.param(f"x{n}", t) for n, t in enumerate(sample.types)]
    return builder.build(builder.node(sample.op, *values, **sample.attrs).results)


def expressible(sample: Sample) -> bool:
    """Static sizes and dtypes that NumPy has, so that arrays can be handed over as they are."""
    types = [*sample.types, *(v.type for v in graph_of(sample).outputs)]
    return all(t.dtype in PLAIN and all(isinstance(d, int) and d > 0 for d in t.shape) for t in types)


FORMS = [name for name, op in TABLE.items() if op.form is not None and name != "decode"]


@pytest.mark.parametrize("name", FORMS)
def test_an_op_computes_its_reference(name: str) -> None:
    found = next((s for s in samples(name) if expressible(s)), None)
    if found is None:
        pytest.skip("no sample with fixed sizes and plain dtypes")
    graph, arrays = graph_of(found), found.arrays(0)
    try:
        text = emit_graph(graph)
    except UnsupportedError as error:
        assert any(word in str(error) for word in ("scans or scatters", "no spelling"))
        return
    execute.verify_module(text)
    for got, expected in zip(execute.run_module(text, graph, arrays), run_graph(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


def test_integers_that_mlir_knows_no_sign_of_keep_theirs() -> None:
    graph = parse_graph("""graph @g(%x: u8[4], %n: u8[4], %y: i8[4], %k: i8[4]) {
      %s = sign %x : u8[4]
      %i = cast %x {dtype=i8} : i8[4]
      %u = cast %y {dtype=u8} : u8[4]
      %a = shl %x, %n : u8[4]
      %b = shr %x, %n : u8[4]
      %c = shl %y, %k : i8[4]
      %d = shr %y, %k : i8[4]
      return %s, %i, %u, %a, %b, %c, %d
    }""")
    x, y, n = np.array([0, 1, 200, 255], np.uint8), np.array([-128, -1, 0, 9], np.int8), np.array([0, 7, 8, 100])
    arrays = [x, n.astype(np.uint8), y, n.astype(np.int8)]
    found = execute.run_module(emit_graph(graph), graph, arrays)
    for got, expected in zip(found, run_graph(graph, arrays), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_every_scalar_function_is_spelled_or_refused_with_a_reason() -> None:
    for name, function in FUNCTIONS.items():
        if name in ("where", "cast") or name in NO_SPELLING:
            continue
        operands = {"int": (i64,), "float": (f32,)}.get(function.domain, (i64, f32))
        assert all(spelling(name, d) for d in operands if (name, d) not in REFUSED)


@pytest.mark.parametrize(("name", "dtype"), [("not", f32), ("pow", i64)])
def test_what_mlir_cannot_lower_is_refused(name: str, dtype: DType) -> None:
    with pytest.raises(UnsupportedError, match="no spelling"):
        spelling(name, dtype)


def test_a_symbolic_size_is_refused_with_what_to_do() -> None:
    builder = GraphBuilder("dynamic")
    x = builder.param("x", tensor(f32, symbol("s0"), 4))
    with pytest.raises(UnsupportedError, match="fixed sizes"):
        emit_graph(builder.build((builder.emit("relu", x),)))


def test_a_sum_of_storages_is_refused_by_name() -> None:
    made = storage(encoding_of("low_rank(2)"), (8, 24))
    names = [f"%c{n}" for n in range(len(made.components))]
    params = ", ".join(f"{name}: {c.type}" for name, c in zip(names, made.components, strict=True))
    decode = f"decode {', '.join(names)} {{encoding=<{made.encoding}>, dtype=f32, shape=[8,24]}} : f32[8,24]"
    graph = parse_graph(f"graph @main({params}) {{\n  %w = {decode}\n  return %w\n}}")
    with pytest.raises(UnsupportedError, match="a sum is spelled out"):
        emit_graph(graph)


def test_plain_loads_become_operands_and_guarded_ones_are_extracted_under_their_guard() -> None:
    builder = GraphBuilder("padded")
    x = builder.param("x", tensor(f32, 4, 8))
    padded = builder.emit("pad", x, low=(0, 1), high=(0, 0), value=0.0)
    text = emit_graph(builder.build((builder.emit("exp", padded),)))
    assert "scf.if" in text and "tensor.extract" in text
    assert text.count("ins(") >= 1
