"""A stored matrix as integers, and what one of them is worth: shared by a group of each row's elements.

    w[n, size*g + j]  =  numbers[g,n,j] * scale[g,n] + minimum[g,n]

With groups first, as products read them that add up a group at a time (`effcc.passes.encodings.by_groups`). A scale
for a whole channel is one of a single group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.ir.dtypes import f32, i7, i8
from effcc.ir.encodings.storage import Storage
from effcc.ir.expr import Expr, add, cast, integer, multiply
from effcc.ir.form import FormBuilder
from effcc.ir.types import TensorType

Array = Any
NUMBERS, SCALE, MINIMUM = "numbers", "scale", "minimum"


@dataclass(frozen=True)
class Groups:
    """`count` groups of `size` in each of so many `channels`, of integers from `least` to `most`."""

    channels: int
    count: int
    size: int
    least: int
    most: int
    has_minimum: bool

    @property
    def parts(self) -> tuple[str, ...]:
        return (NUMBERS, SCALE, MINIMUM) if self.has_minimum else (NUMBERS, SCALE)

    def type_of(self, part: str) -> TensorType:
        if part != NUMBERS:
            return TensorType(f32, (self.count, self.channels))
        dtype = i7 if self.least >= -64 and self.most <= 63 else i8
        return TensorType(dtype, (self.count, self.channels, self.size))


def integers_of(stored: Storage) -> tuple[int, int] | None:
    """The least and the largest integer that elements are stored as, before they are scaled; None where they are not,
    or where not every element is stored.
    """
    levels = stored.levels
    return stored.values.integers if levels.stored == stored.shape and not levels.coordinates else None


def groups_of(stored: Storage) -> Groups | None:
    """The groups of a matrix that is stored so, in bytes, with no group shorter than others; None for any other."""
    between = integers_of(stored)
    if between is None or len(stored.shape) != 2 or stored.dtype != f32:
        return None
    channels, length = stored.shape
    size = stored.values.group_size(length)
    if between[0] < -128 or between[1] > 127 or length % size:
        return None
    return Groups(channels, length // size, size, *between, stored.values.has_minimum)


def part_of_groups(stored: Storage, arrays: Sequence[Array], part: str) -> Array:
    """One part of a stored matrix, as an array."""
    groups = groups_of(stored)
    assert groups is not None
    numbers, scale, minimum = stored.values.separated(stored.levels, arrays)
    type = groups.type_of(part)
    if part == NUMBERS:
        found = numbers.reshape(groups.channels, groups.count, groups.size).transpose(1, 0, 2)
    else:
        shared: Array = scale if part == SCALE else minimum
        found = np.broadcast_to(shared.reshape(-1, groups.count), (groups.channels, groups.count)).T
    return np.ascontiguousarray(found.astype(type.dtype.numpy))


def form_part(b: FormBuilder, stored: Storage, part: str) -> None:
    """The cascade of one part; operands are the components."""
    groups = groups_of(stored)
    assert groups is not None
    axes = b.axes(groups.type_of(part).shape)
    first: Expr = multiply(axes[0], integer(groups.size))
    place = (axes[1], add(first, axes[2]) if part == NUMBERS else first)

    def load(component: int, index: Sequence[Expr]) -> Expr:
        return b.load(component, index)

    found = dict(
        zip(
            (NUMBERS, SCALE, MINIMUM),
            stored.values.integer_parts(stored.levels, load, place, axes[1], f32),
            strict=True,
        )
    )
    value = found[part]
    assert value is not None
    b.define(axes, cast(value, groups.type_of(part).dtype))
