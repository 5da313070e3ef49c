"""Parameters whose types carry an encoding become what is stored of them, and a node that decodes it.

    %w: f32[8,6] = block(4,1) . int8      ->      %w_columns: i32[2,6], %w_values: i8[2,6,4], %w_scale: f32[8]
                                                  %w_1 = decode %w_columns, %w_values, %w_scale {...} : f32[8,6]

Captured models decode from the start; graphs that people write say it in the type.
"""

from __future__ import annotations

from dataclasses import replace

from effcc.errors import EncodingError
from effcc.ir.encodings import Storage, storage
from effcc.ir.graph import Graph, GraphBuilder, Value


def spell_out_encodings(graph: Graph) -> Graph:
    """The graph without encodings in its parameters' types; itself where there are none.

    A parameter is replaced by its components, in order, named after it. What the notation leaves open is stored in
    full: `block(r,c)` keeps all blocks.

    Raises EncodingError, naming graph and parameter, where an encoding does not fit its type or the parameter is
    updated; UnknownNameError for a scheme that does not exist.
    """
    if all(p.type.encoding is None for p in graph.params):
        return graph
    builder = GraphBuilder(graph.name)
    for value in (*graph.params, *(r for n in graph.nodes for r in n.results)):
        builder.fresh(value.name)  # so that no component takes the name
    decoded: dict[Value, Value] = {}
    for param in graph.params:
        weight = param.name in graph.weights
        if param.type.encoding is None:
            builder.adopt(param, weight)
            continue
        made = _storage(graph, param)
        parts = [builder.param(f"{param.name}_{c.name}", c.type, weight) for c in made.components]
        decoded[param] = builder.emit(
            "decode", *parts, name=param.name, encoding=made.encoding, dtype=made.dtype, shape=made.shape
        )
    for node in graph.nodes:
        builder.append(replace(node, operands=tuple(decoded.get(o, o) for o in node.operands)))
    outputs, updates = ([decoded.get(v, v) for v in found] for found in (graph.outputs, [v for _, v in graph.updates]))
    made_graph = builder.build(tuple(outputs), tuple(zip((p for p, _ in graph.updates), updates, strict=True)))
    return replace(made_graph, ranges=graph.ranges)


def _storage(graph: Graph, param: Value) -> Storage:
    where, type = f"graph @{graph.name}: %{param.name}", param.type
    assert type.encoding is not None
    if any(param is target for target, _ in graph.updates):
        raise EncodingError(f"{where} is stored as {type.encoding} and updated; only dense parameters can be updated")
    sizes = [d for d in type.shape if isinstance(d, int)]
    if len(sizes) != type.rank:
        raise EncodingError(f"{where}: {type.encoding} stores weights of known sizes, got {type.plain()}")
    try:
        return storage(type.encoding, sizes, type.dtype)
    except EncodingError as error:
        raise EncodingError(f"{where}: {error}") from None
