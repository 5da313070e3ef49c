"""Which nodes of the graph each step of a program computes.

Fusion leaves no record of it, and needs none: buffers are named after the graph's values, so a step computes what lies
between the values that it reads and those that it writes. What is cheap may be computed by several readers; a node then
belongs to each of them. A buffer that is named `v.1` holds a part of the value v.
"""

from __future__ import annotations

from collections.abc import Sequence

from effcc.ir.graph import Graph
from effcc.ir.program import Program


def origins(graph: Graph, program: Program) -> list[tuple[int, ...]]:
    """For each of `program.steps`, the positions in `graph.nodes` of the nodes that it computes; none where a step only
    copies, or computes what no node is called after."""
    made_by = {value.name: k for k, node in enumerate(graph.nodes) for value in node.results}
    stored = {name for step in program.steps for name in step.results if name in made_by}
    return [_between(graph, made_by, stored, step.arguments, step.results) for step in program.steps]


def _between(
    graph: Graph, made_by: dict[str, int], stored: set[str], arguments: Sequence[str], results: Sequence[str]
) -> tuple[int, ...]:
    """The nodes from which `results` follow, back to what is read or has been stored."""
    parts = {value for name in arguments if name not in made_by and (value := _whole(name, made_by))}
    ends = stored | set(arguments)
    found: set[int] = set()
    pending = [value for name in results if (value := name if name in made_by else _whole(name, made_by))]
    while pending:
        name = pending.pop()
        if made_by[name] in found:
            continue
        found.add(made_by[name])
        if name not in parts:
            node = graph.nodes[made_by[name]]
            pending += [v.name for v in node.operands if v.name in made_by and v.name not in ends]
    return tuple(sorted(found))


def _whole(name: str, made_by: dict[str, int]) -> str:
    """The value that a buffer holds a part of, or holds in another layout; empty where there is none."""
    while "." in name:
        name = name.rpartition(".")[0]
        if name in made_by:
            return name
    return ""
