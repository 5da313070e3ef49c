"""A compiled graph in AOTAutograd's calling convention: sizes, constants and tensors to their places and back.

`effcc.backend` is what torch.compile calls; it brings the compiler and this together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor

from effcc.frontend import capture
from effcc.frontend.aten import Imported
from effcc.ir.dims import Dim, evaluate
from effcc.ir.graph import Graph, Value

Run = Callable[..., Sequence[Tensor]]
CompileGraph = Callable[[Graph, capture.Signature], Run]


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
