"""Importers of elementwise ATen ops."""

from __future__ import annotations

from typing import Any

import torch

from effcc.frontend.importer import (
    HALVES,
    Import,
    Importer,
    NotNative,
    Operand,
    aten,
    dtype_of,
    imports,
    is_number,
    result_dtype,
)
from effcc.ir.dtypes import boolean, f16, f64, i64
from effcc.ir.graph import Value
from effcc.ir.op import broadcast_shapes

# Ops whose result is floating even on integers.
_FLOATING = (
    "sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos",
    "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "lgamma", "sigmoid", "reciprocal",
)  # fmt: skip
_SAME = ("neg", "abs", "sign", "relu")
_ROUNDING = ("floor", "ceil", "trunc", "round")
_BINARY = {
    "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor",
    "remainder": "mod", "fmod": "fmod",
}  # fmt: skip
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def _overloads(name: str, *overloads: str) -> list[Any]:
    packet = getattr(aten, name)
    return [getattr(packet, o) for o in overloads if o in packet.overloads()]


def _floating(op: str) -> Import:
    return lambda m, x: m.emit(op, m.cast(x, m.floating([x])))


def _same(op: str) -> Import:
    return lambda m, x: m.emit(op, x)


def _rounding(op: str) -> Import:
    return lambda m, x: m.emit(op, x) if x.type.dtype.is_float else x


def _binary(op: str) -> Import:
    return lambda m, a, b: m.elementwise(op, a, b)


for _name in _FLOATING:
    imports(getattr(aten, _name).default)(_floating(_name))
for _name in _SAME:
    imports(getattr(aten, _name).default)(_same(_name))
for _name in _ROUNDING:
    imports(getattr(aten, _name).default)(_rounding(_name))
for _name, _op in _BINARY.items():
    imports(*_overloads(_name, "Tensor", "Scalar", "Scalar_Tensor"))(_binary(_op))
imports(aten.maximum.default)(_binary("maximum"))
imports(aten.minimum.default)(_binary("minimum"))
imports(*_overloads("bitwise_left_shift", "Tensor", "Tensor_Scalar", "Scalar_Tensor"))(_binary("shl"))
imports(*_overloads("__lshift__", "Tensor", "Scalar"))(_binary("shl"))
imports(*_overloads("bitwise_right_shift", "Tensor", "Tensor_Scalar", "Scalar_Tensor"))(_binary("shr"))
imports(*_overloads("__rshift__", "Tensor", "Scalar"))(_binary("shr"))
for _name in _COMPARISONS:
    imports(*_overloads(_name, "Tensor", "Scalar"))(_binary(_name))


def _sum(m: Importer, op: str, a: Operand, b: Operand, alpha: Any) -> Value:
    """`a + alpha * b` or `a - alpha * b`, rounded once; eager rounds alpha to the dtype, in which integers wrap."""
    dtype = result_dtype((a, b))
    m.checked(alpha, dtype)
    if alpha == 1:
        return m.elementwise(op, a, b, dtype=dtype)
    x, y, factor = (m.accurate(o, dtype) for o in (a, b, alpha))
    return m.cast(m.emit(op, x, m.emit("mul", y, factor)), dtype)


@imports(aten.add.Tensor, aten.add.Scalar)
def add(m: Importer, a: Operand, b: Operand, alpha: Any = 1) -> Value:
    """a + alpha * b; on bools, or."""
    if result_dtype((a, b)) == boolean:
        return m.elementwise("or", a, b) if alpha else m.operand(a, boolean)
    return _sum(m, "add", a, b, alpha)


@imports(aten.sub.Tensor, aten.sub.Scalar)
def sub(m: Importer, a: Operand, b: Operand, alpha: Any = 1) -> Value:
    return _sum(m, "sub", a, b, alpha)


@imports(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(m: Importer, a: Operand, b: Operand, alpha: Any = 1) -> Value:
    return _sum(m, "sub", b, a, alpha)


@imports(aten.mul.Tensor, aten.mul.Scalar)
def mul(m: Importer, a: Operand, b: Operand) -> Value:
    """a * b; on bools, and."""
    dtype = result_dtype((a, b))
    return m.elementwise("and", a, b) if dtype == boolean else m.scaled("mul", a, b, dtype)


@imports("prims.fma.default")
def fma(m: Importer, a: Operand, b: Operand, c: Operand) -> Value:
    """a * b + c, rounded twice as eager's is: what Dynamo makes of `addcmul_` with a factor, in steps of optimizers."""
    return add(m, mul(m, a, b), c)


@imports(aten.addcmul.default)
def addcmul(m: Importer, x: Value, a: Value, b: Value, value: Any = 1) -> Value:
    """x + value * a * b, from left to right as eager does it: `value * a` may overflow or save `a * b` from it."""
    return _add_scaled(m, "mul", x, a, b, value)


@imports(aten.addcdiv.default)
def addcdiv(m: Importer, x: Value, a: Value, b: Value, value: Any = 1) -> Value:
    """x + value * a / b, from left to right."""
    return _add_scaled(m, "div", x, a, b, value)


def _add_scaled(m: Importer, op: str, x: Value, a: Value, b: Value, value: Any) -> Value:
    dtype = result_dtype((x, a, b))
    m.checked(value, dtype)
    if isinstance(value, float) and not dtype.is_float:
        value = int(value)  # as eager's kernel takes it
    base, first, second = (m.accurate(o, dtype) for o in (x, a, b))
    if value != 1:
        first = m.elementwise("mul", first, value)
    return m.cast(m.emit("add", base, m.emit(op, first, second)), dtype)


@imports(aten.div.Tensor, aten.div.Scalar, aten.true_divide.Tensor, aten.true_divide.Scalar)
def div(m: Importer, a: Operand, b: Operand) -> Value:
    return m.scaled("div", a, b, m.floating((a, b)))


@imports(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(m: Importer, a: Operand, b: Operand, rounding_mode: str | None = None) -> Value:
    """a / b rounded down (`floor`), towards zero (`trunc`), or not."""
    dtype = result_dtype((a, b))
    if rounding_mode is None:
        return div(m, a, b)
    if rounding_mode == "floor":
        return floor_divide(m, a, b)
    if dtype.is_float:
        inside = dtype.accumulator if is_number(b) else dtype  # only by a number does eager not round the quotient
        quotient = m.emit("div", m.cast(m.operand(a, dtype), inside), m.operand(b, inside))
        return m.cast(m.emit("trunc", quotient), dtype)
    x, y = m.operand(a, dtype), m.operand(b, dtype)
    down = m.emit("floordiv", x, y)
    zero = m.constant(0, dtype)
    inexact = m.emit("ne", m.emit("mul", down, y), x)
    negative = m.emit("ne", m.emit("lt", x, zero), m.emit("lt", y, zero))
    return m.emit("where", m.emit("and", inexact, negative), m.emit("add", down, m.constant(1, dtype)), down)


@imports(torch.ops.prims.div.default)
def prims_div(m: Importer, a: Operand, b: Operand) -> Value:
    """a / b in the operands' dtype; of integers towards zero."""
    return m.elementwise("div", a, b) if result_dtype((a, b)).is_float else div_mode(m, a, b, "trunc")


@imports(aten.floor_divide.default)
def floor_divide(m: Importer, a: Operand, b: Operand) -> Value:
    """floor(a / b); eager rounds after every step of a division of half tensors, but not of one by a number."""
    dtype = result_dtype((a, b))
    if dtype not in HALVES:
        return m.elementwise("floordiv", a, b)
    if is_number(b):
        quotient = m.emit("floordiv", m.accurate(a, dtype), m.operand(b, dtype.accumulator))
        return m.cast(quotient, dtype)
    x, y = m.operand(a, dtype), m.operand(b, dtype)
    zero, one = m.constant(0, dtype), m.constant(1, dtype)
    rest = m.emit("fmod", x, y)
    quotient = m.emit("div", m.emit("sub", x, rest), y)
    opposite = m.emit("ne", m.emit("lt", y, zero), m.emit("lt", rest, zero))
    below = m.emit("and", m.emit("ne", rest, zero), opposite)
    quotient = m.emit("where", below, m.emit("sub", quotient, one), quotient)
    floor = m.emit("floor", quotient)
    near = m.emit("gt", m.emit("sub", quotient, floor), m.constant(0.5, dtype))
    floor = m.emit("where", near, m.emit("add", floor, one), floor)
    signed = m.emit("copysign", zero, m.emit("div", x, y))
    found = m.emit("where", m.emit("eq", quotient, zero), signed, floor)
    return m.emit("where", m.emit("eq", y, zero), m.emit("div", x, y), found)


@imports(aten.atan2.default)
def atan2(m: Importer, a: Value, b: Value) -> Value:
    return m.elementwise("atan2", a, b, dtype=m.floating((a, b)))


@imports(aten.copysign.Tensor, aten.copysign.Scalar)
def copysign(m: Importer, a: Value, b: Operand) -> Value:
    return m.elementwise("copysign", a, b, dtype=m.floating((a, b)))


@imports(aten.pow.Tensor_Scalar)
def pow_scalar(m: Importer, x: Value, exponent: Any) -> Value:
    """Eager computes small exponents by products and roots; so does this."""
    dtype = result_dtype((x, exponent))
    m.checked(exponent, dtype)
    x = m.cast(x, dtype)
    if not isinstance(exponent, bool | int | float):
        return m.elementwise("pow", x, exponent)
    if exponent == 0:
        return m.emit("full", shape=x.type.shape, value=1.0 if dtype.is_float else 1, dtype=dtype)
    if exponent == 1:
        return x
    roots = () if dtype == f16 else (0.5, -0.5)  # of f16, eager takes them as powers: of -inf and -0.0 they differ
    if exponent in (2, 3) or (dtype.is_float and exponent in (*roots, -1, -2)):
        # Of the half types, eager rounds between the steps for bf16 only.
        inner = m.accurate(x, dtype) if dtype == f16 else x
        return m.cast(_simple_power(m, inner, exponent), dtype)
    if not dtype.is_float and exponent < 0:
        raise NotNative("integers to negative powers are not allowed")
    return m.elementwise("pow", x, exponent, dtype=dtype)


def _simple_power(m: Importer, x: Value, exponent: float) -> Value:
    if abs(exponent) == 0.5:
        return m.emit("sqrt" if exponent > 0 else "rsqrt", x)
    if exponent == -1:
        return m.emit("reciprocal", x)
    square = m.emit("mul", x, x)
    if exponent == 3:
        return m.emit("mul", square, x)
    return square if exponent == 2 else m.emit("reciprocal", square)


@imports(aten.pow.Tensor_Tensor, aten.pow.Scalar)
def pow_tensor(m: Importer, x: Operand, exponent: Operand) -> Value:
    return m.elementwise("pow", x, exponent)


@imports(aten.ldexp.Tensor)
def ldexp(m: Importer, x: Value, exponent: Value) -> Value:
    """x * 2^exponent. For integers it is rounded once: in f64, where powers that reach any number of f32 are exact;
    for floats in two steps as eager's: the power may overflow where the product would not."""
    if exponent.type.dtype.is_float:
        return mul(m, x, m.emit("exp2", m.cast(exponent, result_dtype((exponent, 2.0)))))
    dtype = result_dtype((x, 2.0))
    if dtype == f64:
        raise NotNative("powers of two beyond what f64 holds")
    low, high = (m.constant(n, i64) for n in (-_FARTHEST, _FARTHEST))
    near = m.elementwise("minimum", m.elementwise("maximum", m.cast(exponent, i64), low), high)
    return m.cast(m.elementwise("mul", m.cast(x, f64), m.emit("exp2", m.cast(near, f64))), dtype)


_FARTHEST = 300
"""From the least number of f32, 2^-149, to its greatest, and back, are fewer powers of two."""


@imports(aten.square.default)
def square(m: Importer, x: Value) -> Value:
    return m.emit("mul", x, x)


def _is(op: str) -> Import:
    def importer(m: Importer, x: Value) -> Value:
        if not x.type.dtype.is_float:
            return m.emit("full", shape=x.type.shape, value=False, dtype=boolean)
        return m.emit(op, x)

    return importer


imports(aten.isnan.default)(_is("isnan"))
imports(aten.isinf.default)(_is("isinf"))


def as_bool(m: Importer, x: Value) -> Value:
    """Whether each element is nonzero."""
    return x if x.type.dtype == boolean else m.emit("ne", x, m.constant(0, x.type.dtype))


@imports(aten.logical_not.default)
def logical_not(m: Importer, x: Value) -> Value:
    return m.emit("not", as_bool(m, x))


@imports(aten.bitwise_not.default)
def bitwise_not(m: Importer, x: Value) -> Value:
    return m.emit("not", x)


def _logical(op: str) -> Import:
    return lambda m, a, b: m.emit(op, as_bool(m, a), as_bool(m, b))


imports(aten.logical_and.default)(_logical("and"))
imports(aten.logical_or.default)(_logical("or"))
imports(aten.logical_xor.default)(_logical("xor"))


@imports(aten.where.self)
def where(m: Importer, condition: Value, a: Value, b: Value) -> Value:
    dtype = result_dtype((a, b))
    return m.emit("where", as_bool(m, condition), m.cast(a, dtype), m.cast(b, dtype))


@imports(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(m: Importer, x: Value, mask: Value, value: Operand) -> Value:
    dtype = x.type.dtype
    m.checked(value, dtype)
    filled = m.emit("where", mask, m.operand(value, dtype), x)
    return m.broadcast(filled, broadcast_shapes([x.type.shape, mask.type.shape]))


@imports(aten.clamp.default, aten.clamp.Tensor)
def clamp(m: Importer, x: Value, low: Operand | None = None, high: Operand | None = None) -> Value:
    """min(high, max(low, x)), in this order: of two zeros, the second operand's sign counts."""
    dtype = result_dtype([o for o in (x, low, high) if o is not None])
    x = m.cast(x, dtype)
    m.checked(low, dtype)
    m.checked(high, dtype)
    if low is not None:
        x = m.elementwise("maximum", low, x, dtype=dtype)
    return x if high is None else m.elementwise("minimum", high, x, dtype=dtype)


@imports(aten.clamp_min.default)
def clamp_min(m: Importer, x: Value, low: Operand) -> Value:
    return clamp(m, x, low)


@imports(aten.clamp_max.default)
def clamp_max(m: Importer, x: Value, high: Operand) -> Value:
    return clamp(m, x, None, high)


@imports(aten._to_copy.default)
def to_copy(m: Importer, x: Value, dtype: Any = None, device: Any = None, **__: Any) -> Value:
    if device is not None and str(device).split(":")[0] not in ("cpu", "None"):
        raise NotNative(f"a copy to {device}")
    return x if dtype is None else m.cast(x, dtype_of(dtype))


@imports(torch.ops.prims.convert_element_type.default)
def convert_element_type(m: Importer, x: Value, dtype: Any) -> Value:
    return m.cast(x, dtype_of(dtype))


@imports(aten.copy.default)
def copy(m: Importer, x: Value, source: Operand, non_blocking: bool = False) -> Value:
    return m.broadcast(m.operand(source, x.type.dtype), x.type.shape)
