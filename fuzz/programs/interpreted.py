"""A `torch.compile` backend that does all that effcc's does before its steps, and interprets what was imported.

Capture, gradients, stages, results that share memory, importers and sizes are what go wrong before a graph is there.
Interpreting it takes a hundredth of the time that compiling its C++ does, so that many more programs are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from effcc.backend import compile_captured, compile_traced, through_dynamo
from effcc.errors import EffccError
from effcc.faults import is_ours, reason_of
from effcc.frontend import capture
from effcc.frontend.extern import bind
from effcc.fuzz.eager import to_numpy, to_torch
from effcc.ir.dims import evaluate
from effcc.ir.graph import Graph, Node
from effcc.ir.interpreter import run_graph
from effcc.ir.interpreter.evaluate import Array, bind_sizes
from effcc.ir.program import Extern
from effcc.ir.types import TensorType
from effcc.runtime.executable import TORCH_DTYPES
from effcc.runtime.measure import host_target


def interpreting_backend(graph_module: fx.GraphModule, example_inputs: Sequence[Any], **_: Any) -> Callable[..., Any]:
    """What `torch.compile` calls with each graph that it traced."""
    try:
        return compile_traced(graph_module, example_inputs, _interpreting, _refuse)
    except EffccError as error:
        raise through_dynamo(error) from error


def interpret_captured(graph_module: fx.GraphModule) -> Callable[[list[Any]], Sequence[Any]]:
    """A graph of ATen operators whose tensors have known sizes, imported and interpreted: takes its inputs' values."""
    names = tuple(node.name for node in capture.placeholders(graph_module))
    laid = tuple(capture.strides(r) for r in capture.results(graph_module))
    signature = capture.Signature("inference", names, frozenset(), frozenset(), laid)
    run: Callable[[list[Any]], Sequence[Any]] = compile_captured(graph_module, signature, _interpreting, _refuse)
    return run


def _refuse(error: Exception, module: fx.GraphModule) -> str:
    if not is_ours(error, host_target()):
        raise error
    return reason_of(error, module.print_readable(print_output=False))


def _interpreting(
    graph: Graph, signature: capture.Signature, after: tuple[Extern, ...]
) -> Callable[..., Sequence[Tensor]]:
    def run(*inputs: Tensor) -> list[Tensor]:
        arrays = [to_numpy(t.resolve_neg()) for t in inputs]
        shapes = {p.name: (p.type.shape, a.shape) for p, a in zip(graph.params, arrays, strict=True)}
        sizes = bind_sizes(shapes, None)
        found = run_graph(graph, arrays, sizes, externs=lambda node, given: _called(node, given, sizes))
        count = len(graph.outputs)
        kept = {p for p, _ in graph.updates}
        for (parameter, _), array in zip(graph.updates, found[count:], strict=True):
            with torch.no_grad():
                inputs[graph.params.index(parameter)].copy_(to_torch(array))
        return [
            inputs[graph.params.index(v)] if v in graph.params and v not in kept else _laid(a, v.type, sizes)
            for v, a in zip(graph.outputs, found[:count], strict=True)
        ]

    return run


def _called(node: Node, arrays: Sequence[Array], sizes: Mapping[str, int]) -> list[Array]:
    """What PyTorch gives for an extern."""
    given = [_laid(a, o.type, sizes) for o, a in zip(node.operands, arrays, strict=True)]
    return [to_numpy(t) for t in bind(node)(given, sizes)]


def _laid(array: Array, type: TensorType, sizes: Mapping[str, int]) -> Tensor:
    """A new tensor that lies in memory as its type says."""
    strides = [int(evaluate(s, sizes)) for s in type.layout]
    held = torch.empty_strided(array.shape, strides, dtype=TORCH_DTYPES[type.dtype.name])
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in strides)  # of an axis whose elements are one
    held[once].copy_(to_torch(array)[once])
    return held
