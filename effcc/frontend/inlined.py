"""Regions that a model marks with `torch.compiler.nested_compile_region`, put in place where they are called.

Dynamo traces a marked layer once and calls it by name for every equal layer, with that layer's weights; that is what
marking saves. What follows sees one graph without calls, as if nothing were marked: fusion crosses layers' ends, and
all that searches Dynamo's graph for writes, draws or checks finds them. (Calls that stay until AOTAutograd is done save
its time, too: capturing 24 small Llama layers takes 8.9 s plain, 7.8 s so, 5.1 s then. But it copies results that share
memory with a region's inputs, and those searches would have to look into regions.)

Nobody marks layers unasked (`effcc.compile` might, where a list holds equal ones), for PyTorch 2.13 does not bear it:

- Where sizes vary, a second call of a region ends Dynamo with an internal error, `KeyError` in `stamp_out_subgraph`
  (`torch/_dynamo/variables/invoke_subgraph.py`): it looks up every lifted size as a symbol, numbers among them. By
  default sizes vary from a second call with another shape on.
- Only a class's function can be marked, which everybody else who uses the class sees: marking a layer's own bound
  method raises `AttributeError`.
- More than 8 different layers of a class raise `RuntimeError` instead of being traced apart, unless the marking says so
  (`max_reuse_entries`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg


def inline_regions(graph_module: fx.GraphModule) -> fx.GraphModule:
    """The graph with every call of a region replaced by the region's nodes, those of regions inside it, too."""
    calls = graph_module.graph.find_nodes(op="call_function", target=torch.ops.higher_order.invoke_subgraph)
    if not calls:
        return graph_module
    inlined: dict[str, fx.GraphModule] = {}
    for call in calls:
        name, operands = call.args[0].target, call.args[2:]
        if name not in inlined:
            inlined[name] = inline_regions(getattr(graph_module, name))
        with graph_module.graph.inserting_before(call):
            _replace(call, _copied(graph_module, name, inlined[name], operands))
    graph_module.graph.eliminate_dead_code(lambda node: node.op != "get_attr")  # all but the regions' names stay
    graph_module.recompile()
    return graph_module


def _copied(graph_module: fx.GraphModule, name: str, region: fx.GraphModule, operands: Sequence[Any]) -> Sequence[Any]:
    """Copies of a region's nodes where the graph is being written, and its results."""
    known: dict[fx.Node, Any] = dict(zip(region.graph.find_nodes(op="placeholder"), operands, strict=True))
    for node in region.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        known[node] = graph_module.graph.node_copy(node, known.__getitem__)
        if node.op == "get_attr":
            known[node].target = _held(graph_module, f"{name}_{node.target}", getattr(region, node.target))
    results = map_arg(region.graph.output_node().args[0], known.__getitem__)
    assert isinstance(results, Sequence)
    return results


def _held(graph_module: fx.GraphModule, name: str, value: Any) -> str:
    """The name by which a graph holds what a region held: a constant, or the body of a branch."""
    name = name.replace(".", "_")
    while getattr(graph_module, name, value) is not value:
        name += "_"
    setattr(graph_module, name, value)
    return name


def _replace(call: fx.Node, results: Sequence[Any]) -> None:
    """Have a call's results read where the region computes them."""
    for user in list(call.users):
        assert user.target is operator.getitem
        result: Any = results[user.args[1]]  # type: ignore[index]  # a number
        if isinstance(result, fx.Node):
            user.replace_all_uses_with(result)
        for reader in list(user.users):  # of a constant
            reader.args, reader.kwargs = map_arg((reader.args, reader.kwargs), _instead(user, result))
        call.graph.erase_node(user)
    call.graph.erase_node(call)


def _instead(one: fx.Node, result: Any) -> Callable[[fx.Node], Any]:
    return lambda node: result if node is one else node
