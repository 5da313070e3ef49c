"""What a model requires of its data: an assertion, or what an operator refuses.

The result is the first operand, so that the check runs where that is computed, and only if somebody reads it. Where the
condition does not hold, the call raises RefusedValueError at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effcc.ir.dims import same_shape
from effcc.ir.dtypes import boolean
from effcc.ir.expr import where
from effcc.ir.form import FormBuilder, constant
from effcc.ir.op import REQUIRED, Op, Types, broadcast_shapes, require
from effcc.ir.scalars import require_true
from effcc.ir.types import TensorType


def _infer(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    x, condition = operands
    require(condition.dtype == boolean, f"the condition must be bool, got {condition.dtype.name}")
    fits = same_shape(broadcast_shapes([x.shape, condition.shape]), x.shape)
    require(fits, f"the condition must broadcast to {x}, got {condition}")
    return x.plain()


def _require(b: FormBuilder) -> None:
    axes = b.axes(b.results[0].type.shape)
    value = b.load(0, axes)
    b.define(axes, where(b.holds(b.broadcast(1, axes)), value, constant(0, value)))


def _reference(x: Any, condition: Any, message: str) -> Any:
    require_true(condition if x.size else True, message)
    return x


OPS: list[Op] = [
    Op("require", "opaque", (2, 2), _infer, _reference,
       "the first operand; where the second, a condition that broadcasts to it, is false, the call raises `message`",
       {"message": REQUIRED}, _require),
]  # fmt: skip
