"""What type each node of the vector language has, and which types it takes: read by its parser and its verifier."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from effcc.errors import IRTypeError
from effcc.ir.dots import DOTS, TILE_DOTS
from effcc.ir.dtypes import DTYPES, DType, bf16, boolean, f16, f32
from effcc.ir.op import require
from effcc.ir.scalars import CHECKS
from effcc.ir.scalars import function as scalar_function
from effcc.ir.vectors import INDEX, NARROW, Type, tile_type, value_type

_TYPE = re.compile(r"(?:mask(?P<bits>8|16|32|64)|(?P<dtype>[a-z]+\d*))(?:x(?P<lanes>\d+)(?:x(?P<rows>\d+))?)?")


def read_type(text: str) -> Type:
    """The type called `text`: `f32`, `f32x16`, `mask32x16`; raises IRTypeError."""
    match = _TYPE.fullmatch(text)
    lanes = int(match["lanes"] or 1) if match is not None else 1
    mask = match is not None and match["bits"] is not None
    dtype = boolean if mask or match is None else DTYPES.get(match["dtype"])
    truth = dtype == boolean and mask != (lanes > 1)
    if match is None or dtype is None or lanes & (lanes - 1) != 0 or lanes == 0 or truth:
        raise IRTypeError(
            f"expected a type of values (f32, bool, f32x16, mask32x16; lanes are a power of two), got {text!r}"
        )
    rows = int(match["rows"] or 1)
    if rows > 1:
        found = tile_type(dtype)
        if (rows, lanes) != (found.rows, found.lanes) or mask:
            raise IRTypeError(f"{text}: a tile register of {dtype} is {found}")
        return found
    return value_type(dtype, lanes, int(match["bits"]) // 8 if mask else 4)


@dataclass(frozen=True)
class _VectorFunction:
    """A function of this level alone: its operands and its result are single."""

    operands: tuple[Type, ...]
    result: Type


VECTOR_FUNCTIONS: Mapping[str, _VectorFunction] = {
    "quotient": _VectorFunction((INDEX, INDEX), INDEX),
    "rest": _VectorFunction((INDEX, INDEX), INDEX),
    "saturate": _VectorFunction((INDEX,), NARROW),
}
_ELSEWHERE = ("where", "cast", *CHECKS)
"""Scalar functions that are nodes of their own here."""


def call_type(name: str, operands: Sequence[Type]) -> Type:
    """The type of a call; raises IRTypeError or UnknownNameError where there is none of these operands."""
    own = VECTOR_FUNCTIONS.get(name)
    if own is not None:
        require(tuple(operands) == own.operands, f"{name} takes {_listed(own.operands)}, got {_listed(operands)}")
        return own.result
    found = scalar_function(name)
    require(name not in _ELSEWHERE, f"{name} is a node of its own here, not a function")
    require(len(operands) == found.arity, f"{name} takes {found.arity} operands, got {len(operands)}")
    first = operands[0]
    require(all(t == first for t in operands), f"the operands of {name} must have one type, got {_listed(operands)}")
    require(first.dtype not in (f16, bf16), f"{name} of {first}: half types are loaded as f32")
    if found.domain == "float":
        require(first.dtype.is_float, f"{name} takes floats, got {first}")
    if found.domain == "int":
        require(not first.dtype.is_float, f"{name} takes integers or truth values, got {first}")
    if found.result == "bits":
        return value_type(found.result_dtype(first.dtype), first.lanes)
    if found.result != "bool" or first.dtype == boolean:
        return first
    return truth_of(first)


def truth_of(type: Type) -> Type:
    """The type of a truth value for each lane of a number."""
    return value_type(boolean, type.lanes, type.dtype.bytes)


def load_type(stored: DType, type: Type) -> None:
    """Raise IRTypeError unless elements of `stored` are loaded and stored as `type`; packed lanes of bf16 are bits."""
    want = f32 if stored in (f16, bf16) else stored
    packed = stored == bf16 and type.dtype == bf16 and type.lanes > 1
    require(type.dtype == want or packed, f"elements of {stored} are values of {want}, got {type}")


def dot_type(a: Type, b: Type, c: Type) -> None:
    """Raise IRTypeError unless there is such a dot product of packed lanes."""
    neighbours = DOTS.get((a.dtype, b.dtype, c.dtype))
    known = ", ".join(f"{x} x {y} to {z}" for x, y, z in DOTS)
    require(neighbours is not None, f"no dot product of {a} with {b} to {c}; there are {known}")
    assert neighbours is not None
    if c.rows > 1:
        require(a.rows == b.rows == c.rows, f"a dot of tiles is of three tiles, got {a} with {b} to {c}")
        require((a.dtype, b.dtype, c.dtype) in TILE_DOTS, f"no dot product of tiles {a} with {b} to {c}")
        return
    require(a.rows == b.rows == 1, f"a dot of tiles is of three tiles, got {a} with {b} to {c}")
    require(
        a.lanes == b.lanes == c.lanes * neighbours,
        f"{neighbours} packed lanes make one of the sum's: {a} and {b} do not give {c}",
    )


def _listed(types: Sequence[Type]) -> str:
    return ", ".join(map(str, types))
