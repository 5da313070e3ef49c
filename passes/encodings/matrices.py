"""Of a convolution's weight whose level stores its matrix, the matrix is decoded, and a view of it is what is read.

    decode %c, %v {shape=[8,6,1,1]}   =>   reshape (decode %c, %v {shape=[8,6]}) {shape=[8,6,1,1]}

Views are read through, so that the sum over input channels meets the level's condition as a linear layer's does.
"""

from __future__ import annotations

from effcc.ir.encodings.levels import Flattened
from effcc.ir.graph import Graph, Node
from effcc.passes.encodings.choose import decoded_storage
from effcc.passes.writer import Writer


def decode_matrices(graph: Graph) -> Graph:
    """The graph with levels of matrices alone; itself where there are no others."""
    flattened = {n: made for n in graph.nodes if (made := _flattened(n)) is not None}
    if not flattened:
        return graph
    writer = Writer(graph)
    for node in graph.nodes:
        made = flattened.get(node)
        if made is None:
            writer.nodes.append(node)
            continue
        a, name, shape = node.attrs, node.result.name, made.matrix.shape
        matrix = writer.emit(
            "decode", *node.operands, name=name, encoding=a["encoding"], dtype=a["dtype"], shape=shape, whole=a["whole"]
        )
        writer.emit("reshape", matrix, name=name, result=node.result, shape=made.shape)
    return graph.with_nodes(tuple(writer.nodes))


def _flattened(node: Node) -> Flattened | None:
    if node.op != "decode":
        return None
    levels = decoded_storage(node).levels
    return levels if isinstance(levels, Flattened) else None
