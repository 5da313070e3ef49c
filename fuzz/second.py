"""A case called once more: with other inputs, and of other sizes where the compiled code takes them at run time.

What a compiler keeps from one call to the next (what it prepared, a size it took for granted) shows in the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from effcc.errors import EffccError, InputError
from effcc.fuzz.generate import TAKE_OFFSETS, Array, Case, expanded
from effcc.fuzz.operands import bounds
from effcc.ir.dims import evaluate, evaluate_number
from effcc.ir.graph import Graph, GraphBuilder, Value
from effcc.ir.interpreter import run_graph
from effcc.ir.types import TensorType

MOST_WORK = 1_000_000  # points of all index spaces at the second sizes: interpreting more takes seconds
MOST_GROWN = 10_000_000  # points and elements of large sizes, at which nothing is interpreted
_FACTOR = 37
_GROWN = (lambda n: n + 1, lambda n: n + 16, lambda n: 2 * n + 3, lambda n: max(2, n - 1), lambda n: max(2, n // 2))


def second(case: Case) -> tuple[Case, dict[str, int]] | None:
    """The case for a second call, and its run-time sizes; None where its inputs cannot be changed safely.

    Weights stay. Inputs are the first ones in another order, so that they keep to their ranges.
    """
    if case.graph.updates or any(_takes_numbers_apart(n.op, n.operands[:1], n.results) for n in case.graph.nodes):
        return None
    sizes = other_sizes(case)
    try:
        graph = at_sizes(case.compiled, sizes) if sizes else case.graph
    except (EffccError, ValueError, TypeError):
        return None
    layouts, staying = dict(case.variation.layouts), _staying(graph)
    inputs = []
    for param, array in zip(graph.params, case.inputs, strict=True):
        if param.name not in staying:
            array = _moved(array, tuple(int(d) for d in param.type.shape))
            array = expanded(array) if layouts.get(param.name) == "expanded" else array
        inputs.append(array)
    made = replace(case, graph=graph, inputs=tuple(inputs))
    return (made, sizes) if made.work <= MOST_WORK and _can_be_interpreted(made) else None


def grown(case: Case) -> tuple[Array, ...] | None:
    """Inputs of much larger run-time sizes; None where there are no such sizes, or they would take long, or where
    offsets would no longer be in order."""
    if case.graph.updates or not case.variation.symbols or any(n.op in TAKE_OFFSETS for n in case.graph.nodes):
        return None
    graph = case.compiled
    sizes = {f"s{k}": _FACTOR * n + 11 for k, n in enumerate(case.variation.symbols)}
    return _larger(case, {n: _within(graph, n, s) for n, s in sizes.items() if n in graph.size_symbols()})


def at_limits(case: Case) -> tuple[tuple[Array, ...], ...]:
    """Inputs of the least and of the largest run-time sizes, as far as these are bounded and do not take long."""
    graph, names = case.compiled, case.compiled.size_symbols()
    if case.graph.updates or not names or any(n.op in TAKE_OFFSETS for n in case.graph.nodes):
        return ()
    found = (_larger(case, {n: s for n in names if (s := graph.ranges[n][end]) is not None}) for end in (0, 1))
    return tuple(inputs for inputs in found if inputs is not None)


def beyond_limits(case: Case) -> tuple[tuple[Array, ...], ...]:
    """Inputs of run-time sizes just beyond their bounds, one after the other: calls that must be refused."""
    graph, names = case.compiled, case.compiled.size_symbols()
    if case.graph.updates or 0 in (d for p in graph.params for d in p.type.shape):
        return ()
    at = {f"s{k}": n for k, n in enumerate(case.variation.symbols)}
    found = []
    for name in names:
        for size in (graph.ranges[name][0] - 1, (graph.ranges[name][1] or 0) + 1):
            if graph.ranges[name][0] <= size and graph.ranges[name][1] is None:
                continue
            sizes = {n: size if n == name else at[n] for n in names}
            types = [_at(p.type, sizes) for p in graph.params]
            if all(int(t.size) <= MOST_GROWN // 10 for t in types):
                shapes = (tuple(int(d) for d in t.shape) for t in types)
                found.append(tuple(_moved(a, s) for a, s in zip(case.inputs, shapes, strict=True)))
    return tuple(found)


def _larger(case: Case, sizes: Mapping[str, int]) -> tuple[Array, ...] | None:
    """Inputs of other run-time sizes, at which nothing is interpreted; None where these would take long, or where some
    are not given."""
    graph = case.compiled
    if len(sizes) < len(graph.size_symbols()):
        return None
    try:
        large = at_sizes(graph, sizes)
    except (EffccError, ValueError, TypeError):
        return None
    shapes, staying = [tuple(int(d) for d in p.type.shape) for p in large.params], _staying(large)
    inputs = tuple(
        a if p.name in staying else _moved(a, shape)
        for p, a, shape in zip(large.params, case.inputs, shapes, strict=True)
    )
    whole = [r for n in large.nodes for r in n.results]
    sound = all(int(d) >= 0 for v in whole for d in v.type.shape)
    small = max(replace(case, graph=large, inputs=inputs).work, sum(int(v.type.size) for v in whole)) <= MOST_GROWN
    return inputs if sound and small else None


def _can_be_interpreted(case: Case) -> bool:
    """Whether the sizes are sizes (a window may be larger than what it slides over) and the ops take them."""
    values = [r for n in case.graph.nodes for r in n.results]
    if any(int(d) < 0 for v in values for d in v.type.shape):
        return False
    try:
        run_graph(case.graph, case.inputs)
    except (EffccError, ValueError, IndexError, TypeError, ZeroDivisionError):
        return False
    return True


def other_sizes(case: Case) -> dict[str, int]:
    """Other values for the case's size symbols; larger ones where integers are positions, which must stay inside."""
    largest_only = any(bounds(n.op, [o.type for o in n.operands], n.attrs) for n in case.graph.nodes)
    choices = _GROWN[:3] if largest_only else _GROWN
    found = {f"s{k}": choices[(case.seed + k) % len(choices)](n) for k, n in enumerate(case.variation.symbols)}
    graph = case.compiled
    return {name: _within(graph, name, size) for name, size in found.items() if name in graph.size_symbols()}


def _within(graph: Graph, name: str, size: int) -> int:
    """The size, or the nearest that the symbol may have."""
    least, most = graph.ranges[name]
    return max(size if most is None else min(size, most), least)


def at_sizes(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """A graph with run-time sizes as one of known sizes, row-major.

    Raises EffccError where its ops refuse those, or cut off what a formula of sizes counts as below 0.
    """
    builder = GraphBuilder(graph.name)
    values: dict[Value, Value] = {}
    for p in graph.params:
        values[p] = builder.param(p.name, _at(p.type, sizes), weight=p.name in graph.weights)
    for node in graph.nodes:
        attrs = {name: _evaluated(value, sizes) for name, value in node.attrs.items()}
        operands = [values[o] for o in node.operands]
        made = builder.node(node.op, *operands, name=node.results[0].name, regions=node.regions, **attrs)
        for symbolic, known in zip(node.results, made.results, strict=True):
            if known.type.shape != _at(symbolic.type, sizes).shape:
                raise InputError(f"%{symbolic.name} is {symbolic.type}, and {known.type} at {dict(sizes)}")
        values.update(zip(node.results, made.results, strict=True))
    return builder.build(tuple(values[v] for v in graph.outputs))


def _at(type: TensorType, sizes: Mapping[str, int]) -> TensorType:
    return replace(type, shape=tuple(evaluate(d, sizes) for d in type.shape), strides=None)


def _evaluated(value: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(value, tuple):
        return tuple(_evaluated(v, sizes) for v in value)
    return evaluate_number(value, sizes)


def _staying(graph: Graph) -> frozenset[str]:
    """The parameters that keep their values: weights, and what decodes, since an encoding's numbers are not any numbers
    (a group's places must differ)."""
    return graph.weights | {o.name for n in graph.nodes if n.op == "decode" for o in n.operands}


def _moved(array: Array, shape: tuple[int, ...]) -> Array:
    """The array's elements from the third on, as many as there must be, round and round."""
    if array.size == 0 or 0 in shape:
        return np.zeros(shape, array.dtype)
    return np.resize(np.roll(array.reshape(-1), -2), shape)


def _takes_numbers_apart(op: str, operands: tuple[Value, ...], results: tuple[Value, ...]) -> bool:
    """Whether other inputs may have no one result: floats made integers, or writes in places that may coincide."""
    if op in ("index_put", "scatter"):
        return True
    return op == "cast" and operands[0].type.dtype.is_float and not results[0].type.dtype.is_float
