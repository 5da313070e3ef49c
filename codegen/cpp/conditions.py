"""What the condition of a `where` says: a domain, on which something is defined, or the model's choice by its data.

The values of a domain's other side are none of the model's, nor are run-time checks there. Of a choice eager computes
both sides, so that checks hold on both or the call raises.
"""

from __future__ import annotations

from collections.abc import Iterator

from effcc.ir.expr import Axis, Call, Expr, Load, walk
from effcc.ir.scalars import is_check


def is_domain(e: Call) -> bool:
    """Whether the condition of a `where` says where something is defined: nothing that it reads is data."""
    return not any(isinstance(node, Load) for node in walk(e.operands[0]))


def of_data_alone(condition: Expr) -> bool:
    """Whether no part of a condition is about places: reads that it chooses are inside without it, or nowhere."""
    if isinstance(condition, Call) and condition.function in ("and", "or", "xor", "not", "where"):
        return all(map(of_data_alone, condition.operands))
    parts = list(walk(condition))
    return any(isinstance(p, Load) for p in parts) or not any(isinstance(p, Axis) for p in parts)


def checks_everywhere(e: Expr) -> Iterator[Call]:
    """The run-time checks in `e`, but for those that a domain leaves out in places."""
    if isinstance(e, Call):
        if is_check(e):
            yield e
        domain = e.function == "where" and is_domain(e)
        for part in e.operands[:1] if domain else e.operands:
            yield from checks_everywhere(part)
    elif isinstance(e, Load):
        for part in e.index:
            yield from checks_everywhere(part)


def checked_indices(condition: Expr) -> list[Expr]:
    """The indices that a conjunction of run-time checks has in their ranges; none for any other condition."""
    match condition:
        case Call("in_range", (index, _, _)):
            return [index]
        case Call("and", (a, b)):
            left, right = checked_indices(a), checked_indices(b)
            return [*left, *right] if left and right else []
    return []
