"""Codes of what codes stand for are these codes.

    codes(cast<f32>(q) * s)  =  q          codes: round(x * (1 / s)), clamped to what q may be, as an integer

and likewise about a zero point. The product and the reciprocal are off by three roundings of f32 together, 255 * 2^-22
at most, so that rounding gives q again, for any s whose reciprocal is a number. (A step of 0, an infinity or NaN has no
codes.) Two layers that quantize one block's input then read it as it lies in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from effcc.ir.dtypes import i8, u7, u8
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.ops import lookup
from effcc.passes.dead_code import remove_dead_code, share_common_subexpressions
from effcc.passes.padded_codes import followed_operand
from effcc.passes.ranges import range_of

_STEPS = tuple(map(np.float32, (0.7, 1.0, 3.1e-3, 2.9e5)))
"""Numbers that a step is tried as: which operators there are is known, and what they are off by at most."""
_MOST_STEPS = 14
"""So many operators before codes are looked at."""


def keep_codes(graph: Graph) -> Graph:
    """The graph with codes that are made of codes left out."""
    producers = graph.producers()
    instead: dict[Value, Value] = {}
    for node in graph.nodes:
        if node.op == "cast" and node.result.type.dtype in (i8, u8, u7):
            kept = _kept(node, producers)
            if kept is not None and node.result not in graph.results:
                instead[node.result] = kept
    if not instead:
        return graph
    nodes = (replace(n, operands=tuple(instead.get(o, o) for o in n.operands)) for n in graph.nodes)
    return share_common_subexpressions(remove_dead_code(graph.with_nodes(tuple(nodes))))


def _kept(node: Node, producers: Mapping[Value, Node]) -> Value | None:
    """The codes that a node's result is equal to, if it is that."""
    dtype, steps = node.result.type.dtype, [node]
    while len(steps) < _MOST_STEPS:
        place = followed_operand(steps[-1])
        if place is None:
            return None
        value = steps[-1].operands[place]
        if value.type.dtype == dtype:
            return value if _gives_back(steps[::-1], value, producers) else None
        if (before := producers.get(value)) is None:
            return None
        steps.append(before)
    return None


def _gives_back(steps: list[Node], given: Value, producers: Mapping[Value, Node]) -> bool:
    """Whether pointwise steps give every code that `given` may hold back, tried with numbers in place of the step they
    multiply by.
    """
    unknown = {s for node in steps for o in _others(node) if (s := _step(o, producers)) is not None}
    if len(unknown) != 1:
        return False
    least, most = range_of(given, producers)
    codes = np.arange(int(least), int(most) + 1).astype(given.type.dtype.numpy)
    return all(np.array_equal(_run(steps, codes, number, producers), codes) for number in _STEPS)


def _run(steps: list[Node], codes: Any, number: np.float32, producers: Mapping[Value, Node]) -> Any:
    value = codes
    for node in steps:
        place, reference = followed_operand(node), lookup(node.op).reference
        assert reference is not None, "pointwise steps have one"
        others = (_number(o, number, producers) for o in node.operands)
        operands = [value if i == place else other for i, other in enumerate(others)]
        value = np.asarray(reference(*operands, **node.attrs))
    return value


def _others(node: Node) -> list[Value]:
    """The operands that are numbers."""
    place = followed_operand(node)
    return [o for i, o in enumerate(node.operands) if i != place]


def _step(value: Value, producers: Mapping[Value, Node]) -> Value | None:
    """The unknown number that a number is, or is the reciprocal of."""
    node = producers.get(value)
    if node is not None and node.op == "constant":
        return None
    return node.operands[0] if node is not None and node.op == "reciprocal" else value


def _number(value: Value, step: np.float32, producers: Mapping[Value, Node]) -> Any:
    """A number, where the unknown one is `step`."""
    node = producers.get(value)
    if node is not None and node.op == "constant":
        return np.asarray(node.attrs["value"], value.type.dtype.numpy)
    return np.float32(1) / step if node is not None and node.op == "reciprocal" else step
