"""What models of the zoo are imported as. That it means what they mean: `tests/passes/test_simplify_models.py`."""

from __future__ import annotations

from benchmarks.models import TINY
from tests.frontend.import_checks import trace


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
