"""Where a run-time check fails: noted in passing, and read when the kernel is done.

A check stands where the expression that it guards is evaluated, and looks at the lanes that count. Nothing reads what
is noted before the function ends, so that loops stay as the compiler likes them. See `effcc.codegen.cpp.checks`.
"""

from __future__ import annotations

from effcc.codegen.cpp import values
from effcc.codegen.cpp.scope import Value, Writer
from effcc.ir import vectors
from effcc.ir.dtypes import boolean
from effcc.ir.vectors import TRUTH, Any, Check, Conjunction, Literal


def note_failures(
    writer: Writer,
    number: int,
    holds: Value,
    subject: Value,
    size: vectors.Value,
    count: int | vectors.Value | None,
    mask: Value | None,
) -> None:
    """Note a check's number and its `subject` where it does not hold, in the first `count` lanes that are in `mask`."""
    if values.is_true(holds):
        return
    if holds.lanes == 1 and subject.lanes == 1:
        fails = _fails(writer, holds, count, mask)
    else:
        bad = values.truth(True) if values.is_false(holds) else values.call(writer, "not", boolean, [holds])
        for active in (values.first_lanes(writer, count) if count is not None else None, mask):
            if active is not None:
                bad = values.call(writer, "and", boolean, [bad, active])
        fails = values.node(writer, bad) if bad.lanes > 1 else values.mask(writer, bad, bad.mask_bytes)
    writer.add(Check(number, fails, values.node(writer, subject), size))


def _fails(writer: Writer, holds: Value, count: int | vectors.Value | None, mask: Value | None) -> vectors.Value:
    """Whether a check that is the same in all lanes fails in any that counts."""
    conditions: list[vectors.Value] = []
    if not values.is_false(holds):
        conditions.append(vectors.Call("not", (values.node(writer, holds),), TRUTH))
    if count is not None and not isinstance(count, int):
        conditions.append(values.positive(count))
    active = mask
    if mask is not None and count is not None and mask.lanes > 1:
        active = values.call(writer, "and", boolean, [values.first_lanes(writer, count), mask])
    if active is not None:
        body = values.node(writer, active)
        conditions.append(Any(body) if active.lanes > 1 else body)
    if not conditions:
        return Literal(True, TRUTH)
    return conditions[0] if len(conditions) == 1 else Conjunction(tuple(conditions))
