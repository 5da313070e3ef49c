"""Recognises linear recurrences that were written out as a tree of slices and concatenations.

A parallel scan of h_t = a_t * h_{t-1} + b_t (Blelloch, "Prefix sums and their applications", 1990) combines neighbours:
(a_i, b_i) and (a_j, b_j) give (a_i * a_j, a_j * b_i + b_j), on halves of halves, and interleaves what comes out. On one
core that is more work than the loop, in many kernels.

No shape of the tree is assumed. From the first combination on, every value is followed position by position through
slices, concatenations and reshapes, in a domain of three kinds of element,

    A(i, j) = a_i * ... * a_j        B(i, j) = h_j when h starts at i        P(i, m, j) = A(m, j) * B(i, m - 1)

and a value that holds B(0, 0), B(0, 1), ..., B(0, n-1) is the scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.ir.dims import same_shape
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.op import normalize_axis
from effcc.ir.ops import lookup
from effcc.passes.writer import Writer


@dataclass(frozen=True)
class _Segment:
    """A(first, last), B(first, last) or P(first, middle, last)."""

    kind: str
    first: int
    last: int
    middle: int = 0


class _Unknown(Exception):
    """This value is nothing that a scan is made of."""


def _multiply(x: _Segment, y: _Segment) -> _Segment:
    for left, right in ((x, y), (y, x)):
        if right.kind == "A" and left.last + 1 == right.first:
            if left.kind == "A":
                return _Segment("A", left.first, right.last)
            if left.kind == "B":
                return _Segment("P", left.first, right.last, right.first)
    raise _Unknown


def _add(x: _Segment, y: _Segment) -> _Segment:
    for carried, own in ((x, y), (y, x)):
        if carried.kind == "P" and own.kind == "B" and (carried.middle, carried.last) == (own.first, own.last):
            return _Segment("B", carried.first, own.last)
    raise _Unknown


_COMBINE = {"mul": np.frompyfunc(_multiply, 2, 1), "add": np.frompyfunc(_add, 2, 1)}
_MOVES = frozenset({"slice", "concat", "reshape", "transpose"})


@dataclass(frozen=True)
class _Source:
    """Factors and summands of a recurrence along an axis."""

    factors: Value
    summands: Value
    axis: int


def roll_scan_trees(graph: Graph) -> Graph:
    """`graph` with linear recurrences that were written out as trees as `linear_recurrence`."""
    producers = graph.producers()
    found: dict[Value, _Source] = {}
    inside: set[Value] = set()
    for source in _sources(graph, producers):
        if source.summands in inside:
            continue
        followed, scan = _follow(graph, source)
        if scan is not None:
            found[scan] = source
            inside.update(followed)
    if not found:
        return graph
    writer = Writer(graph)
    for node in graph.nodes:
        if len(node.results) == 1 and node.results[0] in found:
            result, source = node.result, found[node.result]
            name, operands = result.name, (source.factors, source.summands)
            states = writer.emit("linear_recurrence", *operands, name=name, axis=source.axis)
            writer.emit("reshape", states, name=name, result=result, shape=result.type.shape)
        else:
            writer.nodes.append(node)
    return graph.with_nodes(tuple(writer.nodes))


def _sources(graph: Graph, producers: Mapping[Value, Node]) -> Iterator[_Source]:
    """First combinations, `x[1::2] * y[0::2] + y[1::2]`, outermost first."""
    for node in graph.nodes:
        if node.op != "add":
            continue
        for product, own in (node.operands, node.operands[::-1]):
            multiply, odd = producers.get(product), producers.get(own)
            if multiply is None or multiply.op != "mul" or odd is None or not _is_half(odd, 1):
                continue
            for factor, before in (multiply.operands, multiply.operands[::-1]):
                odd_factor, even = producers.get(factor), producers.get(before)
                if odd_factor is None or even is None or not (_is_half(odd_factor, 1) and _is_half(even, 0)):
                    continue
                x, y = odd_factor.operands[0], odd.operands[0]
                axis = odd.attrs["axis"]
                if even.operands[0] is y and x is not y and odd_factor.attrs["axis"] == axis == even.attrs["axis"]:
                    assert isinstance(axis, int)
                    yield _Source(x, y, normalize_axis(axis, x.type.rank))


def _is_half(node: Node, start: int) -> bool:
    return node.op == "slice" and node.attrs["step"] == 2 and node.attrs["start"] == start


def _follow(graph: Graph, source: _Source) -> tuple[set[Value], Value | None]:
    """The values made of segments of `source`, and the first that is the whole scan."""
    shape = source.factors.type.shape
    count = shape[source.axis]
    if not isinstance(count, int) or not same_shape(shape, source.summands.type.shape):
        return set(), None
    # Axes at the end that nothing moves are lanes: all their positions are alike, so one stands for all.
    for lanes in range(len(shape) - 1 - source.axis, -1, -1):
        front = shape[: len(shape) - lanes]
        if not all(isinstance(d, int) and (d == 1 or i == source.axis) for i, d in enumerate(front)):
            continue
        known = {
            source.factors: _segments("A", count, front),
            source.summands: _segments("B", count, front),
        }
        scan = [_Segment("B", 0, t) for t in range(count)]
        for node in graph.nodes:
            if len(node.results) != 1 or not node.operands or not all(o in known for o in node.operands):
                continue
            try:
                array = _evaluate(node, [known[o] for o in node.operands], shape[len(shape) - lanes :])
            except _Unknown:
                continue
            known[node.result] = array
            if array.size == count and list(array.reshape(-1)) == scan:
                return set(known), node.result
    return set(), None


def _segments(kind: str, count: int, front: tuple[Any, ...]) -> Any:
    array = np.empty(count, object)
    array[:] = [_Segment(kind, t, t) for t in range(count)]
    return array.reshape(front)


def _evaluate(node: Node, operands: list[Any], lanes: tuple[Any, ...]) -> Any:
    """The segments of a node's result, without the lanes; _Unknown where the lanes do not stay out of it."""
    rank = node.result.type.rank - len(lanes)
    if rank < 0 or not same_shape(node.result.type.shape[rank:], lanes):
        raise _Unknown
    if node.op in _COMBINE:
        if operands[0].shape != operands[1].shape:
            raise _Unknown
        return _COMBINE[node.op](*operands)
    if node.op not in _MOVES:
        raise _Unknown
    attrs = dict(node.attrs)
    if node.op == "reshape":
        attrs["shape"] = node.result.type.shape[:rank]
    elif node.op == "transpose":
        perm = tuple(attrs["perm"])  # type: ignore[arg-type]
        if perm[rank:] != tuple(range(rank, len(perm))):
            raise _Unknown
        attrs["perm"] = perm[:rank]
    elif normalize_axis(attrs["axis"], node.operands[0].type.rank) >= operands[0].ndim:  # type: ignore[arg-type]
        raise _Unknown
    else:
        attrs["axis"] = normalize_axis(attrs["axis"], node.operands[0].type.rank)  # type: ignore[arg-type]
    reference = lookup(node.op).reference
    assert reference is not None
    return reference(*operands, **attrs)
