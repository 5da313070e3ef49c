"""Loops over keys that masks of positions bound: tiles that no row of a task sees are passed over.

    for n by 64 { ... }     of     M[m] = max(n: where(n <= m, S[m,n], -inf))     inside of  parallel m by 32

becomes, with rows from m_0 on,

    n_first[] = 0
    n_end[] = minimum(1024, m_0 + 32)
    for n in n_first[]..n_end[] step 64 { ... }

and what asks for the condition in there is there twice: with it, and without for tiles that all rows see whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from effcc.codegen.lower_ranges import ZERO, Cutter, Ranges
from effcc.ir.dtypes import i64
from effcc.ir.expr import Call, Const, Expr, Load, add, both, compare, floor_div, integer, multiply
from effcc.ir.kernel import Kernel
from effcc.ir.loops import Alloc, Stmt, Tile
from effcc.ir.masks import Box, Mask, seen_by_all, seen_by_any


def needed(
    mask: Mask, kernel: Kernel, step: int, ranges: Ranges, cutter: Cutter, place: Callable[[Expr], Expr]
) -> tuple[list[Stmt], tuple[Expr, Expr]]:
    """From where to where the keys are that some row sees, in whole tiles, and what computes that."""
    firsts, lasts = seen_by_any(mask, _box(mask, ranges))
    first = functools.reduce(_maximum, map(place, firsts), ZERO)
    if first != ZERO:
        first = multiply(floor_div(first, Const(step, i64)), Const(step, i64))
    ends = (add(place(last), Const(1, i64)) for last in lasts)
    end = functools.reduce(_minimum, ends, integer(kernel.extents[mask.axis]))
    out: list[Stmt] = []
    found: list[Expr] = []
    for name, value in (("first", first), ("end", end)):
        if isinstance(value, Const):
            found.append(value)
            continue
        load = Load(cutter.first_or_fresh(f"{mask.axis}_{name}"), (), i64)
        out += [Alloc(load.buffer, i64, (), "register"), Tile((), load.buffer, (), "set", value)]
        found.append(load)
    return out, (found[0], found[1])


def inside(mask: Mask, ranges: Ranges, place: Callable[[Expr], Expr]) -> Expr | None:
    """The condition that all rows see all of a tile; None where the keys are not cut, or are known to be seen, or where
    rows are together, for which it has been asked around them: no lane branches alone.
    """
    r = ranges[mask.axis]
    if not r.trail or r.inside or r.placed or any(ranges[a].tile is not None for b in mask.bounds for a, _ in b.steps):
        return None
    firsts, lasts = seen_by_all(mask, _box(mask, ranges))
    first, last = _ends(mask.axis, ranges)
    from_there = (compare("le", place(x), first) for x in firsts)
    return both(*from_there, *(compare("le", last, place(x)) for x in lasts))


def _box(mask: Mask, ranges: Ranges) -> Box:
    return {a: _ends(a, ranges) for bound in mask.bounds for a, _ in bound.steps}


def _ends(axis: str, ranges: Ranges) -> tuple[Expr, Expr]:
    """The first and the last point of what is left of an axis."""
    r = ranges[axis]
    first = r.position()
    count = Const(r.count, i64) if isinstance(r.count, int) else r.count
    return first, add(add(first, count), Const(-1, i64))


def _maximum(a: Expr, b: Expr) -> Expr:
    return Call("maximum", (a, b), i64)


def _minimum(a: Expr, b: Expr) -> Expr:
    return Call("minimum", (a, b), i64)
