"""Tables in registers: elements that codes of few bits choose, and functions of such codes, are looked up by a shuffle.

A shuffle reads no more of an index than its low bits, so nothing is masked. Where a vector has sixteen lanes, it takes
the place of a mask, a subtraction and a conversion, too: the table is the function itself, of the numbers 0 to 15. A
table of twice as many elements as a vector has lanes takes two shuffles and a selection; where it has sixteen, and the
bytes of four vectors lie side by side, theirs are looked up together.
"""

from __future__ import annotations

from collections.abc import Callable

from effcc.codegen.cpp import values
from effcc.codegen.cpp.linear import Linear
from effcc.codegen.cpp.loads import place
from effcc.codegen.cpp.scope import Value, Writer
from effcc.codegen.cpp.storage import Memory
from effcc.ir import vectors
from effcc.ir.codes import FEW_CODES, largest_code, tabled
from effcc.ir.dtypes import boolean, f32, i32, i64, u8
from effcc.ir.expr import Call, Const, Expr, Load
from effcc.ir.vectors import Lookup, LookupCodes, Permute, Select, value_type


def looked_up(writer: Writer, e: Call, value: Callable[[Expr], Value]) -> Value | None:
    """`e` by table, if it is a function of a code; None where it is not, or computing it is as quick."""
    found = tabled(e) if writer.lanes == FEW_CODES else None
    if found is None:
        return None
    code, _ = found
    index = value(code)
    if index.lanes == 1:
        return None
    numbers = Value(values.lane_numbers(values.type_of(writer, i32)), i32, writer.lanes)
    table = _made_of(writer, e, {code: numbers})
    body = Lookup(values.node(writer, table), values.node(writer, index))
    return Value(writer.let(body), e.dtype, writer.lanes)


def _made_of(writer: Writer, e: Expr, made: dict[Expr, Value]) -> Value:
    """The value of an expression of numbers, and of what is made already."""
    if isinstance(e, Const):
        return values.constant(e.value, e.dtype)
    if e not in made:
        assert isinstance(e, Call)
        operands = [_made_of(writer, o, made) for o in e.operands]
        if e.function == "cast":
            made[e] = values.convert(writer, operands[0], e.dtype)
        elif e.function == "where":
            made[e] = values.select(writer, operands[0], operands[1], operands[2])
        else:
            made[e] = values.call(writer, e.function, e.dtype, operands)
    return made[e]


def element_of_table(
    writer: Writer,
    e: Load,
    storage: Memory,
    value: Callable[[Expr], Value],
    bytes_around: Callable[[Load], tuple[vectors.Value, int] | None],
) -> Value | None:
    """An element that a code chooses from a table of f32 as short as a vector or two; None for any other load.

    bytes_around: the bytes of four vectors of which the current one is part, and where it begins among them.
    """
    if len(e.index) != 1 or storage.strides != (1,) or storage.dtype != f32 or writer.lanes == 1:
        return None
    (index,), (size,) = e.index, storage.shape
    most, code = largest_code(index), _unwidened(index)
    if most is None or not isinstance(size, int) or most >= size or code.dtype != i32:
        return None
    if size not in (2, 4, 8, 16) or size > 2 * writer.lanes:
        return None
    masked = code
    parts = [_part(writer, storage, first, min(size, writer.lanes)) for first in range(0, size, writer.lanes)]
    if size == 2 * writer.lanes == FEW_CODES and (packed := _bits_of_byte(code)) is not None:
        around = bytes_around(packed[0])
        if around is not None:
            (low, high), (codes, lane) = parts, around
            return Value(writer.let(LookupCodes(low, high, codes, lane, packed[1])), f32, writer.lanes)
    match code:
        case Call("and", (data, Const(value=mask))) if mask == size - 1:
            code = data
    at = value(code)
    if at.lanes == 1:
        return None
    chosen = values.node(writer, at)
    found = [writer.let(Lookup(part, chosen)) for part in parts]
    if len(found) == 1:
        return Value(found[0], f32, writer.lanes)
    upper = values.call(writer, "gt", boolean, [value(masked), values.constant(writer.lanes - 1, i32)])
    return Value(writer.let(Select(values.node(writer, upper), found[1], found[0])), f32, writer.lanes)


def _bits_of_byte(code: Expr) -> tuple[Load, int] | None:
    """The byte of which a code is four bits, and the lowest of these; None for any other code."""
    shift = 0
    match code:
        case Call("and", (data, Const(value=mask))) if mask == FEW_CODES - 1:
            code = data
    match code:
        case Call("shr", (data, Const(value=by))):
            code, shift = data, int(by)
    match code:
        case Call("cast", (Load(dtype=dtype) as byte,)) if dtype == u8 and shift in (0, 4):
            return byte, shift
    return None


def _unwidened(index: Expr) -> Expr:
    """An index before it was made as wide as places are."""
    match index:
        case Call("cast", (inner,), dtype) if dtype == i64:
            return inner
    return index


def _part(writer: Writer, storage: Memory, first: int, count: int) -> vectors.Value:
    """A vector of a table's elements, again and again where they are fewer than lanes."""
    read = writer.let(vectors.Load(place(storage, Linear(constant=first)), value_type(f32, count), 1), "table")
    if count == writer.lanes:
        return read
    return writer.let(Permute(read, tuple(n % count for n in range(writer.lanes))), "table")
