"""Weights that some reader needs whole: every level is put in its places, of which each lies inside the matrix."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.encodings import storage
from effcc.ir.encodings.registry import DECLARATIONS, declared
from effcc.ir.graph import Graph
from effcc.ir.interpreter import run_program
from effcc.ir.parser import encoding_of, parse_graph
from effcc.steps import State, run_steps
from effcc.target import generic

N, K = 8, 24


def rows_of_columns(encoding: str, count: int = 0, result: str = "f32[3,24]") -> Graph:
    """Rows times the matrix itself, not its transpose, which is returned, too."""
    made = storage(encoding_of(encoding), (N, K), count=count)
    names = [f"%c{i}" for i in range(len(made.components))]
    params = ", ".join(f"{name}: {c.type}" for name, c in zip(names, made.components, strict=True))
    return parse_graph(f"""
    graph @g(%x: f32[3,{N}], {params}) {{
      %w = decode {", ".join(names)} {{encoding=<{made.encoding}>, dtype=f32, shape=[{N},{K}]}} : {result}
      %y = matmul %x, %w : f32[3,{K}]
      return %y, %w
    }}
    """)


@pytest.mark.parametrize(
    "level", [e for d in DECLARATIONS.values() if d.kind == "level" and d.name != "dense" for e in d.samples]
)
def test_every_level_is_decoded_whole(level: str) -> None:
    scheme = encoding_of(level).terms[0][0]
    kept = declared(scheme.name).kept
    count = 0 if kept is None else kept((N, K), 0.5, **declared(scheme.name).given(scheme))
    graph = rows_of_columns(level, count, f"f32[{N},{K}]")
    program = run_steps(State(graph=graph), generic("avx2"), until="settle").program
    assert program is not None
    random = np.random.default_rng(0)
    x, dense = (random.standard_normal(s).astype(np.float32) for s in ((3, N), (N, K)))
    made = storage(encoding_of(level), (N, K), count=count)
    arrays = made.encode(dense)
    y, w = run_program(program, [x, *arrays])
    np.testing.assert_array_equal(w, made.decode(arrays))
    np.testing.assert_allclose(y, x @ w, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoding", ["outliers(2) + int8", "low_rank(2)", "monarch(2) + int4"])
def test_a_sum_is_stored_as_the_graph_says(encoding: str) -> None:
    """Callers of an output go by its strides."""
    graph = rows_of_columns(encoding, result=f"f32[{N},{K}]{{1,{N}}}")
    state = run_steps(State(graph=graph), generic("avx2"), until="settle")
    assert state.program is not None
    assert state.program.buffer(state.program.outputs[1]).type.layout == (1, N)
