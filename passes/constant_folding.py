"""Computes what depends on constants alone, where the result is one number: once here instead of at every call.

    %c = constant {value=8.0}; %r = sqrt %c          becomes  %r = constant {value=2.828427}
    %i = iota {size=8}; %m = lt %i, %n (%n = 100)  becomes  %m = full {shape=(8,), value=true}

Results with several different numbers stay computed (`iota` in a kernel costs less than a table), and so does what
would take long to find out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from effcc.errors import OutOfRangeError, RefusedValueError, ZeroDivisorError
from effcc.ir.dims import Dim
from effcc.ir.dtypes import boolean
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.op import Op
from effcc.ir.ops import lookup
from effcc.passes.rules.constants import constant_attrs, number_of

LARGEST_EVALUATED = 1 << 14
"""Elements of the largest tensor computed while compiling: larger ones are computed by compiled code in `prepare`."""


def fold_constants(graph: Graph) -> Graph:
    """`graph` with nodes on constants replaced by constants wherever the result holds one number."""
    arrays: dict[Value, Any] = {}
    nodes: list[Node] = []
    changed = False
    for node in graph.nodes:
        folded = _folded(node, arrays)
        changed |= folded is not node
        nodes.append(folded)
    return graph.with_nodes(tuple(nodes)) if changed else graph


def known_arrays(graph: Graph) -> dict[Value, Any]:
    """What depends on constants alone, and is small enough to compute here: its elements, or one number for all."""
    arrays: dict[Value, Any] = {}
    for node in graph.nodes:
        _folded(node, arrays)
    return arrays


def _folded(node: Node, arrays: dict[Value, Any]) -> Node:
    """`node`, or a constant in its place; `arrays` learns what the result is (0-d for one number, however often)."""
    spec = lookup(node.op)
    if len(node.results) != 1 or node.regions or spec.reference is None:
        return node
    if 0 in node.result.type.shape and spec.kind != "create":
        return _empty(node)
    if not all(o in arrays for o in node.operands):
        return node
    number = number_of(node)
    if number is not None:
        arrays[node.result] = np.asarray(number).astype(node.result.type.dtype.numpy)
        return node
    array = _evaluate(spec, node, [arrays[o] for o in node.operands])
    if array is None:
        return node
    arrays[node.result] = array
    if spec.kind == "create" or array.size == 0 or not _uniform(array):
        return node
    arrays[node.result] = array.reshape(-1)[0]
    op, attrs = constant_attrs(arrays[node.result].item(), node.result.type.plain())
    return replace(node, op=op, operands=(), attrs=attrs)


def _empty(node: Node) -> Node:
    """A tensor without elements: nothing to compute, whatever the operands are."""
    op, attrs = constant_attrs(False if node.result.type.dtype == boolean else 0, node.result.type.plain())
    return replace(node, op=op, operands=(), attrs=attrs)


def _evaluate(spec: Op, node: Node, operands: list[Any]) -> Any:
    """The result's elements; one for all where the operands have one and the op keeps that, whatever the sizes."""
    if operands and all(np.ndim(a) == 0 for a in operands):
        if spec.strided or node.op == "repeat":
            return operands[0]
        if spec.kind == "pointwise":
            return _reference(spec, node, operands)
    shapes = [o.type.shape for o in (*node.operands, node.result)]
    if not all(_small(s) for s in shapes):
        return None
    return _reference(
        spec, node, [np.broadcast_to(a, o.type.shape) for a, o in zip(operands, node.operands, strict=True)]
    )


def _reference(spec: Op, node: Node, operands: list[Any]) -> Any:
    assert spec.reference is not None
    with np.errstate(all="ignore"):
        try:
            result = np.asarray(spec.reference(*operands, **spec.complete_attrs(node.attrs)))
        except (TypeError, ValueError):
            return None  # NumPy refuses this op on this dtype; so will whatever runs it
        except (OutOfRangeError, RefusedValueError, ZeroDivisorError):
            return None  # the call will raise, if anybody reads it
    return result if result.dtype == node.result.type.dtype.numpy else None


def _small(shape: tuple[Dim, ...]) -> bool:
    size = 1
    for d in shape:
        if not isinstance(d, int):
            return False
        size *= d
    return size <= LARGEST_EVALUATED


def _uniform(array: Any) -> bool:
    """Whether all elements have the same bits."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.dtype((np.void, array.dtype.itemsize)))
    return bool((raw == raw[0]).all())
