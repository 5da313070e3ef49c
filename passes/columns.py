"""Keys turned once: operands of one-pass kernels whose columns are far apart in memory.

    einsum[b,m,n] = sum(k: Q[b,m,k] * K[b,n,k])
    becomes  columns[b,n,k] = K[b,n,k];  einsum[b,m,n] = sum(k: Q[b,m,k] * columns[b,n,k])

Lanes along n would gather K at every step of k, for every few rows of Q. The copy is made for each tile of n that the
kernel walks and read by all rows of a task; it lies in the cache with the lanes side by side. Tasks that share keys
make it again, which costs them about what a few rows of the product do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from effcc.ir.contraction import Contraction, Operand, contraction
from effcc.ir.dependences import is_copy, walked_axis
from effcc.ir.dims import elements
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.program import Program
from effcc.passes.apart import set_apart
from effcc.passes.tiling.access import layouts, stride

_ROWS = 8
"""So many rows must read a column: fewer gather less than a copy does."""


def turn_columns(program: Program) -> Program:
    """The program with such operands copied in the kernels that read them."""
    kernels = {name: with_columns(kernel) for name, kernel in program.kernels.items()}
    return replace(program, kernels=kernels)


def with_columns(kernel: Kernel) -> Kernel:
    """The kernel reading such operands from copies; equal to what it was where it has none."""
    axis = walked_axis(kernel)
    if axis is None:
        return kernel
    done: list[Statement] = []
    for s in kernel.statements:
        product = contraction(s, kernel.weights)
        columns = _far_columns(kernel, product, axis) if product is not None else None
        if columns is None:
            done.append(s)
        else:
            done += _copied(kernel, s, columns, [d.target for d in done])
    return kernel.with_statements(tuple(done))


def _far_columns(kernel: Kernel, product: Contraction, axis: str) -> Operand | None:
    """The operand along `axis`, where neither it nor the other one is contiguous along an axis of its own."""
    if axis in product.rows:
        product = product.turned
    if axis not in product.columns or not product.is_outer:
        return None
    layout = layouts(kernel)
    for operand, own in ((product.left, product.rows), (product.right, product.columns)):
        if any(stride(operand.data, a, layout[operand.data.buffer]) == 1 for a in own):
            return None
    rows = elements(tuple(kernel.extents[a] for a in product.rows))
    known = all(isinstance(kernel.extents[a], int) for a in product.depth)
    return product.right if rows >= _ROWS and known and not product.right.constant else None


def _copied(kernel: Kernel, s: Statement, columns: Operand, taken: Sequence[str]) -> list[Statement]:
    """The copy, and the product that reads it; the product alone where what it reads is no copy of a parameter."""
    order = dict.fromkeys((*s.axes, *(s.reduction.axes if s.reduction is not None else ())))
    axes = tuple(a for a in order if a in columns.axes)
    copy = Statement(f"{columns.data.buffer}_columns", axes, columns.value)
    return set_apart(kernel, s, copy, taken, is_copy)
