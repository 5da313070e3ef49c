"""Panels of decoded weights: products of many rows decode a weight once for all rows of a task, not at every tile.

    O[m,n] = sum(k: X[m,k] * (f32(Q[n,k]) * S[n,k//32]))
    becomes  W[k,n] = f32(Q[n,k]) * S[n,k//32];  O[m,n] = sum(k: X[m,k] * W[k,n])

Tasks take columns of O by panels as wide as a register tile; each decodes its panel of W into the cache, with the
lanes side by side, and all its tiles of rows read it from there. The weight stays as it is stored. Where few rows
share a panel, codes are decoded where they are multiplied: what is predicted to be quicker is done.
"""

from __future__ import annotations

from dataclasses import replace

from effcc.ir.contraction import Contraction, Operand, contraction
from effcc.ir.dependences import is_decoded, online_axis, shared_axes
from effcc.ir.expr import Load, free_axes
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.program import Program
from effcc.passes.apart import set_apart
from effcc.passes.tiling.axes import settle_axes
from effcc.passes.tiling.choose import choose
from effcc.target import Target


def decode_panels(program: Program, target: Target) -> Program:
    """The program with panels in the kernels that are predicted to be quicker so."""
    kernels = {name: _quicker(kernel, with_panels(kernel), target) for name, kernel in program.kernels.items()}
    return replace(program, kernels=kernels)


def _quicker(inside: Kernel, apart: Kernel, target: Target) -> Kernel:
    if apart is inside:
        return inside
    return min((inside, apart), key=lambda one: choose(settle_axes(one, target), target)[1].seconds)


def with_panels(kernel: Kernel) -> Kernel:
    """The kernel with each decoded factor of its products in a statement of its own; itself where it has none."""
    if online_axis(kernel) is not None or kernel.scans or kernel.spans:
        return kernel
    done: list[Statement] = []
    for s in kernel.statements:
        product = contraction(s, kernel.weights)
        factor = _decoded_factor(kernel, product) if product is not None else None
        if product is None or factor is None:
            done.append(s)
        else:
            done += _apart(kernel, s, product, factor, [d.target for d in done])
    return kernel if len(done) == len(kernel.statements) else kernel.with_statements(tuple(done))


def _decoded_factor(kernel: Kernel, product: Contraction) -> Operand | None:
    """The factor that is computed of weights, with an axis along which tasks can be cut."""
    if not product.is_outer or not product.in_place or product.dot is not None:
        return None
    shared = shared_axes(kernel)
    for operand, own in ((product.left, product.rows), (product.right, product.columns)):
        computed = operand.constant and not isinstance(operand.unwidened, Load) and operand.value.dtype.is_float
        known = all(isinstance(kernel.extents[a], int) for a in free_axes(operand.value))
        if computed and known and any(a in shared for a in own):
            return operand
    return None


def _apart(kernel: Kernel, s: Statement, product: Contraction, factor: Operand, taken: list[str]) -> list[Statement]:
    """The statement that decodes a factor, and the product that reads it."""
    own = product.columns if factor is product.right else product.rows
    used = free_axes(factor.value)
    axes = tuple(a for a in (*product.batch, *product.depth, *own) if a in used)
    return set_apart(kernel, s, Statement(f"{s.target}_panel", axes, factor.value), taken, is_decoded)
