"""Products with sums of encodings: distributed over the terms, or of the decoded sum, with the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from effcc.ir.encodings import Storage, storage
from effcc.ir.graph import Graph
from effcc.ir.interpreter import run_graph
from effcc.ir.parser import encoding_of, parse_graph
from effcc.ir.verifier import verify_graph
from effcc.passes.encodings import distribute
from effcc.passes.hoist import hoist
from effcc.target import generic
from tests.ir.test_sums import SUMS

N, K = 8, 24
DENSE_SECONDS = "effcc.passes.encodings.sums.dense_seconds"


def linear(stored: Storage, rows: str, reader: str = "", shape: tuple[int, int] = (8, 24)) -> Graph:
    """A layer whose weight is a sum of encodings."""
    n, k = shape
    params = ", ".join(f"weight %c{i}: {c.type}" for i, c in enumerate(stored.components))
    operands = ", ".join(f"%c{i}" for i in range(len(stored.components)))
    return parse_graph(f"""
    graph @g(%x: f32[{rows},{k}], {params}, weight %b: f32[{n}]) {{
      %w = decode {operands} {{encoding=<{stored.encoding}>, dtype=f32, shape=[{n},{k}]}} : f32[{n},{k}]
      %y = linear %x, %w, %b : f32[{rows},{n}]
      {reader}
      return %y{", %z" if reader else ""}
    }}
    """)


def inputs(stored: Storage, rows: tuple[int, ...]) -> list[Any]:
    random = np.random.default_rng(0)
    x, w, b = (random.standard_normal(s).astype(np.float32) for s in ((*rows, K), (N, K), (N,)))
    return [x, *stored.encode(w), b]


@pytest.mark.parametrize("encoding", SUMS)
@pytest.mark.parametrize("rows", [(3,), (2, 3)])
def test_products_run_over_terms_and_factors(
    encoding: str, rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DENSE_SECONDS, lambda *_: float("inf"))
    stored = storage(encoding_of(encoding), (N, K))
    graph = linear(stored, ",".join(map(str, rows)))
    changed = distribute(graph, generic("avx512"))
    verify_graph(changed)
    assert not any(n.attrs["whole"] for n in changed.nodes if n.op == "decode")
    given = inputs(stored, rows)
    np.testing.assert_allclose(run_graph(changed, given)[0], run_graph(graph, given)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shape", "products"), [((256, 512), ["einsum", "einsum"]), ((4, 4), ["einsum", "linear"])])
def test_a_product_of_low_rank_multiplies_by_one_factor_after_the_other_where_that_is_quicker(
    shape: tuple[int, int], products: list[str]
) -> None:
    stored = storage(encoding_of("low_rank(2)"), shape)
    graph = linear(stored, "64", shape=shape)
    ops = [n.op for n in distribute(graph, generic("avx512")).nodes]
    assert [op for op in ops if op in ("einsum", "linear")] == products


@pytest.mark.parametrize("encoding", SUMS)
def test_other_readers_get_the_whole_matrix_made_once(encoding: str) -> None:
    stored = storage(encoding_of(encoding), (N, K))
    graph = linear(stored, "3", "%z = sum %w {axes=[0], keepdim=false} : f32[24]")
    changed = distribute(graph, generic("avx512"))
    verify_graph(changed)
    given = inputs(stored, (3,))
    for got, expected in zip(run_graph(changed, given), run_graph(graph, given), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    split = hoist(changed)
    assert split.prepare is not None
    assert all(n.attrs["whole"] for n in split.prepare.nodes if n.op == "decode")
    assert not any(n.attrs["whole"] for n in split.main.nodes if n.op == "decode")
