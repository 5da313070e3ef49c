"""Models of the zoo, imported and interpreted, say what the captured graph says in eager."""

from __future__ import annotations

import pytest

from benchmarks.models import TINY
from tests.frontend.import_checks import assert_same, trace


@pytest.mark.parametrize("name", list(TINY))
def test_a_model_means_the_same_after_import(name: str) -> None:
    traced = trace(TINY[name].build(), *TINY[name].inputs(0))
    assert "extern" not in traced.ops
    assert_same(traced.interpreted(), traced.eager(), 1e-4)


def test_attention_keeps_its_axes_apart() -> None:
    traced = trace(TINY["minilm"].build(), *TINY["minilm"].inputs(0))
    ranks = {n.result.type.rank for n in traced.imported.graph.nodes if n.op == "matmul"}
    assert ranks == {4}
    ranks = {n.result.type.rank for n in traced.imported.graph.nodes if n.op == "linear"}
    assert ranks == {3}


def test_a_cache_that_a_model_writes_is_an_update() -> None:
    traced = trace(TINY["llama_decode"].build(), *TINY["llama_decode"].inputs(0))
    updated = [p.name for p, _ in traced.imported.graph.updates]
    assert updated == ["keys_0", "values_0", "keys_1", "values_1"]
