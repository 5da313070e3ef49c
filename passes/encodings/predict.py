"""What a product with a weight takes, as it is stored or decoded: asked of the models that schedule it.

The product is written as a graph, fused and tiled as it will be in a program, and predicted times are added up: what a
format's codes, tables and groups cost in instructions, and their bytes, is what the kernel's own text says. Equal
questions are answered once a process.

Where coordinates choose what is stored, a product gathers rows of transposed activations. These come from L2 in no
order, and what comes from there is not hidden behind the arithmetic: both add up (products of 128 x 768 x 768 with one
AVX-512 core, predicted and measured: csr with 80 % zeros 684 and 664 us, 90 % 357 and 349, block(4,1) 334 and 355).
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
from effcc.passes.inputs import share_inputs
from effcc.passes.panels import decode_panels
from effcc.passes.tiling.axes import settle
from effcc.passes.tiling.cost import START_SECONDS
from effcc.passes.tiling.gathered import is_gathered
from effcc.passes.tiling.operands import CACHE_LINE
from effcc.passes.tiling.tile import tile
from effcc.target import Target

TURN_SHARE = 0.4
"""What share of L2's bandwidth a copy reaches that turns what it copies."""


@lru_cache(maxsize=1024)
def scheduled_seconds(stored: Storage | None, shape: tuple[int, ...], dtype: DType, rows: int, target: Target) -> float:
    """Predicted time of a product of `rows` rows with a weight of `shape`, as it is `stored`; None: dense."""
    fused = fuse(_product(stored, shape, dtype, max(rows, 1)), target)
    program = tile(settle(share_inputs(decode_panels(fused, target), target), target), target)
    return sum(program.schedules[s.kernel].seconds for s in program.program.steps if isinstance(s, Launch))


def gathered_seconds(stored: Storage, rows: int, target: Target) -> float:
    """Predicted time of a product of `rows` rows, transposed, with a weight's stored elements: as its schedule says
    where tasks turn their own rows; else the arithmetic at its peak, the gathered rows, and activations and results
    turned before and after."""
    if _in_tasks(stored, rows, target):
        return scheduled_seconds(stored, stored.shape, stored.dtype, rows, target)
    n, k = stored.shape[0], prod(stored.shape[1:])
    size = stored.dtype.bytes
    kept = prod(stored.levels.stored)
    arithmetic = 2 * rows * kept / target.peak_flops
    row = -(-rows * size // CACHE_LINE) * CACHE_LINE
    near = target.l2_bandwidth if k * row <= target.l2_bytes else target.l3_bandwidth
    gathered = kept // stored.levels.block[0] * row / near
    turned = 2 * rows * (n + k) * size / (TURN_SHARE * target.l2_bandwidth)
    starts = 2 * START_SECONDS if target.cores > 1 else 0.0
    return arithmetic + gathered + turned + starts


@lru_cache(maxsize=1024)
def _in_tasks(stored: Storage, rows: int, target: Target) -> bool:
    """Whether each task of the product turns its own rows and sums what it gathers of them."""
    program = fuse(_product(stored, stored.shape, stored.dtype, rows), target)
    return any(is_gathered(kernel) for kernel in program.kernels.values())


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
