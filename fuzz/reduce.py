"""Makes a failing case small: fewer results, fewer nodes, smaller sizes, simpler numbers, as long as it fails alike.

Each change proposes a case; one that is no case at all (its types do not fit, its indices lie outside) is dropped, one
that still fails in the same way is taken. Changes are tried, the coarse ones first, until none helps or time is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from effcc.errors import EffccError
from effcc.fuzz.generate import Array, Case
from effcc.fuzz.oracles import Failure
from effcc.ir.graph import Graph, GraphBuilder, Node, Value

Check = Callable[[Case], Failure | None]

LONG = 24
"""Nodes beyond which a graph is cut into parts before its nodes are looked at one by one."""


def reduce(failure: Failure, check: Check, seconds: float = 30.0) -> Failure:
    """The smallest case found in `seconds` that fails as `failure` does; `check` says how a case fails."""
    end = time.monotonic() + seconds
    smaller = True
    while smaller and time.monotonic() < end:
        smaller = False
        for changes in (_passes, _beginnings, _ends, _results, _cuts, _bypasses, _plain_params, _sizes, _numbers):
            found = _first(failure, changes, check, end)
            while found is not None:
                failure, smaller = found, True
                found = _first(failure, changes, check, end)
    return failure


def _first(failure: Failure, changes: Callable[[Case], Iterator[Case]], check: Check, end: float) -> Failure | None:
    """The first proposal that fails as `failure` does."""
    proposals = changes(failure.case)
    while time.monotonic() < end:
        try:
            case = next(proposals, None)
            if case is None:
                return None
            case.run()
            found = check(case)
        except (EffccError, ValueError, IndexError, ZeroDivisionError, TypeError):
            continue  # the proposal is no case
        if found is not None and found.resembles(failure):
            return found
    return None


# Changes --------------------------------------------------------------------------------------------------------------


def _passes(case: Case) -> Iterator[Case]:
    """Fewer changes of passes."""
    if case.passes:
        yield replace(case, passes=())
        yield from (replace(case, passes=case.passes[:k] + case.passes[k + 1 :]) for k in range(len(case.passes)))


def _beginnings(case: Case) -> Iterator[Case]:
    """Of a long graph, the results of a node in the place of all: of the early ones first."""
    nodes = case.graph.nodes
    if len(nodes) > LONG:
        yield from (_kept(case, nodes[len(nodes) * share // 8].results) for share in range(1, 8))


def _ends(case: Case) -> Iterator[Case]:
    """Of a long graph, the last nodes, with what they read of those before them as parameters."""
    nodes = case.graph.nodes
    if len(nodes) > LONG:
        values = _values(case)
        for share in reversed(range(1, 8)):
            early = nodes[: len(nodes) * share // 8]
            yield _rebuilt(case, {r: values[r] for n in early for r in n.results if r not in case.graph.outputs})


def _results(case: Case) -> Iterator[Case]:
    """Each result alone; each node's results in the place of all."""
    outputs = case.graph.outputs
    if len(outputs) > 1:
        yield from (_kept(case, (v,)) for v in outputs)
        yield from (_kept(case, tuple(v for v in outputs if v is not gone)) for gone in outputs)
    for node in case.graph.nodes[:-1]:
        if node.results != outputs:
            yield _kept(case, node.results)


def _cuts(case: Case) -> Iterator[Case]:
    """A node's results as parameters, the late nodes first: all before them goes."""
    values = _values(case)
    for node in reversed(case.graph.nodes):
        if not set(node.results) & set(case.graph.outputs):
            yield _rebuilt(case, {r: values[r] for r in node.results})


def _bypasses(case: Case) -> Iterator[Case]:
    """An operand in the place of a node that gives the same type."""
    for node in case.graph.nodes:
        for operand in node.operands:
            if len(node.results) == 1 and operand.type == node.result.type:
                yield _rebuilt(case, {}, {node.result: operand})


def _plain_params(case: Case) -> Iterator[Case]:
    """No weights."""
    if case.graph.weights:
        yield replace(case, graph=replace(case.graph, weights=frozenset()))


def _sizes(case: Case) -> Iterator[Case]:
    """Every size of one number as a smaller number, in parameters and attributes alike."""
    sizes = sorted({int(d) for p in case.graph.params for d in p.type.shape if d > 1}, reverse=True)
    for size in sizes:
        for less in sorted({1, 2, size // 2, size - 1} - {0, size}):
            try:
                yield _resized(case, size, less)
            except (EffccError, ValueError, IndexError):
                continue


def _numbers(case: Case) -> Iterator[Case]:
    """Simpler inputs: all ones, or small whole numbers."""
    for simplify in (np.ones_like, np.round):
        for position, array in enumerate(case.inputs):
            if array.dtype.kind != "f":
                continue
            simpler: Array = np.asarray(simplify(array))
            if not np.array_equal(simpler, array, equal_nan=True):
                yield replace(case, inputs=(*case.inputs[:position], simpler, *case.inputs[position + 1 :]))


# Rebuilding -----------------------------------------------------------------------------------------------------------


def _kept(case: Case, outputs: tuple[Value, ...]) -> Case:
    return _rebuilt(replace(case, graph=replace(case.graph, outputs=outputs)), {})


def _values(case: Case) -> dict[Value, Array]:
    """What every node computes."""
    found: dict[Value, Array] = {}

    def keep(node: Node, results: list[Array]) -> list[Array]:
        found.update(zip(node.results, results, strict=True))
        return results

    case.run(observe=keep)
    return found


def _rebuilt(case: Case, cuts: Mapping[Value, Array], aliases: Mapping[Value, Value] | None = None) -> Case:
    """The case with the values in `cuts` as parameters, those in `aliases` replaced, and what nobody needs left out."""
    graph = case.graph
    arrays = {**dict(zip(graph.params, case.inputs, strict=True)), **cuts}
    aliases = aliases or {}
    producers = {r: n for r, n in graph.producers().items() if r not in cuts}
    needed: set[Value] = set()
    pending = [aliases.get(v, v) for v in graph.outputs]
    while pending:
        value = pending.pop()
        if value in needed:
            continue
        needed.add(value)
        if value in producers:
            pending += [aliases.get(o, o) for o in producers[value].operands]
    builder = GraphBuilder(graph.name)
    made: dict[Value, Value] = {}
    for value in arrays:
        if value in needed:
            made[value] = builder.param(value.name, value.type, value.name in graph.weights)
    for node in graph.nodes:
        if any(r in needed and r in producers for r in node.results):
            operands = [made[aliases.get(o, o)] for o in node.operands]
            results = _again(builder, node, operands, node.attrs)
            made.update(zip(node.results, results, strict=True))
    outputs = tuple(made[aliases.get(v, v)] for v in graph.outputs)
    inputs = tuple(arrays[v] for v in arrays if v in needed)
    return replace(case, graph=builder.build(outputs), inputs=inputs)


def _again(builder: GraphBuilder, node: Node, operands: Sequence[Value], attrs: Mapping[str, Any]) -> Sequence[Value]:
    """The results of the node once more, on other operands."""
    return builder.node(node.op, *operands, name=node.results[0].name, regions=node.regions, **attrs).results


def _resized(case: Case, size: int, less: int) -> Case:
    """Every size `size` made `less`: types are inferred anew, arrays cut."""

    def smaller(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(smaller(v) for v in value)
        return less if isinstance(value, int) and not isinstance(value, bool) and value == size else value

    graph: Graph = case.graph
    builder = GraphBuilder(graph.name)
    made: dict[Value, Value] = {}
    inputs = []
    for param, array in zip(graph.params, case.inputs, strict=True):
        shape = smaller(param.type.shape)
        made[param] = builder.param(param.name, replace(param.type, shape=shape), param.name in graph.weights)
        inputs.append(np.ascontiguousarray(array[tuple(slice(0, n) for n in shape)]))
    for node in graph.nodes:
        attrs = {name: smaller(v) if is_shape(name) else v for name, v in node.attrs.items()}
        operands = [made[o] for o in node.operands]
        results = _again(builder, node, operands, attrs)
        made.update(zip(node.results, results, strict=True))
    return replace(case, graph=builder.build(tuple(made[v] for v in graph.outputs)), inputs=tuple(inputs))


def is_shape(name: str) -> bool:
    return name in ("shape", "sizes", "size", "end")
