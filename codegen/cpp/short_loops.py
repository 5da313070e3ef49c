"""Loops that a compiler would write out though their sums need all registers: a few taps of a window.

Written out, neighbouring taps read some of the same elements, which GCC then keeps in registers from one tap to the
next. Where a tile's sums leave none to spare it moves the sums to the stack and back instead.
"""

from __future__ import annotations

from effcc.ir.vectors import Affine, Assign, Dot, Fma, Loop, bodies

_WRITTEN_OUT = 16
"""Turns of a loop that GCC writes out, at most (`max-completely-peel-times`)."""
_MANY_SUMS = 8
"""Vectors of sums in a tile, at least: half of the registers of AVX2."""


def turns_stay_apart(loop: Loop) -> bool:
    """Whether what one turn of an innermost loop loads should not be kept for the next one."""
    match loop.start, loop.stop:
        case Affine((), int(start)), Affine((), int(stop)) if 1 < -(-(stop - start) // loop.step) <= _WRITTEN_OUT:
            sums = [s for s in loop.body if isinstance(s, Assign) and isinstance(s.value, Fma | Dot)]
            vectors = [s for s in sums if s.value.type.lanes > 1 and s.value.type.rows == 1]
            return len(vectors) >= _MANY_SUMS and not any(map(bodies, loop.body))
    return False
