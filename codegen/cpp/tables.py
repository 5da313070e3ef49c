"""Tables in registers: what is a function of a code of four bits is looked up, where a vector has sixteen lanes.

A shuffle takes the place of a mask, a subtraction and a conversion, and reads no more of an index than its low four
bits. The table is the function itself, of the numbers 0 to 15 in the lanes.
"""

from __future__ import annotations

from collections.abc import Callable

from effcc.codegen.cpp import values
from effcc.codegen.cpp.scope import Value, Writer
from effcc.ir.codes import FEW_CODES, tabled
from effcc.ir.dtypes import i32
from effcc.ir.expr import Call, Const, Expr
from effcc.ir.vectors import Lookup

FEWEST_STEPS = 2
"""A lookup takes the place of at least so many instructions."""


def looked_up(writer: Writer, e: Call, value: Callable[[Expr], Value]) -> Value | None:
    """`e` by table, if it is a function of a code; None where it is not, or computing it is as quick."""
    if writer.lanes != FEW_CODES or not e.dtype.is_float or values.computed(e.dtype).bytes != i32.bytes:
        return None
    found = tabled(e)
    if found is None:
        return None
    code, steps = found
    if len(steps) < FEWEST_STEPS or code.dtype != i32 or any(s.dtype.bytes != i32.bytes for s in steps):
        return None
    index = value(code)
    if index.lanes == 1:
        return None
    table = Value(values.lane_numbers(values.type_of(writer, i32)), i32, writer.lanes)
    for step in reversed(steps):
        table = _step(writer, step, table)
    body = Lookup(values.node(writer, table), values.node(writer, index))
    return Value(writer.let(body), e.dtype, writer.lanes)


def _step(writer: Writer, e: Call, operand: Value) -> Value:
    if e.function == "cast":
        return values.convert(writer, operand, e.dtype)
    operands = [values.constant(o.value, o.dtype) if isinstance(o, Const) else operand for o in e.operands]
    return values.call(writer, e.function, e.dtype, operands)
