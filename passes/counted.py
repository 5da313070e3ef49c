"""Scans as loops that count: the graphs of such a loop's test and body.

    %h, %ys = scan %h0, %xs {length=5}          %count = 0
      graph @step(%h, %x) {                     while %count < 5:
        ... return %next, %y                      %x = index %xs, %count;  ... the step's nodes
      }                                           %ys = index_put %ys, %y, %count {axes=[0]}
                                                  %count = add %count, 1

What is stacked is stored where it belongs, row by row (`effcc.passes.in_place`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from effcc.ir.dims import Dim, dim
from effcc.ir.dtypes import i64
from effcc.ir.graph import Graph, GraphBuilder, Value
from effcc.ir.types import TensorType


def begun(stacked: Sequence[TensorType], length: Dim, reverse: bool) -> Graph:
    """The number of the first step, and zeros for what is stacked."""
    builder = GraphBuilder("begin")
    first = _number(builder, dim(length - 1) if reverse else 0, "scan.first")
    zeros = [builder.emit("full", shape=t.shape, value=0, dtype=t.dtype, name="scan.blank") for t in stacked]
    return builder.build((first, *zeros))


def counted(
    region: Graph, xs: Sequence[TensorType], stacked: Sequence[TensorType], length: Dim, reverse: bool
) -> tuple[Graph, Graph]:
    """The test and the body of a scan's loop. Both take the step's number, the state, what is stacked, the whole
    scanned operands, and the fixed ones."""
    carried = len(region.outputs) - len(stacked)
    state, slices = region.params[:carried], region.params[carried : carried + len(xs)]
    fixed = region.params[carried + len(xs) :]

    def bodied(name: str) -> tuple[GraphBuilder, Value, list[Value], list[Value]]:
        builder = GraphBuilder(name)
        count = builder.param("scan.count", TensorType(i64, (1,)))
        for value in state:
            builder.adopt(value)
        results = [builder.param(f"scan.stacked{n}", t) for n, t in enumerate(stacked)]
        whole = [builder.param(f"scan.x{n}", t) for n, t in enumerate(xs)]
        for value in fixed:
            builder.adopt(value)
        return builder, count, results, whole

    test, count, _, _ = bodied("test")
    end = _number(test, -1 if reverse else length, "scan.end")
    more = test.emit("gt" if reverse else "lt", count, end, name="scan.more")
    tested = test.build((test.emit("reshape", more, shape=(), name="scan.goes_on"),))
    body, count, results, whole = bodied("step")
    instead: dict[Value, Value] = {}
    for n, (x, part) in enumerate(zip(whole, slices, strict=True)):
        row = body.emit("index", x, count, axes=(0,), checked=False, name=f"scan.row{n}")
        instead[part] = body.emit("reshape", row, shape=part.type.shape, name=f"scan.slice{n}")
    for node in region.nodes:
        body.append(replace(node, operands=tuple(instead.get(o, o) for o in node.operands)))
    outputs = [instead.get(v, v) for v in region.outputs]
    for n, (into, value) in enumerate(zip(results, outputs[carried:], strict=True)):
        row = body.emit("reshape", value, shape=(1, *value.type.shape), name=f"scan.put{n}")
        how = {"axes": (0,), "checked": False, "wraps": False}
        outputs[carried + n] = body.emit("index_put", into, row, count, name=f"scan.written{n}", **how)
    one = _number(body, -1 if reverse else 1, "scan.one")
    return tested, body.build((body.emit("add", count, one, name="scan.next"), *outputs))


def _number(builder: GraphBuilder, value: Dim, name: str) -> Value:
    """A tensor of one integer."""
    if isinstance(value, int):
        return builder.emit("full", shape=(1,), value=value, dtype=i64, name=name)
    return builder.emit("iota", size=1, start=value, dtype=i64, name=name)
