"""Elements that are read at places known while compiling: as views where these follow one another, else one axis at a
time, after what is computed from them point by point.

    x[..., [3, 2, 1, 0, 1, 2, ...]]                  a mirrored border: flipped, whole and flipped parts, side by side
    x[..., rows, cols]                               index_select(index_select(x, cols), rows)
    a[rows] + (b[rows] - a[rows]) * w                (a + (b - a) * w)[rows]    where rows repeat what they read

The last is what makes bilinear interpolation two one-dimensional ones: what is computed along a row is computed once
for all rows that read it. Nothing is computed in another order, so that results have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from effcc.ir.graph import Graph, Node, Value
from effcc.ir.op import normalize_axis
from effcc.ir.ops import lookup
from effcc.passes.constant_folding import known_arrays
from effcc.passes.dead_code import remove_dead_code
from effcc.passes.writer import Writer

MOST_PIECES = 3
"""Parts of an axis, each of neighbours in order: two borders and what is between."""

Make = Callable[[Value, Value | None], Value]
"""Writes one step, to a result that is given or to a new one."""


def known_places(graph: Graph) -> Graph:
    """The graph with such reads written as views, or along one axis each, behind what is computed from them."""
    if not any(node.op in ("index", "index_select") for node in graph.nodes):
        return graph
    known, whole = known_arrays(graph), frozenset[Value]()
    while True:
        found = _Reads(graph, known, whole).write()
        # One gather along two axes is less than two gathers, unless what is computed from them comes between.
        alive = {o for n in found.nodes for o in n.operands} | set(found.results)
        back = {n.result for n in graph.nodes if n.op == "index" and len(n.operands) > 2 and n.result in alive}
        selects = {n.result for n in found.nodes if n.op == "index_select"}
        if not back & selects - whole:
            return found
        whole |= back & selects


class _Reads:
    """One pass over a graph. `whole`: results of reads along several axes that stay as they are."""

    def __init__(self, graph: Graph, known: dict[Value, Any], whole: frozenset[Value]) -> None:
        self.graph, self.known, self.whole = graph, known, whole
        self.writer = Writer(graph)
        self.made: dict[Value, Node] = {}
        self.places: dict[bytes, Value] = {}
        """One value for all tables that are equal."""

    def write(self) -> Graph:
        nodes = self.writer.nodes
        for node in self.graph.nodes:
            first = len(nodes)
            if not self._read_apart(node) and not self._computed_before(node):
                nodes.append(node)
            self.made.update((r, n) for n in nodes[first:] for r in n.results)
        return remove_dead_code(self.graph.with_nodes(tuple(nodes)))

    def _read_apart(self, node: Node) -> bool:
        """Write a read at known places axis by axis; False, and nothing written, where it is not of that kind."""
        if node.op not in ("index", "index_select") or not all(i in self.known for i in node.operands[1:]):
            return False
        x, *indices = node.operands
        given = cast("Sequence[int]", node.attrs["axes"] if node.op == "index" else (node.attrs["axis"],))
        axes = [normalize_axis(a, x.type.rank) for a in given]
        block = node.result.type.shape[axes[0] : axes[0] + node.result.type.rank - x.type.rank + len(axes)]
        if node.result in self.whole:
            return self._read_inside(node, axes)
        if axes[-1] - axes[0] + 1 != len(axes) or len(block) != len(axes):
            return False
        steps: list[Make] = []
        for d in reversed(range(len(axes))):
            size, length, index = x.type.shape[axes[d]], block[d], indices[d]
            if not isinstance(size, int) or not isinstance(length, int) or not _along(index, d, len(axes)):
                return False
            table = np.broadcast_to(np.asarray(self.known[index]).reshape(-1), (length,)).astype(np.int64)
            if length == 0 or table.min() < -size or table.max() >= size:
                return False
            found = self._steps(node, axes[d], np.where(table < 0, table + size, table), index)
            if found is None:
                return False
            steps += found
        for step in steps[:-1]:
            x = step(x, None)
        if steps:
            steps[-1](x, node.result)
        return bool(steps)

    def _read_inside(self, node: Node, axes: Sequence[int]) -> bool:
        """Write a read along several axes whose places are all known to lie inside, none counted from the end."""
        if node.attrs["wraps"] and all(int(np.min(self.known[i])) >= 0 for i in node.operands[1:]):
            self.writer.emit("index", *node.operands, name=node.result.name, result=node.result,
                             axes=tuple(axes), wraps=False, checked=False)  # fmt: skip
            return True
        return False

    def _steps(self, node: Node, axis: int, table: Any, index: Value) -> list[Make] | None:
        """What reads along one axis at the places of a table; None where nothing here does."""
        x, name = node.operands[0], node.result.name
        if np.array_equal(table, np.arange(cast(int, x.type.shape[axis]))):
            return []
        pieces = _pieces(table) if axis == x.type.rank - 1 else [table] if _step(table) is not None else []
        if pieces:
            return _side_by_side(self.writer, axis, [_progression(self.writer, axis, p, name) for p in pieces], name)
        if not np.array_equal(np.asarray(self.known[index]).reshape(-1), table):
            return None  # counts from the end, or is one number for all

        def selected(x: Value, result: Value | None) -> Value:
            key = table.tobytes()
            if key not in self.places:
                self.places[key] = self.writer.reshape(index, table.shape, name)
            return self.writer.emit(
                "index_select", x, self.places[key], name=name, result=result, axis=axis, checked=False
            )

        return [selected]

    def _computed_before(self, node: Node) -> bool:
        """Write a pointwise op before the read of all its operands at one axis' places, where that has fewer points."""
        if lookup(node.op).kind != "pointwise" or len(node.results) != 1 or node.regions:
            return False
        rank, name = node.result.type.rank, node.result.name
        reads = {o: self.made[o] for o in node.operands if o in self.made and _selects(self.made[o])}
        sources = {(n.operands[1], cast(int, n.attrs["axis"]) - n.result.type.rank) for n in reads.values()}
        if len(sources) != 1 or any(n.result.type.rank != rank for n in reads.values()):
            return False
        ((places, from_end),) = sources
        others = [o.type.shape for o in node.operands if o not in reads]
        before = {n.operands[0].type.shape[from_end] for n in reads.values()}
        fewer = len(before) == 1 and all(isinstance(n, int) and n <= cast(int, places.type.shape[0]) for n in before)
        if not fewer or any(len(shape) >= -from_end and shape[from_end] != 1 for shape in others):
            return False
        once = self.writer.copy(node, [reads[o].operands[0] if o in reads else o for o in node.operands], name)
        self.writer.emit(
            "index_select", once, places, name=name, result=node.result, axis=rank + from_end, checked=False
        )
        return True


def _selects(node: Node) -> bool:
    return node.op == "index_select" and not node.attrs["checked"]


def _along(index: Value, d: int, axes: int) -> bool:
    """Whether the index of the `d`th of some axes lies along that axis of the result alone."""
    sizes = index.type.shape
    return len(sizes) <= axes and all(n == 1 or e + axes - len(sizes) == d for e, n in enumerate(sizes))


def _side_by_side(writer: Writer, axis: int, parts: Sequence[Sequence[Make]], name: str) -> list[Make]:
    """Parts of one tensor, one after the other."""
    if len(parts) == 1:
        return list(parts[0])

    def concatenated(x: Value, result: Value | None) -> Value:
        made = []
        for steps in parts:
            part = x
            for step in steps:
                part = step(part, None)
            made.append(part)
        return writer.emit("concat", *made, name=name, result=result, axis=axis)

    return [concatenated]


def _progression(writer: Writer, axis: int, places: Any, name: str) -> list[Make]:
    """Places in even steps, forwards or backwards, or one again and again."""
    step = cast(int, _step(places))
    first, end = int(places.min()), int(places.max()) + 1

    def cut(x: Value, result: Value | None) -> Value:
        return writer.emit("slice", x, name=name, result=result, axis=axis, start=first, end=end, step=abs(step) or 1)

    def turned(x: Value, result: Value | None) -> Value:
        return writer.emit("flip", x, name=name, result=result, axes=(axis,))

    def repeated(x: Value, result: Value | None) -> Value:
        shape = (*x.type.shape[:axis], len(places), *x.type.shape[axis + 1 :])
        return writer.emit("broadcast", x, name=name, result=result, shape=shape)

    return [cut, *([turned] if step < 0 else []), *([repeated] if step == 0 else [])]


def _step(places: Any) -> int | None:
    """By how much each place lies behind the one before; None where that differs."""
    steps = np.unique(np.diff(places))
    return None if len(steps) > 1 else int(steps[0]) if len(steps) else 1


def _pieces(places: Any) -> list[Any]:
    """Runs of even steps, each as long as it may be; nothing where there are more than are wanted."""
    found: list[Any] = []
    begin = 0
    while begin < len(places):
        if len(found) == MOST_PIECES:
            return []
        breaks = np.flatnonzero(np.diff(places[begin:], 2))
        end = begin + int(breaks[0]) + 2 if len(breaks) else len(places)
        found.append(places[begin:end])
        begin = end
    return found


__all__ = ["known_places"]
