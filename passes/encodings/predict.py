"""What a product with a weight takes, as it is stored or decoded: asked of the models that schedule it.

The product is written as a graph, fused and tiled as it will be in a program, and predicted times are added up: what a
format's codes, tables and groups cost in instructions, and their bytes, is what the kernel's own text says. Equal
questions are answered once a process.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

from effcc.ir.dtypes import DType
from effcc.ir.encodings import Storage
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.program import Launch
from effcc.ir.types import TensorType
from effcc.passes.fusion import fuse
from effcc.passes.panels import decode_panels
from effcc.passes.tiling.axes import settle
from effcc.passes.tiling.tile import tile
from effcc.target import Target


@lru_cache(maxsize=1024)
def scheduled_seconds(stored: Storage | None, shape: tuple[int, ...], dtype: DType, rows: int, target: Target) -> float:
    """Predicted time of a product of `rows` rows with a weight of `shape`, as it is `stored`; None: dense."""
    fused = fuse(_product(stored, shape, dtype, max(rows, 1)), target)
    program = tile(settle(decode_panels(fused, target), target), target)
    return sum(program.schedules[s.kernel].seconds for s in program.program.steps if isinstance(s, Launch))


def _product(stored: Storage | None, shape: tuple[int, ...], dtype: DType, rows: int) -> Graph:
    """`rows` rows times a weight, [N, K]: axes after the first count as one."""
    builder = GraphBuilder("product")
    if stored is None:
        weight = builder.param("w", TensorType(dtype, shape), weight=True)
    else:
        parts = [builder.param(c.name, c.type, weight=True) for c in stored.components]
        weight = builder.emit("decode", *parts, encoding=stored.encoding, dtype=dtype, shape=shape)
    matrix = (shape[0], prod(shape[1:]))
    if shape != matrix:
        weight = builder.emit("reshape", weight, shape=matrix)
    x = builder.param("x", TensorType(dtype, (rows, matrix[1])))
    return builder.build((builder.emit("linear", x, weight),))
