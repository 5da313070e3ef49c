"""The op table: every op of the graph language, and the only place that knows one.

To add an op, write its row in the family's file under `effcc/ir/table/`: name, operands, attributes, type rule, NumPy
reference and index form. Tests then check the form against the reference, and demand a spelling in every backend.
"""

from __future__ import annotations

from effcc.errors import UnknownNameError
from effcc.ir.op import Op
from effcc.ir.table import (
    control,
    create,
    gather,
    movement,
    norms,
    pointwise,
    products,
    recurrent,
    reductions,
    requirements,
    segments,
    windows,
)

TABLE: dict[str, Op] = {
    op.name: op
    for family in (
        pointwise, reductions, segments, norms, products, windows, recurrent, movement, gather, create, control,
        requirements,
    )
    for op in family.OPS
}  # fmt: skip


def lookup(name: str) -> Op:
    """The row of the op called `name`; raises UnknownNameError with the near misses."""
    try:
        return TABLE[name]
    except KeyError:
        raise UnknownNameError("op", name, TABLE) from None
