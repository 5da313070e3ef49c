"""Products of few rows with columns that are far apart in memory: a query, or those that share keys, times all keys.

    einsum[g,m,n] = sum(k: Q[g,m,k] * K[g,n,k])

A register tile has lanes along n, and would gather K at every step of k: with many rows a copy of K that is turned pays
(`effcc.passes.columns`), with few rows it does not. So lanes run along k, where both factors are contiguous; what a
column reads is loaded (and decoded) once for all rows, which have accumulators of their own.
"""

from __future__ import annotations

from effcc.ir.contraction import Contraction, contraction
from effcc.ir.dims import elements
from effcc.ir.kernel import Kernel
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.build import TiledAxis
from effcc.passes.tiling.nests import NestPlan

FEW_ROWS = 8
"""So many rows are better served by lanes along columns."""
LONG_DEPTH = 32
"""A sum along lanes is worth their combination where it is at least so long."""


def is_summed_along_rows(kernel: Kernel, product: Contraction) -> bool:
    """Whether a product is computed with lanes along its depth."""
    return _rows_of(kernel, product) is not None


def rows_together(kernel: Kernel, plan: NestPlan) -> TiledAxis | None:
    """The rows that share what a nest reads of a column; None where a nest is no such product, or has one row."""
    for i in plan.reductions:
        product = contraction(kernel.statements[i], kernel.weights)
        rows = None if product is None or not product.is_outer else _rows_of(kernel, product)
        long = [(a, n) for a in rows or () if isinstance(n := kernel.extents[a], int) and n > 1]
        if len(long) == 1:
            return TiledAxis(*long[0])
    return None


def _rows_of(kernel: Kernel, product: Contraction) -> tuple[str, ...] | None:
    """The few rows of such a product; None where a register tile suits it."""
    extents = kernel.extents
    if any(not isinstance(extents[a], int) for a in (*product.rows, *product.columns, *product.depth)):
        return None
    rows, columns = (elements(tuple(extents[a] for a in axes)) for axes in (product.rows, product.columns))
    if rows > columns:
        product, rows, columns = product.turned, columns, rows
    if rows >= FEW_ROWS or columns < FEW_ROWS or product.left.constant or product.right.constant:
        return None
    layout = layouts(kernel)
    for operand, own in ((product.left, product.rows), (product.right, product.columns)):
        steps = {a: [stride(load, a, layout[load.buffer]) for load in operand.loads] for a in (*own, *product.depth)}
        if any(1 in steps[a] and extents[a] != 1 for a in own):
            return None
        along = [extents[a] for a in product.depth if 1 in steps[a]]
        if not any(isinstance(n, int) and n >= LONG_DEPTH for n in along):
            return None
    return product.rows
