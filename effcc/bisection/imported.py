"""Of a captured graph that was imported wrongly: the first call of PyTorch's whose import means something else.

Each call is imported alone, on what eager PyTorch gave it, and its graph interpreted beside what eager gives.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from effcc.bisection.call import Call
from effcc.bisection.verdict import Verdict
from effcc.driver import Options
from effcc.errors import EffccError
from effcc.frontend import capture
from effcc.frontend.aten import import_graph
from effcc.frontend.dynamo import given_to
from effcc.frontend.location import location
from effcc.fuzz.eager import to_numpy
from effcc.fuzz.expected import difference
from effcc.ir.graph import Value


@dataclass(frozen=True)
class Imported:
    """A call of PyTorch's alone: as a module, its inputs, and its graph called with them."""

    module: fx.GraphModule = field(repr=False)
    arguments: list[Any] = field(repr=False)
    call: Call = field(repr=False)


def blame_import(
    module: fx.GraphModule, arguments: Sequence[Any], options: Options, generator: Tensor, problem: str
) -> tuple[Verdict, Imported | None]:
    """The first call whose import is wrong, and that call alone; none where each is right by itself."""
    run = _Recording(module)
    before = torch.get_rng_state()
    torch.set_rng_state(generator)
    try:
        with torch.no_grad():
            run.run(*(a.clone() if isinstance(a, Tensor) else a for a in arguments))
    finally:
        torch.set_rng_state(before)
    for node in module.graph.nodes:
        if node.op != "call_function" or node not in run.given:
            continue
        found = _wrong_alone(node, run.given[node], run.results[node], options, generator)
        if found is not None:
            imported, wrong = found
            sentence = (
                f"the import of {node.target} (effcc/frontend) gives a graph that computes something else than PyTorch"
            )
            return Verdict("import", "import", sentence, wrong, location(node), before=imported.call.begun), imported
    sentence = "the imported graph computes something else than PyTorch, each of its calls alone is imported right"
    return Verdict("import", "import", sentence, problem), None


class _Recording(fx.Interpreter):
    """Runs a graph and keeps what each call was given (as it was then) and gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.given: dict[fx.Node, list[Any]] = {}
        self.results: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_function":
            self.given[n] = [_kept(self.env[i]) for i in n.all_input_nodes]
        result = super().run_node(n)
        if n.op == "call_function":
            self.results[n] = result
        return result


def _kept(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return type(value)(map(_kept, value)) if isinstance(value, list | tuple) else value


def _wrong_alone(
    node: fx.Node, given: list[Any], result: Any, options: Options, generator: Tensor
) -> tuple[Imported, str] | None:
    """How a call's graph is wrong beside what eager gave; None where it is right, or cannot be asked alone."""
    values = list(result) if isinstance(result, list | tuple) else [result]
    if any(isinstance(g, list | tuple) for g in given) or not any(isinstance(v, Tensor) for v in values):
        return None
    module = _alone(node)
    names = tuple(n.name for n in capture.placeholders(module))
    laid = tuple(capture.strides(r) for r in capture.results(module))
    signature = capture.Signature("inference", names, frozenset(), frozenset(), laid)
    try:
        imported = import_graph(module, signature)
        call = Call.of(imported.graph, given_to(imported, given), options, generator, "inference")
        wanted = [v for v in values if isinstance(v, Tensor)]
        pairs = zip(wanted, imported.outputs, strict=True)
        arrays = [to_numpy(v) for v, known in pairs if isinstance(known, Value)]
        problems = (difference(a, None, call.expected, k, is_eager=True) for k, a in enumerate(arrays))
        wrong = next(filter(None, problems), "")
    except (EffccError, ValueError, TypeError, KeyError):
        return None
    return (Imported(module, given, call), wrong) if wrong else None


def _alone(node: fx.Node) -> fx.GraphModule:
    """A module of one call."""
    graph = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for value in node.all_input_nodes:
        env[value] = graph.placeholder(value.name)
        env[value].meta = dict(value.meta)
    call = graph.node_copy(node, env.__getitem__)
    known = node.meta.get("val")
    if not isinstance(known, list | tuple):
        graph.output((call,))
        return fx.GraphModule(torch.nn.Module(), graph)
    results = []
    for number, value in enumerate(known):
        if isinstance(value, Tensor):
            part = graph.call_function(operator.getitem, (call, number))
            part.meta = {**node.meta, "val": value}
            results.append(part)
    graph.output(tuple(results))
    return fx.GraphModule(torch.nn.Module(), graph)
