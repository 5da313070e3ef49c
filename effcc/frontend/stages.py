"""Graphs with calls that PyTorch runs between compiled stages.

Such calls give sizes that depend on data (`nonzero`, `x[x > 0]`, `item`), read or give what effcc has no tensor for
(`effcc.frontend.apart`), or are what effcc failed to compile. What needs none of their results is one graph; what needs
the results of one call is another, in which a new size is a symbol as an input's size is; and so on. Each stage is
compiled as a graph of its own; where that fails, the calls at fault join those that PyTorch runs.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from effcc.errors import facts_of
from effcc.frontend.apart import calls_apart, held, holds_strange_inputs
from effcc.frontend.capture import Signature, mutated_inputs, placeholders, results, strides
from effcc.frontend.drawn_again import is_drawn_again, is_generator_state
from effcc.frontend.draws import is_random
from effcc.frontend.importer import aten
from effcc.frontend.location import location
from effcc.frontend.shared_results import untold_views

CompileWhole = Callable[[fx.GraphModule, Signature, Sequence[tuple[fx.Node, str]]], Callable[..., Any]]
"""A graph, its signature and the calls that PyTorch runs after it, with reasons, to a callable over its inputs."""
Refuse = Callable[[Exception, fx.GraphModule], str]
"""Why a part of a graph is left to PyTorch, from what compiling raised; raises that if it is not effcc's to mend."""

_DATA = "its sizes depend on data"
_PARTS = 8
"""So often a stage is tried again without the calls at fault; after that PyTorch runs all of it."""


def compile_in_stages(
    graph_module: fx.GraphModule, signature: Signature, compile_whole: CompileWhole, refuse: Refuse
) -> Callable[..., Any]:
    """A captured graph as a callable in AOTAutograd's convention; one stage where PyTorch need run nothing between."""
    apart = {**calls_apart(graph_module), **dict.fromkeys(_new_sizes(graph_module), _DATA)}
    if apart:
        apart |= dict.fromkeys(untold_views(graph_module), _DATA)
    tries = 0
    while True:
        tries += 1
        try:
            return _compiled(graph_module, signature, compile_whole, apart)
        except _StageError as failed:
            reason = refuse(failed.error, failed.stage.graph_module)
            blamed = failed.stage.blamed(failed.error) - apart.keys() if tries <= _PARTS else set()
            apart |= dict.fromkeys(blamed or failed.stage.origins.values(), reason)


def _compiled(
    graph_module: fx.GraphModule, signature: Signature, compile_whole: CompileWhole, apart: Mapping[fx.Node, str]
) -> Callable[..., Any]:
    """Raises _StageError where a stage cannot be compiled."""
    if not apart and not holds_strange_inputs(graph_module):
        whole = _Stage(graph_module, signature, (), (), {n: n for n in _calls(graph_module)})
        return whole.compile(compile_whole, ())
    split = _Split(graph_module, apart)
    steps: list[_Step] = []
    for level in range(split.last + 1):
        stage = split.stage(level, signature)
        between = [n for n in split.between if split.levels[n] == level]
        if stage.origins or not steps:
            run = stage.compile(compile_whole, [(n, apart.get(n, "")) for n in between])
            steps.append(_Compiled(run, stage.inputs, stage.outputs))
        steps += [_Call(node, graph_module) for node in between]
    return _runner(graph_module, signature, steps)


class _StageError(Exception):
    """A stage that cannot be compiled, and what compiling it raised."""

    def __init__(self, stage: _Stage, error: Exception) -> None:
        super().__init__(str(error))
        self.stage, self.error = stage, error


@dataclasses.dataclass(frozen=True)
class _Stage:
    """A part of a graph as a graph: where its inputs come from and what its results are in the whole.

    origins: for every call of the part, the one of the whole that it is.
    """

    graph_module: fx.GraphModule
    signature: Signature
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    origins: Mapping[fx.Node, fx.Node]

    def compile(self, compile_whole: CompileWhole, after: Sequence[tuple[fx.Node, str]]) -> Callable[..., Any]:
        try:
            return compile_whole(self.graph_module, self.signature, after)
        except Exception as error:  # whatever a step raises: `refuse` looks at it, and raises what is not effcc's
            raise _StageError(self, error) from error

    def blamed(self, error: Exception) -> set[fx.Node]:
        """The calls that an error is about: the one being imported, or those of the lines that a kernel came from."""
        facts = facts_of(error)
        if facts.get("node") in self.origins:
            return {self.origins[facts["node"]]}
        places = str(facts.get("location", ""))
        return {n for n in self.origins.values() if (where := location(n)) and where in places}


class _Split:
    """The level of every node: how many calls whose sizes depend on data it has to wait for.

    between: the calls that PyTorch runs; one of level k runs after stage k. last: the last level that any node has.
    Random draws keep their order, and inputs are written in the last stage.
    """

    def __init__(self, graph_module: fx.GraphModule, apart: Mapping[fx.Node, str]) -> None:
        self.graph_module = graph_module
        self.levels: dict[fx.Node, int] = {}
        self.between: dict[fx.Node, None] = {}
        drawn = 0
        writes = []
        for node in graph_module.graph.nodes:
            if node.op in ("output", "get_attr"):
                continue
            runs_between = node in apart or _reads_number(node)
            # Calls between two stages run one after the other: what one of them gives the next may read.
            after = self._level if runs_between else self._ready
            level = max((after(n) for n in node.all_input_nodes), default=0)
            if _draws(node):
                level = drawn = max(level, drawn)
            if node.target is operator.getitem and node.args[0] in self.between:
                level = self.levels[node.args[0]]
                self.between[node] = None
            self.levels[node] = level
            if node.target is aten.copy_.default:
                writes.append(node)
            if runs_between:
                self.between[node] = None
                drawn = max(drawn, level + 1) if _draws(node) else drawn
        self.last = max(self._ready(node) for node in self.levels)
        self.levels.update(dict.fromkeys(writes, self.last))

    def _level(self, node: fx.Node) -> int:
        """The first level after which a node's result is there."""
        return self.levels.get(node, 0)

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
            new[node].meta = node.meta if node.op == "placeholder" or node in self.between else _stored(node.meta)
        for node in own:
            for source in node.all_input_nodes:
                if source.op == "get_attr" and source not in new:
                    new[source] = graph.node_copy(source)
            new[node] = graph.node_copy(node, new.__getitem__)
        outputs = [n for n in own if any(u not in inside for u in n.users)]
        graph.output(tuple(new[n] for n in outputs))
        part = fx.GraphModule(self.graph_module, graph)
        origins = {new[n]: n for n in own}
        return _Stage(part, self._signature(part, signature, inputs, outputs), tuple(inputs), tuple(outputs), origins)

    def _signature(
        self, part: fx.GraphModule, whole: Signature, inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
    ) -> Signature:
        given = {node: position for position, node in enumerate(placeholders(self.graph_module))}
        names = tuple(whole.input_names[given[n]] if n in given else n.name for n in inputs)
        static = frozenset(k for k, n in enumerate(inputs) if given.get(n) in whole.static_inputs)
        returned = dict(zip(results(self.graph_module), whole.output_strides, strict=True))
        layouts = tuple(returned[n] if n in returned and _only_returned(n) else strides(n) for n in outputs)
        return Signature(whole.role, names, static, mutated_inputs(part), layouts)


def _stored(meta: dict[str, Any]) -> dict[str, Any]:
    """What is known of a value that a stage has written: an expanded tensor has memory of its own for every element."""
    value = meta.get("val")
    if not isinstance(value, torch.Tensor) or 0 not in (strides(value) or ()):
        return meta
    return {**meta, "val": value.contiguous()}


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
    graph_module: fx.GraphModule

    def __call__(self, values: dict[fx.Node, Any]) -> None:
        def value(node: fx.Node) -> Any:
            return held(self.graph_module, node) if node.op == "get_attr" else values[node]

        args, kwargs = fx.node.map_arg((self.node.args, self.node.kwargs), value)
        target: Any = self.node.target
        values[self.node] = target(*args, **kwargs)


_Step = _Compiled | _Call


def _runner(graph_module: fx.GraphModule, signature: Signature, steps: Sequence[_Step]) -> Callable[..., Any]:
    inputs, outputs = placeholders(graph_module), results(graph_module)
    written = [inputs[position] for position in signature.mutated_inputs]

    def call(arguments: list[Any]) -> tuple[Any, ...]:
        values = dict(zip(inputs, arguments, strict=True))
        arguments.clear()
        for step in steps:
            step(values)
            if written and isinstance(step, _Call):
                values[step.node] = _apart_from(values[step.node], [values[w] for w in written])
        return tuple(values[o] if isinstance(o, fx.Node) else o for o in outputs)

    call._boxed_call = True  # type: ignore[attr-defined]
    return call


def _apart_from(value: Any, written: Sequence[torch.Tensor]) -> Any:
    """A copy of a view of what the last stage writes: the stages take their inputs for memory of their own."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return value
    is_alias: Any = torch._C._is_alias_of  # type: ignore[attr-defined]
    shared = any(value is not w and is_alias(value, w) for w in written if isinstance(w, torch.Tensor))
    return value.clone() if shared else value


def _calls(graph_module: fx.GraphModule) -> list[fx.Node]:
    return [n for n in graph_module.graph.nodes if n.op == "call_function"]


def _new_sizes(graph_module: fx.GraphModule) -> set[fx.Node]:
    """The calls whose results have sizes, or are numbers, that nothing before them tells."""
    known: set[Any] = set()
    found = set()
    for node in graph_module.graph.nodes:
        symbols = _symbols(node.meta.get("val"))
        if node.op == "call_function" and not symbols <= known and not is_generator_state(node):
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
    ordered = node.target is torch.ops.higher_order.with_effects or is_drawn_again(node.target)
    return ordered or is_random(node.target)


def _reads_number(node: fx.Node) -> bool:
    """Whether a call reads a float that was taken out of a tensor: only sizes are symbols of a graph."""
    return any(isinstance(n.meta.get("val"), torch.SymFloat) for n in node.all_input_nodes)


def _only_returned(node: fx.Node) -> bool:
    return all(user.op == "output" for user in node.users)
