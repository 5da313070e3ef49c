"""Graphs with sizes that depend on data (`nonzero`, `x[x > 0]`, `item`): stages between the calls that give them.

PyTorch runs those calls. What needs none of their results is one graph; what needs the results of one call is another,
in which the new size is a symbol as an input's size is; and so on. Each stage is compiled as a graph of its own.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from effcc.frontend.capture import Signature, mutated_inputs, placeholders, results, strides
from effcc.frontend.draws import is_random
from effcc.frontend.importer import aten

CompileWhole = Callable[[fx.GraphModule, Signature, Sequence[fx.Node]], Callable[..., Any]]
"""A graph, its signature and the calls that PyTorch runs after it, to a callable over one list of its inputs."""


def compile_in_stages(
    graph_module: fx.GraphModule, signature: Signature, compile_whole: CompileWhole
) -> Callable[..., Any]:
    """A captured graph as a callable in AOTAutograd's convention; one stage where no size depends on data."""
    if not _new_sizes(graph_module):
        return compile_whole(graph_module, signature, ())
    split = _Split(graph_module)
    steps: list[_Step] = []
    for level in range(split.last + 1):
        stage = split.stage(level, signature)
        between = [n for n in split.between if split.levels[n] == level]
        if stage.outputs or level == split.last or not steps:
            called = [n for n in between if isinstance(n.target, torch._ops.OpOverload)]
            run = compile_whole(stage.graph_module, stage.signature, called)
            steps.append(_Compiled(run, stage.inputs, stage.outputs))
        steps += [_Call(node) for node in between]
    return _runner(placeholders(graph_module), steps, results(graph_module))


@dataclasses.dataclass(frozen=True)
class _Stage:
    """A part of a graph as a graph: where its inputs come from and what its results are in the whole."""

    graph_module: fx.GraphModule
    signature: Signature
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]


class _Split:
    """The level of every node: how many calls whose sizes depend on data it has to wait for.

    between: the calls that PyTorch runs; one of level k runs after stage k. last: the last level that any node has.
    Random draws keep their order, and inputs are written in the last stage.
    """

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module = graph_module
        self.levels: dict[fx.Node, int] = {}
        self.between: dict[fx.Node, None] = {}
        drawn = 0
        writes = []
        giving = _new_sizes(graph_module)
        for node in graph_module.graph.nodes:
            if node.op in ("output", "get_attr"):
                continue
            level = max((self._ready(n) for n in node.all_input_nodes), default=0)
            if _draws(node):
                level = drawn = max(level, drawn)
            if node.target is operator.getitem and node.args[0] in self.between:
                level = self.levels[node.args[0]]
                self.between[node] = None
            self.levels[node] = level
            if node in giving or _reads_number(node):
                self.between[node] = None
                drawn = max(drawn, level + 1) if _draws(node) else drawn
            elif node.target is aten.copy_.default:
                writes.append(node)
        self.last = max(self._ready(node) for node in self.levels)
        self.levels.update(dict.fromkeys(writes, self.last))

    def _ready(self, node: fx.Node) -> int:
        """The first level at which a node's result is there."""
        return self.levels.get(node, 0) + (node in self.between)

    def stage(self, level: int, signature: Signature) -> _Stage:
        """The nodes of a level as a graph of their own."""
        own = [n for n, at in self.levels.items() if at == level and n.op != "placeholder" and n not in self.between]
        inside = set(own)
        graph = fx.Graph()
        read = dict.fromkeys(n for o in own for n in o.all_input_nodes)
        inputs = [n for n in read if n not in inside and n.op != "get_attr"]
        new: dict[fx.Node, fx.Node] = {}
        for node in inputs:
            new[node] = graph.placeholder(node.name)
            new[node].meta = node.meta
        for node in own:
            for held in node.all_input_nodes:
                if held.op == "get_attr" and held not in new:
                    new[held] = graph.node_copy(held)
            new[node] = graph.node_copy(node, new.__getitem__)
        outputs = [n for n in own if any(u not in inside for u in n.users)]
        graph.output(tuple(new[n] for n in outputs))
        part = fx.GraphModule(self.graph_module, graph)
        return _Stage(part, self._signature(part, signature, inputs, outputs), tuple(inputs), tuple(outputs))

    def _signature(
        self, part: fx.GraphModule, whole: Signature, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
    ) -> Signature:
        given = {node: position for position, node in enumerate(placeholders(self.graph_module))}
        names = tuple(whole.input_names[given[n]] if n in given else n.name for n in inputs)
        static = frozenset(k for k, n in enumerate(inputs) if given.get(n) in whole.static_inputs)
        returned = dict(zip(results(self.graph_module), whole.output_strides, strict=True))
        layouts = tuple(returned[n] if n in returned and _only_returned(n) else strides(n) for n in outputs)
        return Signature(whole.role, names, static, mutated_inputs(part), layouts)


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """A stage that effcc compiled."""

    run: Callable[..., Any]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]

    def __call__(self, values: dict[fx.Node, Any]) -> None:
        values.update(zip(self.outputs, self.run([values[n] for n in self.inputs]), strict=True))


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call that PyTorch runs between two stages."""

    node: fx.Node

    def __call__(self, values: dict[fx.Node, Any]) -> None:
        args, kwargs = fx.node.map_arg((self.node.args, self.node.kwargs), values.__getitem__)
        target: Any = self.node.target
        values[self.node] = target(*args, **kwargs)


_Step = _Compiled | _Call


def _runner(inputs: Sequence[fx.Node], steps: Sequence[_Step], outputs: Sequence[Any]) -> Callable[..., Any]:
    def call(arguments: list[Any]) -> tuple[Any, ...]:
        values = dict(zip(inputs, arguments, strict=True))
        arguments.clear()
        for step in steps:
            step(values)
        return tuple(values[o] if isinstance(o, fx.Node) else o for o in outputs)

    call._boxed_call = True  # type: ignore[attr-defined]
    return call


def _new_sizes(graph_module: fx.GraphModule) -> set[fx.Node]:
    """The calls whose results have sizes, or are numbers, that nothing before them tells."""
    known: set[Any] = set()
    found = set()
    for node in graph_module.graph.nodes:
        symbols = _symbols(node.meta.get("val"))
        if node.op == "call_function" and not symbols <= known:
            found.add(node)
        known |= symbols
    return found


def _symbols(value: Any) -> set[Any]:
    """The symbols in the shapes and strides of (fake) tensors, or in a number."""
    if isinstance(value, list | tuple):
        return set().union(*map(_symbols, value))
    sizes = (*value.shape, *(strides(value) or ())) if isinstance(value, torch.Tensor) else (value,)
    return {s for n in sizes if isinstance(n, torch.SymInt | torch.SymFloat) for s in n.node.expr.free_symbols}


def _draws(node: fx.Node) -> bool:
    """Whether a call's place among others matters: it draws random numbers or has an effect."""
    return node.target is torch.ops.higher_order.with_effects or is_random(node.target)


def _reads_number(node: fx.Node) -> bool:
    """Whether a call reads a float that was taken out of a tensor: only sizes are symbols of a graph."""
    return any(isinstance(n.meta.get("val"), torch.SymFloat) for n in node.all_input_nodes)


def _only_returned(node: fx.Node) -> bool:
    return all(user.op == "output" for user in node.users)
