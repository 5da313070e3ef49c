"""Outputs that are views: the value behind the view is stored straight into the output, with the strides that fit.

`y = reshape(transpose(x))` as an output needs no copy: whoever computes x writes it where y has that element.
"""

from __future__ import annotations

from typing import cast

from effcc.ir.dims import Dim, Shape, contiguous_strides, dim, product, same, same_shape
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.types import TensorType
from effcc.passes.fusion.cascade import is_opaque


def stored_behind_views(graph: Graph, joins: bool = False) -> dict[str, tuple[str, TensorType]]:
    """For each output that only renames another node's result: that result, and its type with the output's strides.

    What PyTorch reads or gives stays, and so does what a concatenation of many does (`joins`): it is handed over as a
    tensor of its own shape.
    """
    producers = graph.producers()
    opaque = [n for n in graph.nodes if is_opaque(n, joins)]
    taken = {v.name for v in graph.results} | {v.name for n in opaque for v in (*n.operands, *n.results)}
    found: dict[str, tuple[str, TensorType]] = {}
    for output in graph.outputs:
        if list(graph.results).count(output) > 1 or output not in producers:
            continue
        value, strides = output, output.type.layout
        while value in producers:
            step = _behind(producers[value], strides)
            if step is None:
                break
            value, strides = step
        if value is output or value not in producers or value.name in taken:
            continue
        taken.add(value.name)
        packed = None if same_shape(strides, contiguous_strides(value.type.shape)) else strides
        found[output.name] = (value.name, TensorType(value.type.dtype, value.type.shape, packed))
    return found


def _behind(node: Node, strides: Shape) -> tuple[Value, Shape] | None:
    """The operand of a view, and the strides that give its elements the places of the result's."""
    if node.op == "transpose":
        (x,) = node.operands
        perm = [int(p) % x.type.rank for p in cast("tuple[int, ...]", node.attrs["perm"])]
        moved: list[Dim] = [0] * x.type.rank
        for position, source in enumerate(perm):
            moved[source] = strides[position]
        return x, tuple(moved)
    if node.op == "reshape":
        (x,) = node.operands
        behind = _split(node.result.type.shape, strides, x.type.shape)
        return None if behind is None else (x, behind)
    return None


def _split(shape: Shape, strides: Shape, finer: Shape) -> Shape | None:
    """Strides of `finer`, a reshape of `shape` each of whose groups is one dimension of `shape`; None if it is not.

    Where `shape` is row-major, any reshape of it is row-major as well.
    """
    if same_shape(strides, contiguous_strides(shape)):
        return contiguous_strides(finer)
    result: list[Dim] = []
    position = 0
    for size, stride in zip(shape, strides, strict=True):
        group: list[Dim] = []
        while position < len(finer) and not (group and same(product(group), size)):
            group.append(finer[position])
            position += 1
        if not same(product(group), size):
            return None
        inner = contiguous_strides(tuple(group))
        result += [dim(s * stride) for s in inner]
    if any(d != 1 for d in finer[position:]):
        return None
    return (*result, *(1 for _ in finer[position:]))
