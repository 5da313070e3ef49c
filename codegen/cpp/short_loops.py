"""Loops that a compiler would write out though their sums need all registers: a few taps of a window.

Written out, neighbouring taps read some of the same elements, which GCC then keeps in registers from one tap to the
next. Where a tile's sums leave none to spare it moves the sums to the stack and back instead.
"""

from __future__ import annotations

from collections.abc import Iterator

from effcc.ir.dims import Dim
from effcc.ir.vectors import Affine, Assign, Dot, Fma, Line, Load, Loop, Value, bodies, parts

_WRITTEN_OUT = 16
"""Turns of a loop that GCC writes out, at most (`max-completely-peel-times`)."""
_MANY_SUMS = 8
"""Vectors of sums in a tile, at least: half of the registers of AVX2."""


def turns_stay_apart(loop: Loop) -> bool:
    """Whether what one turn of an innermost loop loads should not be kept for the next one."""
    turns = _turns(loop)
    if not 1 < turns <= _WRITTEN_OUT or any(map(bodies, loop.body)):
        return False
    sums = [s for s in loop.body if isinstance(s, Assign) and isinstance(s.value, Fma | Dot)]
    vectors = {s.name for s in sums if s.value.type.lanes > 1 and s.value.type.rows == 1}
    return len(vectors) >= _MANY_SUMS and _read_again(loop, turns)


def _turns(loop: Loop) -> int:
    """How often a loop runs; 0 where that is not known."""
    match loop.start, loop.stop:
        case Affine((), int(start)), Affine((), int(stop)):
            return -(-(stop - start) // loop.step)
    return 0


def _read_again(loop: Loop, turns: int) -> bool:
    """Whether a later turn loads from a place that an earlier one loaded from."""
    read: dict[object, list[int]] = {}
    for load in (x for line in loop.body for x in _loads(line)):
        terms: dict[str, Dim] = dict(load.place.at.terms)
        apart, constant = terms.pop(loop.name, 0), load.place.at.constant
        if isinstance(apart, int) and apart and isinstance(constant, int):
            step = abs(apart) * loop.step
            others = read.setdefault((load.place.buffer, apart, frozenset(terms.items())), [])
            if any(abs(constant - other) in range(step, turns * step, step) for other in others):
                return True
            others.append(constant)
    return False


def _loads(node: Value | Line) -> Iterator[Load]:
    if isinstance(node, Load):
        yield node
    for part in parts(node):
        yield from _loads(part)
