"""Panels of decoded weights: products of many rows decode a weight once for all rows of a task, not at every tile.

    O[m,n] = sum(k: X[m,k] * (f32(Q[n,k]) * S[n,k//32]))
    becomes  W[k,n] = f32(Q[n,k]) * S[n,k//32];  O[m,n] = sum(k: X[m,k] * W[k,n])

Tasks take columns of O by panels as wide as a register tile; each decodes its panel of W into the cache, with the
lanes side by side, and all its tiles of rows read it from there. The weight stays as it is stored. Where few rows
share a panel, codes are decoded where they are multiplied: what is predicted to be quicker is done.

A factor that is no weight is copied so, too, where its rows share their sets of the L1 cache: 384 columns of f32, or a
weight's gradient, `dW[m,n] = sum(k: X[k,m] * dY[k,n])`. A program that computes gradients sees other weights at every
call: what would be packed before it is copied panel by panel where that is predicted to be quicker, and no packed copy
of weights is written to memory and read again.
"""

from __future__ import annotations

from dataclasses import replace

from effcc.ir.contraction import Contraction, Operand, contraction
from effcc.ir.dependences import is_made_anew, shared_axes, walked_axis
from effcc.ir.dims import elements
from effcc.ir.expr import Load, free_axes
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.program import Program
from effcc.passes.apart import set_apart
from effcc.passes.tiling.axes import settle_axes
from effcc.passes.tiling.choose import choose
from effcc.target import Target

_PACKING_PASSES = 3
"""Times that the bytes of a packed copy pass between memory and caches: read, fetched to be written, and written."""


def decode_panels(program: Program, target: Target, once: bool = True) -> Program:
    """The program with panels in the kernels that are predicted to be quicker so.

    once: whether weights are packed once for many calls, and not at every call.
    """
    kernels = {n: _quicker(k, with_panels(k, copied=not once), target, once) for n, k in program.kernels.items()}
    return replace(program, kernels=kernels)


def _quicker(inside: Kernel, apart: Kernel, target: Target, once: bool) -> Kernel:
    if apart is inside:
        return inside

    def seconds(kernel: Kernel) -> float:
        packed, schedule = choose(settle_axes(kernel, target), target)
        wanted = {w.buffer for w in schedule.packs} if not once else set()
        copies = sum(elements(p.type.shape) * p.type.dtype.bytes for p in packed.params if p.name in wanted)
        return schedule.seconds + _PACKING_PASSES * copies / target.memory_bandwidth

    return min((inside, apart), key=seconds)


def with_panels(kernel: Kernel, copied: bool = False) -> Kernel:
    """The kernel with each decoded factor of its products in a statement of its own; itself where it has none.

    copied: also weights that are stored as they are multiplied.
    """
    if walked_axis(kernel) is not None or kernel.scans or kernel.spans:
        return kernel
    done: list[Statement] = []
    for s in kernel.statements:
        product = contraction(s, kernel.weights)
        factor = _decoded_factor(kernel, product, copied) if product is not None else None
        if product is None or factor is None:
            done.append(s)
        else:
            done += _apart(kernel, s, product, factor, [d.target for d in done])
    return kernel if len(done) == len(kernel.statements) else kernel.with_statements(tuple(done))


def _decoded_factor(kernel: Kernel, product: Contraction, copied: bool) -> Operand | None:
    """The factor that is computed of weights (`copied`: or that is stored so), with an axis to cut tasks along."""
    if not product.is_outer or not product.in_place or product.dot is not None:
        return None
    shared, result = shared_axes(kernel), kernel.definition(product.target)
    innermost = next((a for a in reversed(result.axes) if a not in product.batch), "") if result is not None else ""
    for operand, own in ((product.left, product.rows), (product.right, product.columns)):
        stored = isinstance(operand.unwidened, Load) and not (copied and isinstance(operand.value, Load))
        computed = operand.constant and not stored and operand.value.dtype.is_float
        # A panel is as long as the depth, and as wide as a register tile of an axis that tasks share.
        unknown = {a for a in free_axes(operand.value) if not isinstance(kernel.extents[a], int)}
        known = unknown <= {*own, *product.batch} & {*shared}
        activation = innermost in own and not product.left.constant and not product.right.constant
        activation = activation and isinstance(operand.value, Load) and operand.value.dtype.is_float
        if (computed or activation) and known and (activation or any(a in shared for a in own)):
            return operand
    return None


def _apart(kernel: Kernel, s: Statement, product: Contraction, factor: Operand, taken: list[str]) -> list[Statement]:
    """The statement that decodes a factor, and the product that reads it."""
    own = product.columns if factor is product.right else product.rows
    used = free_axes(factor.value)
    axes = tuple(a for a in (*product.batch, *product.depth, *own) if a in used)
    return set_apart(kernel, s, Statement(f"{s.target}_panel", axes, factor.value), taken, is_made_anew)
