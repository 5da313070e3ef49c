"""Codes: small integers that are part of a byte, and what becomes of them, known from the expression alone.

>>> from effcc.ir.dtypes import i32
>>> from effcc.ir.expr import Axis, cast
>>> byte = cast(Load("Q", (Axis("j"),), u8), i32)
>>> largest_code(Call("shr", (byte, Const(4, i32)), i32)), largest_code(Call("and", (byte, Const(3, i32)), i32))
(15, 3)
"""

from __future__ import annotations

from effcc.ir.dtypes import boolean, i32, i64, u8
from effcc.ir.expr import Call, Const, Expr, Load, walk

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


def tabled(e: Expr) -> tuple[Expr, int] | None:
    """What a float is a function of that is computed of one code of at most `FEW_CODES` values, in lanes of four bytes,
    and the calls that this takes; None for any other, and where looking it up spares nothing. Of the integer it is a
    function of, only the low four bits count.

    >>> from effcc.ir.dtypes import f32
    >>> from effcc.ir.expr import Axis, cast
    >>> code = Call("and", (cast(Load("Q", (Axis("j"),), u8), i32), Const(15, i32)), i32)
    >>> sign = Call("gt", (Call("and", (code, Const(8, i32)), i32), Const(0, i32)), boolean)
    >>> size = Call("cast", (Call("and", (code, Const(7, i32)), i32),), f32)
    >>> tabled(Call("where", (sign, Call("neg", (size,), f32), size), f32)) == (code.operands[0], 7)
    True
    """
    if not isinstance(e, Call) or not e.dtype.is_float or e.dtype.bytes != i32.bytes:
        return None
    largest = _codes_of(e)
    for code in (x for x in walk(largest[0]) if _is_few(x)) if largest else ():
        index = code
        while isinstance(index, Call) and _masks(index):
            index = index.operands[0]
        calls = _calls_above(e, index) if index.dtype == i32 else None
        if calls is not None:
            return (index, calls) if calls >= FEWEST_STEPS else None
    return None


def _codes_of(e: Call) -> list[Expr]:
    """The integers of few values, each as large as it is, of which and of numbers an expression is computed; none where
    it is computed of other things, too."""
    found, pending, seen = dict[Expr, None](), [e], set[int]()
    while pending:
        at = pending.pop()
        for part in at.operands:
            if isinstance(part, Const) or id(part) in seen:
                continue
            seen.add(id(part))
            if _is_few(part):
                found[part] = None
            elif isinstance(part, Call) and (part.dtype == boolean or part.dtype.bytes == i32.bytes):
                pending.append(part)
            else:
                return []
    return list(found)


def _is_few(e: Expr) -> bool:
    """Whether it is a computed integer of few values."""
    return isinstance(e, Call) and e.dtype == i32 and (most := largest_code(e)) is not None and most < FEW_CODES


def _calls_above(e: Expr, index: Expr) -> int | None:
    """How many calls make an expression of `index` and of numbers; None where it is made of other things, too."""
    found, pending = set[Expr](), [e]
    while pending:
        at = pending.pop()
        if at == index or isinstance(at, Const) or at in found:
            continue
        if not isinstance(at, Call):
            return None
        found.add(at)
        pending.extend(at.operands)
    return len(found)


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
