"""Of a convolution's weight whose level stores its matrix, the matrix is decoded, and a view of it is what is read.

    decode %c, %v {shape=[8,6,1,1]}   =>   reshape (decode %c, %v {shape=[8,6]}) {shape=[8,6,1,1]}

Views are read through, so that the sum over input channels meets the level's condition as a linear layer's does.
"""

from __future__ import annotations

from effcc.ir.graph import Graph, Node
from effcc.passes.encodings.choose import decoded_storage
from effcc.passes.writer import Writer


def decode_matrices(graph: Graph) -> Graph:
    """The graph with levels of matrices alone; itself where there are no others."""
    matrices = {n: shape for n in graph.nodes if (shape := _matrix(n)) is not None}
    if not matrices:
        return graph
    writer = Writer(graph)
    for node in graph.nodes:
        stored = matrices.get(node)
        if stored is None:
            writer.nodes.append(node)
            continue
        a, name = node.attrs, node.result.name
        matrix = writer.emit(
            "decode",
            *node.operands,
            name=name,
            encoding=a["encoding"],
            dtype=a["dtype"],
            shape=stored,
            whole=a["whole"],
        )
        writer.emit("reshape", matrix, name=name, result=node.result, shape=a["shape"])
    return graph.with_nodes(tuple(writer.nodes))


def _matrix(node: Node) -> tuple[int, ...] | None:
    """The shape of the matrix that a decoded weight is a view of."""
    if node.op != "decode":
        return None
    matrix = decoded_storage(node).levels.of_matrix
    return None if matrix is None else matrix.shape
