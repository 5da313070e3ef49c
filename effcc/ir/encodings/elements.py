"""What is stored of a weight, as arrays of the stored elements' shape: numbers, or integers and what they are worth.

    elements[p]    the element that is stored at place p
    integers[p]    its integer, before scales, in a byte
    scales[n]      what an integer of channel n is worth; scales[n,g] where groups of a dense weight share scales

What stores a weight anew, so that it is quicker to read, is made of these (`effcc.passes.encodings.recode`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.ir.dtypes import f32, i8
from effcc.ir.encodings.storage import Storage
from effcc.ir.expr import Expr, cast, integer, multiply
from effcc.ir.form import FormBuilder
from effcc.ir.types import TensorType

Array = Any
ELEMENTS, INTEGERS, SCALES = "elements", "integers", "scales"


def element_parts(stored: Storage) -> tuple[str, ...]:
    """Which of the parts a weight has. Integers are those of matrices of f32, in -128..127 and without a minimum."""
    values, levels = stored.values, stored.levels
    if values.terms or levels.channel_of([integer(0)] * len(levels.stored)) is None:
        return ()
    between = values.integers
    fit = between is not None and between[0] >= -128 and between[1] <= 127
    if not fit or values.has_minimum or len(stored.shape) != 2 or stored.dtype != f32:
        return (ELEMENTS,)
    shared = values.shares_groups and bool(levels.coordinates)
    return (ELEMENTS, INTEGERS) if shared else (ELEMENTS, INTEGERS, SCALES)


def element_type(stored: Storage, part: str) -> TensorType:
    """A part's type."""
    if part == SCALES:
        return TensorType(f32, _scales_shape(stored))
    return TensorType(i8 if part == INTEGERS else stored.dtype, stored.levels.stored)


def _scales_shape(stored: Storage) -> tuple[int, ...]:
    n, length = stored.shape[0], stored.levels.row_length
    return (n, -(-length // stored.values.group_size(length))) if stored.values.shares_groups else (n,)


def elements_of(stored: Storage, arrays: Sequence[Array], part: str) -> Array:
    """A part, as an array: the reference."""
    coordinates, values = stored.split(arrays)
    levels = stored.levels.at(coordinates)
    if part == ELEMENTS:
        return stored.values.decode(levels, values, stored.dtype).reshape(levels.stored)
    numbers, scale, _ = stored.values.separated(levels, values)
    if part == INTEGERS:
        return levels.from_rows(numbers).astype(np.int8)
    return np.ascontiguousarray(np.broadcast_to(scale, _scales_shape(stored))).astype(np.float32)


def form_elements(b: FormBuilder, stored: Storage, part: str) -> None:
    """The cascade of a part; operands are the components."""
    levels, first = stored.levels, len(stored.levels.coordinates)
    type = element_type(stored, part)
    axes = b.axes(type.shape)

    def load(component: int, index: Sequence[Expr]) -> Expr:
        return b.load(first + component, index)

    if part == SCALES:
        place: list[Expr] = [axes[0], *[integer(0) for _ in levels.stored[1:]]]
        if len(axes) > 1:
            place[1] = multiply(axes[1], integer(stored.values.group_size(levels.row_length)))
        b.define(axes, cast(stored.values.integer_parts(levels, load, place, axes[0], f32)[1], type.dtype))
        return
    channel = levels.channel_of(axes)
    assert channel is not None
    if part == INTEGERS:
        b.define(axes, cast(stored.values.integer_parts(levels, load, axes, channel, f32)[0], type.dtype))
    else:
        b.define(axes, stored.values.element(levels, load, axes, channel, stored.dtype))
