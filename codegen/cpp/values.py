"""Values between scalar and vector: broadcasting, masks of every width, conversions, calls."""

from __future__ import annotations

import functools

import numpy as np

from effcc.codegen.cpp.linear import Linear, uniform
from effcc.codegen.cpp.scope import Value, Writer
from effcc.codegen.cpp.spelling import spell
from effcc.ir import vectors
from effcc.ir.dims import Dim
from effcc.ir.dtypes import DType, bf16, boolean, f16, f32, i32, i64
from effcc.ir.expr import Scalar
from effcc.ir.vectors import (
    TRUTH,
    Affine,
    Broadcast,
    Convert,
    FirstLanes,
    Iota,
    Literal,
    Round,
    Select,
    Type,
    Var,
    value_type,
)  # fmt: skip

_TRUE, _FALSE = Literal(True, TRUTH), Literal(False, TRUTH)
ZERO = Affine()


def computed(dtype: DType) -> DType:
    """What a dtype is computed in: f32 for the half types, itself otherwise."""
    return f32 if dtype in (bf16, f16) else dtype


def constant(value: Scalar, dtype: DType) -> Value:
    """A literal, of a number that the dtype holds."""
    if dtype == i64:
        return Value(None, i64, linear=Linear(constant=int(value)))
    if dtype == boolean:
        return truth(bool(value))
    return Value(literal(value, dtype), dtype)


def literal(value: Scalar, dtype: DType) -> vectors.Value:
    """A number in the type that it is computed in, rounded to what the dtype holds."""
    if dtype == i64:
        return Affine(constant=int(value))
    if dtype == boolean:
        return _TRUE if value else _FALSE
    if not dtype.is_float:
        return Literal(int(value), value_type(dtype))
    return Literal(rounded(float(value), dtype), value_type(computed(dtype)))


def truth(value: bool) -> Value:
    """A boolean literal."""
    return Value(_TRUE if value else _FALSE, boolean)


def is_true(value: Value) -> bool:
    return value.node == _TRUE


def is_false(value: Value) -> bool:
    return value.node == _FALSE


def node(writer: Writer, value: Value) -> vectors.Value:
    """A value's node; an index form is put into a register if it varies by lane."""
    if value.linear is None:
        assert value.node is not None
        return value.node
    return uniform(value.linear) if value.linear.is_uniform else vector_index(writer, value.linear)


def vector_index(writer: Writer, index: Linear) -> Var:
    """An index form as a vector of i64 lanes."""
    type = value_type(i64, writer.lanes)
    parts: list[vectors.Value] = [_scaled(Var(name, type), c) for name, c in index.vectors]
    base = uniform(index)
    if index.lane == 1:
        parts.append(Iota(base, type))
    elif index.lane != 0:
        parts.append(_scaled(Iota(ZERO, type), index.lane))
    if index.lane != 1 and base != ZERO:
        parts.append(spread(base, type))
    if len(parts) == 1 and isinstance(parts[0], Var):
        return parts[0]
    return writer.let(functools.reduce(lambda a, b: vectors.Call("add", (a, b), type), parts), "at")


def _scaled(value: vectors.Value, factor: Dim) -> vectors.Value:
    if factor == 1:
        return value
    return vectors.Call("mul", (value, spread(Affine(constant=factor), value.type)), value.type)


def narrow_index(writer: Writer, index: Linear) -> Value:
    """An index form that fits 32 bits, as a vector of i32 lanes."""
    type = value_type(i32, writer.lanes)
    base = Convert(uniform(index), value_type(i32))
    body: vectors.Value
    if index.lane == 1:
        body = Iota(base, type)
    else:
        assert isinstance(index.lane, int)
        body = vectors.Call("add", (lane_numbers(type, index.lane), spread(base, type)), type)
    return Value(writer.let(body, "at"), i32, writer.lanes)


def spread(value: vectors.Value, type: Type) -> vectors.Value:
    """A single value in all lanes of a type."""
    return value if type.lanes == 1 else Broadcast(value, type)


def lane_numbers(type: Type, step: int = 1) -> vectors.Value:
    """0, step, 2 * step, ... in lanes of i32."""
    numbers = Iota(Literal(0, value_type(i32)), type)
    if step == 1:
        return numbers
    return vectors.Call("mul", (numbers, spread(Literal(step, value_type(i32)), type)), type)


def type_of(writer: Writer, dtype: DType, lanes: int = 0, mask_bytes: int = 4) -> Type:
    """The type of a computed value; by default in all lanes."""
    return value_type(computed(dtype), lanes or writer.lanes, mask_bytes)


def in_lanes(writer: Writer, value: Value, mask_bytes: int = 4) -> vectors.Value:
    """A value in all lanes: broadcast if it is uniform, a mask of the given width if it is a boolean."""
    if value.dtype == boolean:
        return mask(writer, value, mask_bytes)
    body = node(writer, value)
    if value.lanes > 1 or writer.lanes == 1:
        return body
    return Broadcast(body, type_of(writer, value.dtype))


def mask(writer: Writer, value: Value, mask_bytes: int) -> vectors.Value:
    """A boolean as a mask with lanes of the given width."""
    type = type_of(writer, boolean, mask_bytes=mask_bytes)
    body = node(writer, value)
    if writer.lanes == 1:
        return body
    if isinstance(body, Literal):
        return Literal(body.value, type)
    if value.lanes == 1:
        return Broadcast(body, type)
    return body if value.mask_bytes == mask_bytes else Convert(body, type)


def call(writer: Writer, name: str, dtype: DType, operands: list[Value], epoch: int = 0) -> Value:
    """`name(operands)`, put into a register.

    Raises UnsupportedError where the function is not defined for the operands' dtype.
    """
    kind = operands[0].dtype
    spell(name, kind)
    lanes = max(v.lanes for v in operands)
    width = computed(kind).bytes
    if kind == boolean:
        width = max(v.mask_bytes for v in operands if v.lanes > 1) if lanes > 1 else 4
    take = in_lanes if lanes > 1 else lambda writer, value, _: node(writer, value)
    body = vectors.Call(name, tuple(take(writer, v, width) for v in operands), type_of(writer, dtype, lanes, width))
    return Value(writer.let(body, epoch=epoch), dtype, lanes, width)


def select(writer: Writer, condition: Value, a: Value, b: Value, epoch: int = 0) -> Value:
    """`condition ? a : b`, both sides already computed."""
    if is_true(condition) or is_false(condition):
        return a if is_true(condition) else b
    lanes = max(condition.lanes, a.lanes, b.lanes)
    dtype = a.dtype
    width = computed(dtype).bytes
    if dtype == boolean:
        width = max((v.mask_bytes for v in (condition, a, b) if v.lanes > 1), default=4)
    if lanes == 1:
        body = Select(*(node(writer, v) for v in (condition, a, b)))
        return Value(writer.let(body, epoch=epoch), dtype)
    left, right = (in_lanes(writer, v, width) for v in (a, b))
    where = node(writer, condition) if condition.lanes == 1 else mask(writer, condition, width)
    return Value(writer.let(Select(where, left, right), epoch=epoch), dtype, lanes, width)


def at_least(writer: Writer, x: Value, least: Value, epoch: int = 0) -> Value:
    """`x < least ? least : x`, the comparison being part of the selection: one instruction of many machines."""
    lanes = x.lanes
    a, b = (in_lanes(writer, v) if lanes > 1 else node(writer, v) for v in (x, least))
    below = vectors.Call("lt", (a, b), type_of(writer, boolean, lanes))
    return Value(writer.let(Select(below, b, a), epoch=epoch), x.dtype, lanes)


def convert(writer: Writer, value: Value, to: DType, epoch: int = 0) -> Value:
    """A value as another dtype, as torch converts; to a half type it is rounded and goes on as f32."""
    source, target = computed(value.dtype), computed(to)
    lanes = value.lanes
    if source == boolean and to == boolean:
        return value
    body, width = node(writer, value), source.bytes if to == boolean else 4
    if source != target:
        body = Convert(body, type_of(writer, to, lanes, width))
    if to in (f16, bf16) and value.dtype not in (to, boolean):
        body = Round(body, to)
    return Value(writer.let(body, epoch=epoch), to, lanes, width)


def first_lanes(writer: Writer, count: int | vectors.Value) -> Value:
    """The mask of the first `count` lanes."""
    count = number(count)
    if writer.lanes == 1:
        return Value(writer.let(positive(count), "active"), boolean)
    return Value(writer.let(FirstLanes(count, type_of(writer, boolean)), "active"), boolean, writer.lanes)


def number(value: int | vectors.Value) -> vectors.Value:
    """An integer known now as an i64, and anything else as it is."""
    return Affine(constant=value) if isinstance(value, int) else value


def positive(count: vectors.Value) -> vectors.Value:
    """Whether a number is above 0."""
    return vectors.Call("gt", (count, ZERO), TRUTH)


def rounded(value: float, dtype: DType) -> float:
    """The number of a dtype that is nearest to `value`."""
    with np.errstate(over="ignore"):
        return float(dtype.numpy.type(value))
