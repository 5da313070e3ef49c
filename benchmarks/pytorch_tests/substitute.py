"""effcc in the place of PyTorch's backends, in this process.

Whatever calls `compile_fx`, Inductor by its name or by default, the backends "eager" and "aot_eager", Dynamo's counters
of graphs (which run what was captured) or `aot_module_simplified` as a test's own backend gets the backend chosen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch._dynamo.testing
import torch._inductor.compile_fx
from torch._dynamo.backends import registry
from torch._dynamo.backends.debugging import aot_eager

from effcc import backend as effcc
from effcc.driver import Compiled
from effcc.driver import compile_graph as plain_compile_graph

Backend = Callable[..., Any]
BACKENDS: dict[str, Backend] = {"effcc": effcc.effcc_backend, "aot_eager": aot_eager}
_REPLACED = ("inductor", "eager", "aot_eager", "aot_eager_decomp_partition")


@dataclasses.dataclass
class Seen:
    """How often the backend was called, and the operators that PyTorch runs for what effcc compiled."""

    graphs: int = 0
    externs: set[str] = dataclasses.field(default_factory=set)


_backend: Backend = effcc.effcc_backend
_seen = Seen()


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """With every such name standing for the backend chosen. Tests take the names over: import them inside of this."""

    def compile_graph(*args: Any, **kwargs: Any) -> Compiled:
        made = plain_compile_graph(*args, **kwargs)
        _seen.externs.update(str(call.attrs.get("target", call.op)) for call in made.executable.program.externs)
        return made

    for name in _REPLACED:
        registry.lookup_backend(name)
    with (
        patch.object(effcc, "compile_graph", compile_graph),
        patch.object(torch._inductor.compile_fx, "compile_fx", _compile),
        patch.dict(registry._COMPILER_FNS, dict.fromkeys(_REPLACED, _compile)),
        patch.object(torch._dynamo.testing.CompileCounter, "__call__", _count),
        patch.object(importlib.import_module("functorch.compile"), "aot_module_simplified", _compile),
    ):
        yield


@contextlib.contextmanager
def using(name: str) -> Iterator[Seen]:
    """With the backend of this name in place, and what is seen of it."""
    global _backend, _seen
    before = _backend, _seen
    _backend, _seen = BACKENDS[name], Seen()
    try:
        yield _seen
    finally:
        _backend, _seen = before


def _compile(graph_module: Any, example_inputs: Any, *args: Any, **kwargs: Any) -> Any:
    _seen.graphs += 1
    return _backend(graph_module, example_inputs)


def _count(counter: Any, graph_module: Any, example_inputs: Any) -> Any:
    counter.frame_count += 1
    counter.op_count += sum("call" in node.op for node in graph_module.graph.nodes)
    return _compile(graph_module, example_inputs)
