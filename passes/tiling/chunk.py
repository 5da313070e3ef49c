"""How far one accumulator sums before its partial result is set aside and it starts afresh.

Rounding errors of a sum in sequence grow with the partial sums they are made on: over n terms of random sign their
variance is about n^2 / 2 units, over chunks of c terms whose n / c results are then summed about n (c + n / c) / 2
(Higham, "The accuracy of floating point summation", 1993: blocked summation). Matrix libraries get this from blocking k
for the caches, at some 150 to 400 terms; so a product that runs over all of k at once is several times less accurate
than eager's from k = 3000 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from effcc.ir.kernel import Kernel
from effcc.passes.tiling.build import TiledAxis

PRODUCT = 256
"""Terms of a product that one accumulator sums in sequence. A register tile is set aside in about two of its steps, so
that chunks of 256 steps cost a hundredth."""
SUM = 64
"""Terms of a plain sum, which waits for memory: eager's sums are cascades, about as accurate as pairwise ones."""


def chunk_of(
    kernel: Kernel,
    reductions: Sequence[int],
    reduced: Sequence[str],
    counts: Mapping[str, int],
    longest: int,
    lanes: int = 1,
) -> TiledAxis | None:
    """Where to cut the reduced loops of a nest, `reduced` given outermost first; None where they are short enough.

    `counts` are the axes' extents, `longest` is the most terms in sequence (half as many again stay whole), `lanes` how
    many points of the innermost axis go to accumulators of their own.
    """
    sums = [kernel.statements[i] for i in reductions]
    if not any(s.reduction is not None and s.reduction.operator == "sum" and s.dtype.is_float for s in sums):
        return None
    terms = {a: counts[a] for a in reduced}
    if reduced:
        terms[reduced[-1]] = -(-terms[reduced[-1]] // lanes)
    if prod(terms.values()) <= longest * 3 // 2:
        return None
    inside = 1
    for axis in reversed(reduced):
        if inside * terms[axis] > longest:
            step = lanes if axis == reduced[-1] else 1
            return TiledAxis(axis, step * _even(terms[axis], max(longest // inside, 1)))
        inside *= terms[axis]
    return None


def _even(extent: int, longest: int) -> int:
    """The largest tile up to `longest` that leaves no rest, if one of at least half that does; else `longest`."""
    return next((t for t in range(min(longest, extent), longest // 2, -1) if extent % t == 0), longest)
