"""What a product with a weight takes, as it is stored or decoded: asked of the models that schedule it.

The product is written as a graph, fused and tiled as it will be in a program, and predicted times are added up: what a
format's codes, tables and groups cost in instructions, and their bytes, is what the kernel's own text says. Equal
questions are answered once a process.

Where coordinates choose what is stored, a product gathers rows of transposed activations. These come from L2 in no
order, and what comes from there is not hidden behind the arithmetic: both add up (products of 128 x 768 x 768 with one
AVX-512 core, predicted and measured: csr with 80 % zeros 684 and 664 us, 90 % 357 and 349, block(4,1) 334 and 355).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod

from effcc.ir.dtypes import DType, i64
from effcc.ir.encodings import Storage
from effcc.ir.expr import Axis, Call, Expr, Load, loads, walk
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.program import Launch
from effcc.ir.scalars import function
from effcc.ir.types import TensorType
from effcc.passes.fusion import fuse
from effcc.passes.fusion.encoded import ROWS_WORTH_VECTORS
from effcc.passes.inputs import share_inputs
from effcc.passes.panels import decode_panels
from effcc.passes.tiling.axes import settle
from effcc.passes.tiling.cost import START_SECONDS
from effcc.passes.tiling.gathered import is_gathered
from effcc.passes.tiling.operands import CACHE_LINE
from effcc.passes.tiling.tile import tile
from effcc.target import Target

OPERATION_SECONDS = 7e-11
"""One operation on one element that a task decodes for its gathered rows, of which a core has several in flight (Zen 4,
8 rows of 768 x 768, block(4,1) with 70 % zeros, beside int8: int4(group=32) takes 0.36 ns an element more for 6
operations, nf4 0.21 for 4, bfp, whose scale is a power of two that is computed, 1.16 for 19)."""
LANES = 8
"""How many elements a compiler decodes at once where no scale is shared by a group (int5 0.17 ns, fp8 0.11)."""
STREAM_SHARE = 0.75
"""What share of L3's bandwidth a product of few rows reaches that streams its weight (Zen 4, one core, one row times
768 x 768: 64 to 74 GB/s, where the probe reads 95)."""
TURN_SHARE = 0.4
"""What share of L2's bandwidth a copy reaches that turns what it copies."""


@lru_cache(maxsize=1024)
def scheduled_seconds(stored: Storage | None, shape: tuple[int, ...], dtype: DType, rows: int, target: Target) -> float:
    """Predicted time of a product of `rows` rows with a weight of `shape`, as it is `stored`; None: dense."""
    if rows < ROWS_WORTH_VECTORS:
        target = replace(target, l3_bandwidth=STREAM_SHARE * target.l3_bandwidth)
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
    operations = decode_operations(stored) / (1 if stored.values.shares_groups else LANES)
    decoded = operations * kept * OPERATION_SECONDS / target.cores
    return arithmetic + gathered + turned + starts + decoded


@lru_cache(maxsize=1024)
def decode_operations(stored: Storage) -> float:
    """Operations that make a stored element a number, one element at a time: what is the same for whole rows is counted
    with them, and addresses are not."""
    first = len(stored.levels.coordinates)
    types = [c.type for c in stored.components[first:]]

    def load(component: int, index: Sequence[Expr]) -> Expr:
        return Load(f"c{component}", tuple(index), types[component].dtype)

    place = [Axis(f"i{n}") for n in range(len(stored.levels.stored))]
    element = stored.values.element(stored.levels, load, place, Axis("n"), stored.dtype)
    made = {e for e in walk(element) if isinstance(e, Call) and e.dtype != i64 and loads(e)}
    return sum(function(e.function).instructions for e in made)


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
