"""Random draws whose results nobody reads: they move the generator on, so later draws depend on them.

AOTAutograd drops what reaches no result. A dead call that draws is therefore made a further result of Dynamo's graph,
detached, so that it gets no gradient; whoever calls the graph leaves those results out.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode


def is_random(target: Any) -> bool:
    """Whether a call's target is an operator that draws from a generator."""
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags


def return_unread_draws(graph_module: fx.GraphModule) -> int:
    """Add results for the dead calls of Dynamo's graph that draw random numbers; how many were added.

    The graph is changed in place.
    """
    graph = graph_module.graph
    if any(map(_transforms, graph.nodes)):
        return 0  # values inside a function transform do not outlive it
    known: dict[Any, bool] = {}
    unread = [node for node in _dead(graph) if _draws_as_known(node, known)]
    if not unread:
        return 0
    end = graph.output_node()
    with graph.inserting_before(end):
        added = []
        for node in unread:
            detached = graph.call_method("detach", (node,))
            detached.meta = {**node.meta, "example_value": node.meta["example_value"].detach()}
            added.append(detached)
    returned: Any = end.args[0]
    end.args = ((*returned, *added),)
    graph_module.recompile()
    return len(added)


def _transforms(node: fx.Node) -> bool:
    """Whether a call enters, leaves or belongs to a function transform (`vmap`, `grad`)."""
    return "functorch" in (getattr(node.target, "__module__", None) or "")


def _dead(graph: fx.Graph) -> list[fx.Node]:
    """The calls with one tensor as their result that lead to no result of the graph, in order."""
    live = set(graph.output_node().all_input_nodes)
    for node in reversed(graph.nodes):
        if node in live:
            live.update(node.all_input_nodes)
    calls = ("call_function", "call_method", "call_module")
    return [
        n
        for n in graph.nodes
        if n.op in calls and n not in live and isinstance(n.meta.get("example_value"), FakeTensor)
    ]


class _Listening(TorchDispatchMode):
    """Notes whether an operator that draws was called."""

    supports_higher_order_operators = True
    heard = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.heard = self.heard or is_random(func)
        return func(*args, **(kwargs or {}))


def _draws_as_known(node: fx.Node, known: dict[Any, bool]) -> bool:
    """Whether a call draws; `known`: calls of the same on the same are asked once, as equal layers make many."""
    key = _call(node)
    if key is None:
        return _draws(node)
    if key not in known:
        known[key] = _draws(node)
    return known[key]


def _call(node: fx.Node) -> Any:
    """What is called on what, as far as that decides what a call does; None where that is not told here."""
    if node.op == "call_module":
        return None
    try:
        told = (node.op, node.target, _told(node.args), _told(node.kwargs))
        hash(told)
    except TypeError:
        return None
    return told


def _told(argument: Any) -> Any:
    """An argument by its type and value, a tensor by all that is known of one without its elements.

    Raises TypeError for what has no such form.
    """
    if isinstance(argument, fx.Node):
        argument = argument.meta.get("example_value")
    if isinstance(argument, FakeTensor) and argument.layout == torch.strided:
        sizes = tuple(map(str, (*argument.shape, *argument.stride())))
        return FakeTensor, sizes, argument.dtype, argument.device, argument.requires_grad
    if isinstance(argument, list | tuple):
        return type(argument), tuple(map(_told, argument))
    if isinstance(argument, slice):
        return slice, _told((argument.start, argument.stop, argument.step))
    if isinstance(argument, dict):
        return dict, tuple((key, _told(value)) for key, value in argument.items())
    if isinstance(argument, torch.SymInt | torch.SymFloat | torch.SymBool):
        return type(argument), str(argument)
    if isinstance(argument, torch.Tensor):
        raise TypeError("a tensor whose elements are known")
    return type(argument), argument


def _draws(node: fx.Node) -> bool:
    """Whether a call draws: it is made once more, on fake tensors."""

    def example(argument: fx.Node) -> Any:
        return argument.meta["example_value"]

    graph_module: Any = node.graph.owning_module
    if any("example_value" not in n.meta for n in node.all_input_nodes):
        return False
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), example)
    listening = _Listening()
    with ExitStack() as stack:
        fake = node.meta["example_value"].fake_mode
        stack.enter_context(fake)
        if fake.shape_env is not None:
            stack.enter_context(fake.shape_env.ignore_fresh_unbacked_symbols())
        stack.enter_context(torch.no_grad())
        stack.enter_context(listening)
        if node.op == "call_method":
            receiver, *rest = args
            getattr(receiver, str(node.target))(*rest, **kwargs)
        elif node.op == "call_module":
            graph_module.get_submodule(str(node.target))(*args, **kwargs)
        else:
            target: Any = node.target
            target(*args, **kwargs)
    return listening.heard
