"""A compiled graph in AOTAutograd's calling convention: sizes, constants and tensors to their places and back.

PyTorch runs a call in two cases. Numbers among the arguments may be so large that what a program computes of them
leaves the 64 bits that kernels compute with (Python's integers have no end). And a model may address an input's memory
from the begin of its storage (`as_strided` with an offset), where the next input begins elsewhere.

`effcc.backend` is what torch.compile calls; it brings the compiler and this together.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from effcc.errors import UnsupportedError
from effcc.frontend import capture
from effcc.frontend.aten import Given, Imported
from effcc.frontend.readings import Reading
from effcc.ir.dims import evaluate_number, hinted, symbols
from effcc.ir.graph import Graph, Value

Run = Callable[..., Sequence[Tensor]]
CompileGraph = Callable[[Graph, capture.Signature], Run]


def bound(
    imported: Imported, compile_graph: CompileGraph, signature: capture.Signature, graph_module: fx.GraphModule
) -> Callable[..., Any]:
    """The compiled graph as AOTAutograd calls it: one list of the placeholders' values in, a tuple of results out.

    graph_module: what `imported` was made of.
    """
    with hinted(imported.hints):
        run = compile_graph(imported.graph, signature)
    reason, warn = _why_in_pytorch(imported), _once()
    tensors = [i for i, known in enumerate(imported.inputs) if isinstance(known, Value)]
    constants = tuple(imported.constants.values())
    lone = [_reading(imported, name) for name in imported.lone_sizes]
    returned = symbols(o for o in imported.outputs if isinstance(o, sympy.Expr))
    read = {s.name: _reading(imported, s.name) for s in returned}
    plain = all(isinstance(o, Value) for o in imported.outputs)
    truths = {k for k, node in enumerate(capture.results(graph_module)) if _is_truth(node)}
    handed_back = {o for o in imported.outputs if isinstance(o, Given)}

    def call_directly(arguments: list[Any]) -> tuple[Any, ...]:
        given = [arguments[i] for i in tensors]
        arguments.clear()
        return tuple(run(*given, *constants))

    def call(arguments: list[Any]) -> tuple[Any, ...]:
        elsewhere = reason(arguments) if reason is not None else ""
        if elsewhere:
            warn(elsewhere)
            return tuple(fx.Interpreter(graph_module).run(*arguments))
        given = [arguments[i] for i in tensors]
        carriers = [_CARRIER.expand(reading.value(arguments)) for reading in lone]
        values = {name: reading.value(arguments) for name, reading in read.items()}
        back = {o: arguments[o.position] for o in handed_back}
        arguments.clear()
        results = run(*given, *constants, *carriers)
        return tuple(results) if plain else _outputs(imported, results, values, back, truths)

    # Most graphs take tensors and give tensors; a small one's call is mostly such turns.
    chosen = call_directly if plain and reason is None and not lone and not read else call
    chosen._boxed_call = True  # type: ignore[attr-defined]
    return chosen


def given_to(imported: Imported, arguments: Sequence[Any]) -> list[Tensor]:
    """What the graph's parameters are in a call with these arguments, in their order."""
    tensors = [a for a, known in zip(arguments, imported.inputs, strict=True) if isinstance(known, Value)]
    lone = [_CARRIER.expand(_reading(imported, name).value(arguments)) for name in imported.lone_sizes]
    return [*tensors, *imported.constants.values(), *lone]


_CARRIER = torch.zeros(1, dtype=torch.bool)
"""What all carriers of sizes are: one element, as often as the size says."""


def _why_in_pytorch(imported: Imported) -> Callable[[list[Any]], str] | None:
    """Why PyTorch runs a call, from its arguments; empty where the compiled code does. None if that runs all calls."""
    limits, offsets = imported.limits(), list(imported.offsets.items())
    told = [_reading(imported, name) for name in limits.names]
    if not told and not offsets:
        return None

    def why(arguments: list[Any]) -> str:
        if told and not limits.hold([reading.value(arguments) for reading in told]):
            return "its numbers do not fit into 64 bits"
        if any(arguments[position].storage_offset() != begin for position, begin in offsets):
            return "an input that it addresses from its storage's begin (as_strided) begins elsewhere in it"
        return ""

    return why if told or offsets else lambda _: ""


def _once() -> Callable[[str], None]:
    """What warns of a reason for which PyTorch runs a call, once for each."""
    warned: set[str] = set()

    def warn(reason: str) -> None:
        if reason not in warned:
            warned.add(reason)
            warnings.warn(f"effcc: PyTorch runs a call because {reason}", stacklevel=3)

    return warn


def _reading(imported: Imported, name: str) -> Reading:
    """Where a call tells a symbol's value. Raises UnsupportedError where it does not."""
    found = imported.readings.get(name)
    if found is None:
        raise UnsupportedError(f"the size {name} is told by no argument: expected an axis or a number that is {name}")
    return found


def _outputs(
    imported: Imported,
    results: Sequence[Tensor],
    values: Mapping[str, int],
    back: Mapping[Given, Any],
    truths: Container[int],
) -> tuple[Any, ...]:
    """The captured graph's results: tensors in their places among sizes, truth values and constants."""
    left = iter(results)
    found: list[Any] = []
    for position, output in enumerate(imported.outputs):
        if isinstance(output, Value):
            found.append(next(left))
        elif isinstance(output, Given):
            found.append(back[output])
        else:
            known = evaluate_number(output, values) if isinstance(output, sympy.Expr) else output
            found.append(bool(known) if position in truths else known)
    return tuple(found)


def _is_truth(node: Any) -> bool:
    """Whether a result is a truth value that depends on sizes, which effcc computes as 1 or 0."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), torch.SymBool)
