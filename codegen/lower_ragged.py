"""Ragged axes inside loops: where the points of one begin and end is read before the loop over them.

    for j by 1 { do Y }     of     Y[i,f] = sum(j in P[i]..P[i + 1]: V[j] * X[C[j],f])

becomes, i being at a point,

    j_first[] = maximum(0, minimum(P[i], z))
    j_end[] = maximum(j_first[], minimum(P[i + 1], z))
    for j in 0..j_end[] - j_first[] step 1 { ... V[j_first[] + j] ... }

so that nothing outside of the axis is touched, whatever the data.
"""

from __future__ import annotations

from collections.abc import Callable

from effcc.codegen.lower_ranges import ZERO, Cutter, Range, Ranges
from effcc.ir.dtypes import i64
from effcc.ir.expr import Call, Expr, Load, Span, integer
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.loops import Alloc, Stmt, Tile
from effcc.ir.schedule import Do, Loop, Path, nodes


def span_of(loop: Loop, at: Path, statement_at: Callable[[Path], Statement]) -> Span | None:
    """The span that the statements inside a loop give its axis."""
    for path, node in nodes(loop.body, at):
        if isinstance(node, Do):
            found = next((span for span in statement_at(path).spans if span.axis == loop.axis), None)
            if found is not None:
                return found
    return None


def opened(
    span: Span, kernel: Kernel, ranges: Ranges, cutter: Cutter, place: Callable[[Expr], Expr]
) -> tuple[list[Stmt], Ranges]:
    """What reads the ends of a span, and the ranges in which its axis is what lies between them."""
    extent = integer(kernel.extents[span.axis])
    names = [cutter.first_or_fresh(f"{span.axis}_{end}") for end in ("first", "end")]
    first, end = (Load(name, (), i64) for name in names)
    out: list[Stmt] = []
    for load, value, least in ((first, span.start, ZERO), (end, span.stop, first)):
        within = Call("maximum", (least, Call("minimum", (place(value), extent), i64)), i64)
        out += [Alloc(load.buffer, i64, (), "register"), Tile((), load.buffer, (), "set", within)]
    count = Call("sub", (end, first), i64)
    return out, {**ranges, span.axis: Range(count, None, (first,))}
