"""`torch.compile(model, backend="effcc")`: what PyTorch calls with each graph that it traced.

    torch.compile(model, backend="effcc", options={"target": "avx2"})

The entry point group `torch_dynamo_backends` names `effcc_backend`, so nothing need be imported. A model that needs
gradients is split by AOTAutograd; its forward and backward halves are compiled alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from effcc.errors import UnknownNameError
from effcc.frontend import capture
from effcc.frontend.aten import Imported, import_graph
from effcc.frontend.extern import bind
from effcc.frontend.recurrent import let_recurrent_layers_through
from effcc.ir.dims import Dim, evaluate
from effcc.ir.graph import Graph, Value
from effcc.target import Target

OPTIONS = ("target",)
MODES = ("default",)

Run = Callable[..., Sequence[Tensor]]
CompileGraph = Callable[[Graph, capture.Signature], Run]

let_recurrent_layers_through()


def effcc_backend(
    graph_module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile one graph of Dynamo's.

    Raises UnknownNameError for an option or a mode that does not exist, and whatever compilation raises.
    """
    from effcc.driver import Options, compile_graph

    given = dict(options or {})
    for name in given:
        if name not in OPTIONS:
            raise UnknownNameError("option", name, OPTIONS)
    if mode is not None and mode not in MODES:
        raise UnknownNameError("mode", mode, MODES)
    target = given.get("target")
    target = Target.parse(target) if isinstance(target, str) else target

    def compile_one(graph: Graph, signature: capture.Signature) -> Run:
        return compile_graph(graph, Options(target, always_prepare=signature.role != "inference"), bind)

    def compile_fx(module: fx.GraphModule, inputs: Sequence[Any], signature: capture.Signature) -> Callable[..., Any]:
        return bound(import_graph(module, signature), compile_one, signature)

    return capture.aot_backend(graph_module, example_inputs, compile_fx)


def bound(imported: Imported, compile_graph: CompileGraph, signature: capture.Signature) -> Callable[..., Any]:
    """The compiled graph as AOTAutograd calls it: one list of the placeholders' values in, a tuple of results out."""
    run = compile_graph(imported.graph, signature)
    tensors = [i for i, known in enumerate(imported.inputs) if isinstance(known, Value)]
    constants = tuple(imported.constants.values())
    plain = not imported.lone_sizes and all(isinstance(o, Value) for o in imported.outputs)

    def call(arguments: list[Any]) -> tuple[Any, ...]:
        given = [arguments[i] for i in tensors]
        symbols = {} if plain else read_sizes(imported, arguments)
        arguments.clear()
        lone = [torch.empty(1, dtype=torch.bool).expand(symbols[name]) for name in imported.lone_sizes]
        results = run(*given, *constants, *lone)
        return tuple(results) if plain else _outputs(imported, results, symbols)

    call._boxed_call = True  # type: ignore[attr-defined]
    return call


def read_sizes(imported: Imported, arguments: Sequence[Any]) -> dict[str, int]:
    """The value of each size symbol, from the values of the placeholders."""
    found: dict[str, int] = {}
    for known, argument in zip(imported.inputs, arguments, strict=True):
        pairs: list[tuple[Dim, Any]] = []
        if isinstance(known, Value):
            pairs = list(zip(known.type.shape, argument.shape, strict=True))
        elif known is not None:
            pairs = [(known, argument)]
        found.update((size.name, int(n)) for size, n in pairs if isinstance(size, sympy.Symbol))
    return found


def _outputs(imported: Imported, results: Sequence[Tensor], symbols: Mapping[str, int]) -> tuple[Any, ...]:
    """The captured graph's results: tensors in their places among sizes and constants."""
    left = iter(results)
    found: list[Any] = []
    for output in imported.outputs:
        if isinstance(output, Value):
            found.append(next(left))
        else:
            found.append(evaluate(output, symbols) if isinstance(output, sympy.Expr) else output)
    return tuple(found)
