"""Products of two activations of which one is packed at each call.

By dot products of packed lanes:
    scores[b,m,n] = sum(k: cast<f32>(q[b,m,k]) * cast<f32>(v[b,k,n]))      # q, v: bf16
    becomes  the same with v among what the kernel may pack, in pairs along k
And where lanes would be gathered along a depth that only a call knows, which no panel in the cache has room for:
    scores[b,m,n] = sum(k: q[b,m,k] * v[b,n,k])                            # k=s0

A weight is packed when it is first seen. An activation is packed by a step of its own, just before the product that
reads it: its elements are moved once, and each is multiplied by as many rows as the product has.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from effcc.ir.contraction import Contraction, Operand, contractions
from effcc.ir.dependences import walked_axis
from effcc.ir.dims import elements
from effcc.ir.expr import Load
from effcc.ir.kernel import Kernel
from effcc.ir.program import Program
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.dots import packed_product
from effcc.passes.tiling.pack import packable
from effcc.target import Target

_ROWS = 16
"""So many rows must multiply an element: to move it costs about as much as two do."""
_POINTS = 1 << 18
"""So many products take some microseconds, as threads do to meet after a step of its own."""


def pack_at_calls(program: Program, target: Target) -> Program:
    """The program whose kernels may pack such factors, which `effcc.passes.tiling.tile` then does at each call: what
    `prepare` computes, of weights alone, is left as it is."""
    once = program.prepared_by
    kernels = {n: kernel if n in once else _packing(kernel, target) for n, kernel in program.kernels.items()}
    return program if kernels == dict(program.kernels) else replace(program, kernels=kernels)


def _packing(kernel: Kernel, target: Target) -> Kernel:
    for product in contractions(kernel).values():
        if product.left.constant or product.right.constant:
            continue
        if product.dot is None and (given := _turned(kernel, product)) is not None:
            return given
        for factor in _by_lanes(kernel, product) if product.dot is not None else ():
            given = replace(kernel, weights=kernel.weights | {factor.data.buffer})
            rows = _points(kernel, product.rows if factor is product.right else product.columns)
            points = _points(kernel, (*product.batch, *product.rows, *product.columns, *product.depth))
            (again,) = (c for c in contractions(given).values() if c.target == product.target)
            if rows >= _ROWS and points >= _POINTS and packed_product(given, again, target) is not None:
                return given
    return kernel


def _turned(kernel: Kernel, product: Contraction) -> Kernel | None:
    """The kernel packing a factor along its own axis, where both lie along depths that only calls know."""
    layout = layouts(kernel)
    unknown = any(not isinstance(kernel.extents[a], int) for a in product.depth)
    if not unknown or not product.is_outer or not product.in_place or walked_axis(kernel) is not None or kernel.scans:
        return None
    for operand, own in ((product.left, product.rows), (product.right, product.columns)):
        if not isinstance(operand.unwidened, Load) or operand.gathered:
            return None
        if any(stride(operand.data, a, layout[operand.data.buffer]) == 1 for a in own):
            return None
    for factor in _by_lanes(kernel, product):
        rows, columns = product.rows, product.columns
        others, own = (rows, columns) if factor is product.right else (columns, rows)
        many = min(elements(tuple(kernel.extents[a] for a in side)) for side in (others, own)) >= _ROWS
        if many and any(packable(kernel, factor.data, a) for a in own):
            return replace(kernel, weights=kernel.weights | {factor.data.buffer})
    return None


def _by_lanes(kernel: Kernel, product: Contraction) -> list[Operand]:
    """The factors that are parameters read alone, first the one along whose axis results are neighbours."""
    innermost = next(a for s in kernel.statements if s.target == product.target for a in reversed(s.axes))
    inside = {p.name for p in kernel.params} - {p.name for p in kernel.outputs}
    first = product.left if innermost in product.rows else product.right
    other = product.right if first is product.left else product.left
    read = [x.buffer for s in kernel.statements for x in s.reads]
    return [o for o in (first, other) if o.data.buffer in inside and read.count(o.data.buffer) == 1]


def _points(kernel: Kernel, axes: tuple[str, ...]) -> int:
    """How many points axes have, at least."""
    return prod(n for a in axes if isinstance(n := kernel.extents[a], int))
