"""Encodings in the types of parameters: components and a decode, or an error that says what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.errors import EncodingError, UnknownNameError
from effcc.ir.encodings import storage
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import encoding_of, parse_graph
from effcc.ir.verifier import verify_graph
from effcc.passes.encodings import spell_out_encodings


def linear(encoding: str, rows: int = 8) -> str:
    return f"""
    graph @g(%x: f32[3,6], weight %w: f32[{rows},6]{encoding}, weight %w_scale: f32[{rows}]) {{
      %y = linear %x, %w, %w_scale : f32[3,{rows}]
      return %y
    }}
    """


def test_a_stored_parameter_becomes_its_components() -> None:
    graph = spell_out_encodings(parse_graph(linear(" = block(4,1) . int8")))
    verify_graph(graph)
    assert [p.name for p in graph.params] == ["x", "w_columns", "w_values", "w_scale_1", "w_scale"]
    assert graph.weights == {"w_columns", "w_values", "w_scale_1", "w_scale"}
    random = np.random.default_rng(0)
    x, w, b = (random.standard_normal(s).astype(np.float32) for s in ((3, 6), (8, 6), (8,)))
    stored = storage(encoding_of("block(4,1) . int8"), (8, 6))
    parts = stored.encode(w)
    (y,) = run_graph(graph, [x, *parts, b])
    np.testing.assert_allclose(y, x @ stored.decode(parts).T + b, rtol=1e-5, atol=1e-6)


def test_dense_graphs_stay_as_they_are() -> None:
    graph = parse_graph(linear(""))
    assert spell_out_encodings(graph) is graph


def test_an_encoding_that_does_not_fit_is_refused_with_the_parameter() -> None:
    with pytest.raises(EncodingError, match=r"graph @g: %w: block\(4,1\) needs rows in multiples of 4"):
        spell_out_encodings(parse_graph(linear(" = block(4,1)", rows=9)))
    with pytest.raises(UnknownNameError, match="unknown encoding scheme 'int9'; did you mean 'int8'"):
        spell_out_encodings(parse_graph(linear(" = int9")))


def test_a_stored_parameter_cannot_be_updated_or_of_unknown_size() -> None:
    updated = "graph @g(%w: f32[4,6] = int8, %x: f32[4,6]) {\n  update %w, %x\n  return %x\n}"
    with pytest.raises(EncodingError, match="%w is stored as int8 and updated"):
        spell_out_encodings(parse_graph(updated))
    dynamic = "graph @g(%w: f32[s0,6] = int8) {\n  %y = relu %w : f32[s0,6]\n  return %y\n}"
    with pytest.raises(EncodingError, match="known sizes"):
        spell_out_encodings(parse_graph(dynamic))
