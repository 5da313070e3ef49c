"""Graphs as text: parameters with their types, one line for each node, regions as nested graphs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from effcc.ir.dims import show
from effcc.ir.dtypes import DType
from effcc.ir.encoding import Encoding
from effcc.ir.graph import Attribute, Graph, Node, Value
from effcc.ir.op import REQUIRED
from effcc.ir.ops import TABLE
from effcc.ir.printer.expressions import show_number
from effcc.ir.printer.kernels import show_location


def print_graph(graph: Graph, indent: str = "", locations: bool = True) -> str:
    """The text of a graph; `locations` adds the nodes' locations as comments, which the parser drops."""
    params = ", ".join(("weight " if p.name in graph.weights else "") + repr(p) for p in graph.params)
    lines = [f"graph @{graph.name}({params}){show_ranges(graph.ranges)} {{"]
    lines += [show_node(node, "  ", locations) for node in graph.nodes]
    lines += [f"  update %{param.name}, %{value.name}" for param, value in graph.updates]
    lines += ["  return" + _values(graph.outputs), "}"]
    return "\n".join(indent + line for text in lines for line in text.split("\n"))


def show_node(node: Node, indent: str = "", locations: bool = True) -> str:
    """`%y = gelu %h {approximate="none"} : f32[4]`, with its regions as graphs before the types."""
    text = f"{_values(node.results).strip()} = {node.op}" if node.results else node.op
    text += _values(node.operands)
    attrs = _in_table_order(node)
    if attrs:
        text += f" {show_attributes(attrs)}"
    for region in node.regions:
        text += " " + print_graph(region, indent, locations).lstrip()
    if node.results:
        text += " : " + ", ".join(str(r.type) for r in node.results)
    return indent + text + show_location(node.location, locations)


def _in_table_order(node: Node) -> dict[str, Attribute]:
    """The node's attributes as the op table lists them, with defaults; then any that it does not know."""
    listed = TABLE[node.op].attrs if node.op in TABLE else {}
    known = {name: node.attrs.get(name, default) for name, default in listed.items()}
    return {name: v for name, v in {**known, **node.attrs}.items() if v is not REQUIRED}


def show_attributes(attrs: Mapping[str, Attribute]) -> str:
    """`{axis=1, keepdim=false}`."""
    return "{" + ", ".join(f"{name}={show_attribute(value)}" for name, value in attrs.items()) + "}"


def show_attribute(value: Attribute) -> str:
    """An attribute's value: `null`, `true`, `3`, `0.5`, `"text"`, `f32`, `<int8>`, `2*s0`, `[1,2]`."""
    match value:
        case None:
            return "null"
        case bool() | float():
            return show_number(value)
        case str():
            return json.dumps(value)
        case DType():
            return value.name
        case Encoding():
            return f"<{value}>"
        case tuple() | list():
            return "[" + ",".join(show_attribute(v) for v in value) + "]"
    return show(value)


def show_ranges(ranges: Mapping[str, tuple[int, int | None]]) -> str:
    """` where s0 in 1..512, s1 in 2..`; nothing where no size symbol is bounded."""
    if not ranges:
        return ""
    parts = (f"{name} in {low}..{'' if high is None else high}" for name, (low, high) in ranges.items())
    return " where " + ", ".join(parts)


def _values(values: Iterable[Value]) -> str:
    text = ", ".join(f"%{v.name}" for v in values)
    return f" {text}" if text else ""
