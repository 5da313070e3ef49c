"""Writes nodes into a copy of a graph: new names, types by the op table, no views that change nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from effcc.ir.dims import Dim, same_shape
from effcc.ir.graph import Attribute, Graph, Node, Value
from effcc.ir.ops import lookup


class Writer:
    """Nodes in order, with names that are new to the whole graph. Views that would change nothing are left out."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: list[Node] = []
        self._names = {v.name for v in graph.params} | {r.name for n in graph.nodes for r in n.results}

    def emit(self, op: str, *operands: Value, name: str, result: Value | None = None, **attrs: Attribute) -> Value:
        """Append `op`; its result, called after `name`, or `result` itself if that is given."""
        return self._append(op, operands, attrs, name, result)

    def copy(self, node: Node, operands: Sequence[Value], name: str) -> Value:
        """Append the same op with other operands."""
        return self._append(node.op, operands, node.attrs, name, None)

    def _append(
        self, op: str, operands: Sequence[Value], attrs: Mapping[str, Attribute], name: str, result: Value | None
    ) -> Value:
        spec = lookup(op)
        complete = spec.complete_attrs(attrs)
        (type,) = spec.infer_types(tuple(o.type for o in operands), complete)
        made = Value(self._fresh(name), type) if result is None else result
        self.nodes.append(Node(op, tuple(operands), complete, (made,)))
        return made

    def reshape(self, x: Value, shape: Sequence[Dim], name: str) -> Value:
        return x if same_shape(x.type.shape, shape) else self.emit("reshape", x, name=name, shape=tuple(shape))

    def part(self, x: Value, axis: int, start: int, count: int, name: str) -> Value:
        """`count` positions of x from `start` on."""
        if x.type.shape[axis] == count:
            return x
        return self.emit("slice", x, name=name, axis=axis, start=start, end=start + count)

    def to_front(self, x: Value, axis: int, name: str) -> Value:
        order = (axis, *(i for i in range(x.type.rank) if i != axis))
        return x if axis == 0 else self.emit("transpose", x, name=name, perm=order)

    def _fresh(self, base: str) -> str:
        n = 0
        while f"{base}_r{n}" in self._names:
            n += 1
        self._names.add(f"{base}_r{n}")
        return f"{base}_r{n}"
