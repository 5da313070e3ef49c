"""Weights that others stored, as components of an encoding: the same codes, scales and minimums, none computed anew.

    v[n,k] = (number(code[n,k]) - zero[n,g]) * scale[n,g] + minimum[n,g],        g = k / group

Importers say what they found as `Parts`, in plain arrays, one integer to an element; the encoding's own packing does
the rest. A scale is a floating number, or an `inner` integer times an `outer` number that several groups share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from effcc.compression.install import Stored
from effcc.errors import CheckpointError
from effcc.frontend.decode import to_tensor
from effcc.ir.dtypes import DType, f32
from effcc.ir.encodings import storage
from effcc.ir.encodings.packing import Packed
from effcc.ir.encodings.values import Coded
from effcc.ir.encodings.values.parameters import Floats, TwoLevel
from effcc.ir.parser import encoding_of

Array = Any


@dataclass(frozen=True)
class Factors:
    """A number for each group: `outer`, times the integers `inner` where there are any."""

    outer: Array
    inner: Array | None = None


@dataclass(frozen=True)
class Parts:
    """What is stored of a weight. `codes` are integers, or places in a table; `table` is one that is stored."""

    codes: Array
    scale: Factors
    zero: Array | None = None
    minimum: Factors | None = None
    table: Array | None = None


def assemble(encoding: str, shape: Sequence[int], parts: Parts, dtype: DType = f32) -> Stored:
    """The components of a weight of `shape` and `dtype` under an encoding of dense values.

    Raises CheckpointError where a code does not fit the encoding's width, EncodingError where arrays do not fit it.
    """
    made = storage(encoding_of(encoding), shape, dtype)
    values = made.values
    assert isinstance(values, Coded), encoding
    arrays = [
        *_packed(values.code.packed, parts.codes.reshape(shape), getattr(values.code, "offset", 0), encoding),
        *_factors(values.scale, parts.scale, encoding),
    ]
    if values.zero:
        assert parts.zero is not None
        arrays += _packed(Packed(values.code.packed.bits), parts.zero, 0, encoding)
    if values.minimum is not None:
        assert parts.minimum is not None
        arrays += _factors(values.minimum, parts.minimum, encoding)
    if parts.table is not None:
        arrays.append(parts.table)
    made.split(arrays)
    return Stored(made, arrays)


def tensors_of(stored: Stored) -> dict[str, Tensor]:
    """The components as tensors, by name."""
    return {c.name: to_tensor(a) for c, a in zip(stored.storage.components, stored.arrays, strict=True)}


def _packed(packed: Packed, codes: Array, offset: int, encoding: str) -> list[Array]:
    """Integers in the encoding's packing; `offset` is what is added to store them."""
    low, high = (-128, 127) if packed.signed else (-offset, (1 << packed.bits) - 1 - offset)
    least, most = int(codes.min()), int(codes.max())
    if least < low or most > high:
        raise CheckpointError(f"{encoding} has codes {low} to {high}; the weight holds {least} to {most}")
    return packed.pack(codes + codes.dtype.type(offset) if offset else codes)


def _factors(stored: Any, factors: Factors, encoding: str) -> list[Array]:
    """Scales or minimums as the encoding stores them."""
    if isinstance(stored, TwoLevel):
        assert factors.inner is not None
        return [*_packed(stored.packed, factors.inner, stored.offset, encoding), factors.outer]
    assert isinstance(stored, Floats) and factors.inner is None
    return [np.ascontiguousarray(factors.outer)]
