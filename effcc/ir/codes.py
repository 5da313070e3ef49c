"""Codes: small integers that are part of a byte, and what becomes of them, known from the expression alone.

>>> from effcc.ir.dtypes import i32
>>> from effcc.ir.expr import Axis, cast
>>> byte = cast(Load("Q", (Axis("j"),), u8), i32)
>>> largest_code(Call("shr", (byte, Const(4, i32)), i32)), largest_code(Call("and", (byte, Const(3, i32)), i32))
(15, 3)
"""

from __future__ import annotations

from effcc.ir.dtypes import boolean, i32, i64, u8
from effcc.ir.expr import Call, Const, Expr, Load

FEW_CODES = 16
"""So many numbers a table in registers has."""
FEWEST_STEPS = 2
"""A lookup takes the place of at least so many instructions."""


def largest_code(e: Expr) -> int | None:
    """The largest value of an integer that is never negative; None where it may be, or nothing is known."""
    match e:
        case Load(dtype=dtype) if dtype == u8:
            return 255
        case Call("cast", (inner,), dtype) if dtype.is_integer and (dtype.bytes > 1 or inner.dtype == dtype):
            return largest_code(inner)
        case Call("shr", (data, Const(value=by))) if (most := largest_code(data)) is not None:
            return most >> int(by)
        case Call("and", (data, Const(value=mask))) if mask >= 0:
            most = largest_code(data)
            return int(mask) if most is None else min(most, int(mask))
        case Call("or" | "add", (a, b)) if e.dtype.is_integer and e.dtype.bytes > 1:
            left, right = largest_code(a), largest_code(b)
            return None if left is None or right is None else left + right
        case Call("shl", (data, Const(value=by))) if (most := largest_code(data)) is not None:
            return most << int(by) if most << int(by) < 1 << 15 else None
    return None


def tabled(e: Expr) -> tuple[Expr, tuple[Call, ...]] | None:
    """What an expression that is a function of one code of at most `FEW_CODES` values is a function of, and the steps
    that make it of that, outermost first; None for any other. Of the code's integer, only the low four bits count.
    """
    steps: list[Call] = []
    while isinstance(e, Call) and e.dtype != boolean:
        data = [o for o in e.operands if not isinstance(o, Const)]
        if len(data) != 1:
            return None
        if _masks(e):
            return data[0], (*steps, e)
        most = largest_code(e)
        if most is not None and most < FEW_CODES:
            return (e, tuple(steps)) if steps else None
        steps.append(e)
        e = data[0]
    return None


def worth_a_table(e: Expr) -> tuple[Expr, tuple[Call, ...]] | None:
    """`tabled`, where looking a float up in a register of `FEW_CODES` of them spares instructions; else None."""
    if not isinstance(e, Call) or not e.dtype.is_float or (found := tabled(e)) is None:
        return None
    code, steps = found
    plain = code.dtype == i32 and all(s.dtype.bytes == i32.bytes for s in steps)
    return found if plain and len(steps) >= FEWEST_STEPS else None


def reads_table(load: Load) -> bool:
    """Whether a load takes an element that a code of few values chooses: such a table is held in registers."""
    most = largest_code(load.index[0]) if len(load.index) == 1 else None
    return most is not None and most < FEW_CODES


def unmasked(index: Expr) -> Expr:
    """The index of a table's element without what a shuffle, which reads its low bits alone, does not need."""
    match index:
        case Call("cast", (inner,), dtype) if dtype == i64:
            index = inner
    return index.operands[0] if isinstance(index, Call) and _masks(index) else index


def _masks(e: Call) -> bool:
    """Whether it keeps but the lowest bits of an integer."""
    match e:
        case Call("and", (_, Const(value=mask))):
            return 0 < mask < FEW_CODES
    return False
