"""Constants of one value in a graph: recognised, and made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from effcc.ir.dtypes import DType
from effcc.ir.graph import Node
from effcc.ir.types import TensorType

Number = int | float | bool
T = TypeVar("T")


def number_of(node: Node) -> Number | None:
    """The number that fills a constant node, as written, before rounding to a floating dtype; None for other nodes."""
    if node.op not in ("constant", "full"):
        return None
    value: Any = node.attrs["value"]
    if isinstance(value, tuple):
        if not value or any(repr(v) != repr(value[0]) for v in value):
            return None
        value = value[0]
    if not isinstance(value, (bool, int, float)):
        return None
    dtype = node.result.type.dtype
    return float(value) if dtype.is_float else as_held(value, dtype)


def as_held(value: Number, dtype: DType) -> Number | None:
    """`value` rounded to what `dtype` holds; None where an integer or boolean dtype cannot hold it."""
    if dtype.is_float:
        with np.errstate(over="ignore"):
            return float(dtype.numpy.type(value))
    if isinstance(value, float) and not (math.isfinite(value) and value == int(value)):
        return None
    if dtype.kind == "bool":
        return bool(value) if value in (0, 1) else None
    whole = int(value)
    signed = dtype.kind == "int"
    low, high = (-(2 ** (dtype.bits - 1)), 2 ** (dtype.bits - 1)) if signed else (0, 2**dtype.bits)
    return whole if low <= whole < high else None


def neighbour(op: str, operands: Sequence[T | None]) -> T | None:
    """Of an op's known operands, the one whose dtype a constant among the others has; None if there is none."""
    alike = operands[1:] if op == "where" else operands
    return next((o for o in reversed(alike) if o is not None), None)


def constant_attrs(value: Number, type: TensorType) -> tuple[str, dict[str, Any]]:
    """The op and the attributes that make a tensor of `type` filled with `value`."""
    held: Number | None = float(value) if type.dtype.is_float else as_held(value, type.dtype)
    if held is None:
        raise ValueError(f"{value} is not a value of {type.dtype.name}")
    if type.shape == ():
        return "constant", {"value": held, "dtype": type.dtype, "shape": ()}
    return "full", {"value": held, "dtype": type.dtype, "shape": type.shape}
