"""Ops that compute each result element from one element of each operand, broadcasting as NumPy does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType, boolean
from effcc.ir.expr import Expr, cast
from effcc.ir.form import Form, FormBuilder, call, constant
from effcc.ir.op import REQUIRED, Op, Types, broadcast_shapes, require
from effcc.ir.scalars import FUNCTIONS, ScalarFunction, require_divisor
from effcc.ir.types import TensorType


def _infer(result_of: Callable[[DType], DType], domain: str) -> Callable[[Types, Mapping[str, Any]], TensorType]:
    def infer(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
        element = operands[0].dtype
        for operand in operands:
            got = operand.dtype
            require(got == element, f"operands must have one dtype, got {element.name} and {got.name}")
        require(domain != "float" or element.is_float, f"needs a floating dtype, got {element.name}")
        require(domain != "int" or not element.is_float, f"needs an integer or bool dtype, got {element.name}")
        return TensorType(result_of(element), broadcast_shapes([o.shape for o in operands]))

    return infer


def elementwise(scalar: Callable[..., Expr], widen: bool = True) -> Form:
    """The form `result[i...] = scalar(operands[i...], attrs)`, computed in f32 for half types unless told otherwise."""

    def form(b: FormBuilder) -> None:
        axes = b.axes(b.results[0].type.shape)
        operands: list[Expr] = [b.broadcast(k, axes) for k in range(len(b.operands))]
        if widen and operands[0].dtype.is_float:
            operands = [cast(x, x.dtype.accumulator) for x in operands]
        b.define(axes, scalar(*operands, **b.attrs))

    return form


def _division(name: str) -> Form:
    """A quotient or remainder; a check sees an integer divisor that is 0."""

    def form(b: FormBuilder) -> None:
        def scalar(x: Expr, y: Expr) -> Expr:
            return call(name, x, b.divisor(y) if y.dtype.is_integer else y)

        elementwise(scalar)(b)

    return form


def _division_reference(f: ScalarFunction) -> Callable[..., Any]:
    def reference(x: Any, y: Any) -> Any:
        if np.issubdtype(np.asarray(y).dtype, np.integer) and np.size(x):
            require_divisor(y)
        return f.reference(x, y)

    return reference


def _primitive(f: ScalarFunction) -> Op:
    divides = f.name in ("floordiv", "mod", "fmod")
    return Op(
        name=f.name,
        kind="pointwise",
        arity=(f.arity, f.arity),
        infer=_infer(f.result_dtype, f.domain),
        reference=_division_reference(f) if divides else f.reference,
        summary=f"{f.name}({', '.join('xyz'[: f.arity])}), elementwise",
        form=_division(f.name) if divides else elementwise(lambda *operands: call(f.name, *operands)),
        of_bits=f.result == "bits",
    )


def _same(dtype: DType) -> DType:
    return dtype


def _composite(
    name: str,
    summary: str,
    scalar: Callable[..., Expr],
    reference: Callable[..., Any],
    domain: str = "float",
    **attrs: Any,
) -> Op:
    return Op(name, "pointwise", (1, 1), _infer(_same, domain), reference, summary, attrs, elementwise(scalar))


def _gelu(x: Expr, approximate: str) -> Expr:
    half = call("mul", x, constant(0.5, x))
    if approximate == "tanh":
        cube = call("mul", call("mul", x, x), x)
        inner = call("add", x, call("mul", cube, constant(0.044715, x)))
        step = call("tanh", call("mul", inner, constant(math.sqrt(2 / math.pi), x)))
    else:
        step = call("erf", call("mul", x, constant(math.sqrt(0.5), x)))
    return call("mul", half, call("add", step, constant(1, x)))


def _gelu_reference(x: Any, approximate: str) -> Any:
    wide = np.asarray(x, np.float64)
    if approximate == "tanh":
        inner = np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
    else:
        inner = FUNCTIONS["erf"].reference(wide * math.sqrt(0.5))
    return (0.5 * wide * (1 + inner)).astype(x.dtype)


def _infer_where(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    condition, a, b = operands
    require(condition.dtype == boolean, f"the condition must be bool, got {condition.dtype.name}")
    require(a.dtype == b.dtype, f"both branches must have one dtype, got {a.dtype.name} and {b.dtype.name}")
    return TensorType(a.dtype, broadcast_shapes([o.shape for o in operands]))


def _cast_reference(x: Any, dtype: DType) -> Any:
    """C conversion; NaN and out-of-range floats to integers are unspecified, as in torch."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(x).astype(dtype.numpy)


_NO_OPS = frozenset({"where", "cast", "mul_add", "erf_plus_one"})
"""Scalar functions that are not ops as they are."""

OPS: list[Op] = [
    *(_primitive(f) for f in FUNCTIONS.values() if f.name not in _NO_OPS),
    Op("where", "pointwise", (3, 3), _infer_where, np.where, "c ? x : y, elementwise",
       form=elementwise(lambda c, x, y: call("where", c, x, y), widen=False)),
    Op("cast", "pointwise", (1, 1), lambda t, a: TensorType(a["dtype"], t[0].shape), _cast_reference,
       "x converted to `dtype`", {"dtype": REQUIRED}, elementwise(lambda x, dtype: cast(x, dtype), widen=False)),
    _composite("relu", "x < 0 ? 0 : x, which keeps NaN and the sign of zero, as eager does",
               lambda x: call("where", call("lt", x, constant(0, x)), constant(0, x), x),
               lambda x: np.where(x < 0, np.zeros_like(x), x), domain="any"),
    _composite("silu", "x * sigmoid(x)", lambda x: call("mul", x, call("sigmoid", x)),
               lambda x: (x * FUNCTIONS["sigmoid"].reference(x)).astype(x.dtype)),
    _composite("gelu", "x/2 * (1 + erf(x/sqrt 2)), or its tanh approximation (Hendrycks and Gimpel, arXiv:1606.08415)",
               _gelu, _gelu_reference, approximate="none"),
    _composite("reciprocal", "1 / x", lambda x: call("div", constant(1, x), x), lambda x: (1 / x).astype(x.dtype)),
]  # fmt: skip
