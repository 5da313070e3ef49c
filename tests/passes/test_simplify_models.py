"""Real models, small: imported, they mean what they mean in eager; simplified and hoisted, they compute what they
computed, as near to float64 as before. Most of the time goes to PyTorch, which captures each once for all of it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers")

from benchmarks.models import TINY
from effcc.ir.dtypes import f64
from effcc.ir.graph import Graph
from effcc.ir.interpreter import run_graph
from effcc.passes.hoist import hoist
from effcc.passes.simplify import simplify_counted
from tests.frontend.import_checks import assert_same, trace

EPS = float(np.finfo(np.float32).eps)


def inputs_for(graph: Graph) -> dict[str, np.ndarray]:
    """Ids are zeros and ones, numbers moderate, variances positive."""
    random = np.random.default_rng(0)
    values = {}
    for p in graph.params:
        shape = tuple(int(d) for d in p.type.shape)
        if p.type.dtype.is_float:
            value = random.standard_normal(shape) * 0.2
            values[p.name] = (np.abs(value) + 0.5 if "running_var" in p.name else value).astype(p.type.dtype.numpy)
        else:
            values[p.name] = random.integers(0, 2, shape).astype(p.type.dtype.numpy)
    return values


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_model_means_the_same_after_import_and_computes_the_same_when_simplified(name):
    traced = trace(TINY[name].build(), *TINY[name].inputs(0))
    assert "extern" not in traced.ops
    assert_same(traced.interpreted(), traced.eager(), 1e-4)

    graph = traced.imported.graph
    simple = simplify_counted(graph)
    split = hoist(simple.graph)
    assert simple.fired, "every model has something to simplify"
    assert len(split.main.nodes) < len(graph.nodes)

    values = inputs_for(graph)
    arrays = [values[p.name] for p in graph.params]
    before, exact = run_graph(graph, arrays), run_graph(graph, arrays, dtype=f64)
    if split.prepare is not None:
        outputs = run_graph(split.prepare, [values[p.name] for p in split.prepare.params])
        values.update(zip((v.name for v in split.prepare.outputs), outputs, strict=True))
    after = run_graph(split.main, [values[p.name] for p in split.main.params])
    for old, new, reference in zip(before, after, exact, strict=True):
        if old.dtype.kind in "biu":
            np.testing.assert_array_equal(new, old)
            continue
        assert np.isfinite(new).all()
        error, allowed = np.abs(new - reference), 4 * np.abs(old - reference).max() + 2 * EPS * np.abs(reference).max()
        assert error.max() <= allowed
