"""Transcendental functions and divisions that one kernel uses many times become calls.

Written out at every place, a register tile with an activation (22 polynomials of 40 instructions each) takes longer to
compile than all the rest; a call costs little beside the polynomial. Processors divide vectors of integers lane by
lane: a quotient or a remainder is a branch and a division for each of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from effcc.codegen.cpp.spelling import SPELLINGS
from effcc.ir.vectors import Call, Function, Let, Type

_INLINED = 6
"""A function used at no more places than this is written out at each."""

_HEAVY = frozenset(name for name, spelling in SPELLINGS.items() if spelling.header not in ("vec.h", "pow.h"))

_DIVISIONS = ("floordiv", "mod")


def outline(function: Function) -> Function:
    """`function` with its frequent transcendental functions and divisions called instead of inlined."""
    places: Counter[tuple[str, Type]] = Counter()
    for line in function.lines:
        match line:
            case Let(_, Call(name, _, type)) if name in _HEAVY or (name in _DIVISIONS and type.lanes > 1):
                places[name, type] += 1
    frequent = frozenset(called for called, count in places.items() if count > _INLINED)
    return replace(function, called=frequent) if frequent else function
