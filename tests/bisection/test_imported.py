"""A call of PyTorch's that is imported as something else is named, before any step of the compiler is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import effcc.backend
import effcc.bisection.imported
from effcc.bisection.imported import blame_import
from effcc.bisection.watch import Found, Watch
from effcc.frontend.aten import import_graph


def test_a_call_that_is_imported_as_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*given: Any) -> Any:
        found = import_graph(*given)
        nodes = tuple(replace(n, op="exp") if n.op == "tanh" else n for n in found.graph.nodes)
        return replace(found, graph=replace(found.graph, nodes=nodes))

    monkeypatch.setattr(effcc.backend, "import_graph", wrong)
    monkeypatch.setattr(effcc.bisection.imported, "import_graph", wrong)
    watch = Watch(None, lambda _: None)
    effcc.backend.watch(watch)
    try:
        with pytest.raises(Found):
            torch.compile(lambda x: torch.tanh(x + 1).sum(), backend="effcc")(torch.randn(5))
    finally:
        effcc.backend.watch(None)
    assert watch.wrong is not None and watch.wrong.imported
    call = watch.wrong.call
    verdict, alone = blame_import(
        watch.wrong.program.module, watch.wrong.arguments, watch.wrong.program.options, call.generator, "sum"
    )
    assert "aten.tanh.default" in verdict.sentence
    assert "torch.tanh(x + 1).sum()" in verdict.location
    assert alone is not None
    assert [n.op for n in alone.call.case.graph.nodes] == ["exp"]
