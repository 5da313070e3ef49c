"""What structures are written with: a `Sketch`, which appends nodes and gives fresh operands, and a few short hands.

A structure is a function that appends nodes which models have together. It goes wrong on purpose now and then, so that
a pass that takes the wrong graph for its pattern shows: a step out of order, another axis, a mask that leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import numpy as np

from effcc.ir.dtypes import DType, f32
from effcc.ir.graph import Graph, Value
from effcc.ir.types import TensorType


class Sketch(Protocol):
    """What a structure writes with. `emit` raises `Refused` where values leave the range that can be compared."""

    @property
    def random(self) -> Random: ...

    @property
    def data(self) -> np.random.Generator: ...

    def dtype(self) -> DType: ...

    def emit(self, op: str, *operands: Value, **attrs: Any) -> Value: ...

    def call(self, op: str, *operands: Value, regions: tuple[Graph, ...], **attrs: Any) -> tuple[Value, ...]: ...

    def fresh(self, type: TensorType, weight: bool = False, limits: tuple[int, int] | None = None) -> Value: ...

    def given(self, array: Any, weight: bool = False) -> Value: ...

    def update(self, parameter: Value, value: Value) -> None: ...

    def attempt(self, build: Callable[[Sketch], object]) -> None: ...


class Refused(Exception):
    """What a structure computes cannot be compared; leave it out."""


Structure = Callable[[Sketch], None]
STRUCTURES: list[Structure] = []


def structure(build: Structure) -> Structure:
    """Register a structure."""
    STRUCTURES.append(build)
    return build


def size(s: Sketch, *sizes: int) -> int:
    return s.random.choice(sizes or (1, 2, 3, 4, 5, 8, 9, 16, 17, 33))


def floats(s: Sketch, *shape: int, dtype: DType, weight: bool = False) -> Value:
    return s.fresh(TensorType(dtype, shape), weight)


def number(s: Sketch, value: float, dtype: DType) -> Value:
    return s.emit("full", shape=(), value=value, dtype=dtype)


def wide(s: Sketch) -> DType:
    """The graph's dtype, or f32 where that is none of floats."""
    found = s.dtype()
    return found if found.is_float else f32


def element(s: Sketch, x: Value, axis: int, start: int, squeeze: bool = True) -> Value:
    """Element `start` of an axis."""
    part = s.emit("slice", x, axis=axis, start=start, end=start + 1, step=1)
    if not squeeze:
        return part
    shape = part.type.shape
    return s.emit("reshape", part, shape=(*shape[:axis], *shape[axis + 1 :]))
