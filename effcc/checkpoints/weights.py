"""Weights that others stored, as components of an encoding: the same codes, scales and minimums, none computed anew.

    v[n,k] = (number(code[n,k]) - zero[n,g]) * scale[n,g] + minimum[n,g],        g = k / group

Importers say what they found as `Parts`, in plain arrays, one integer to an element; the encoding's own packing does
the rest. A scale is a floating number, or an `inner` integer times an `outer` number that several groups share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from effcc.compression.install import Stored
from effcc.errors import CheckpointError, EncodingError
from effcc.frontend.decode import to_tensors
from effcc.ir.dtypes import DType, f32
from effcc.ir.encodings import storage
from effcc.ir.encodings.values import Factors, Parts
from effcc.ir.parser import encoding_of

__all__ = ["Factors", "Parts", "assemble", "tensors_of"]


def assemble(
    encoding: str, shape: Sequence[int], parts: Parts, dtype: DType = f32, order: NDArray[np.int32] | None = None
) -> Stored:
    """The components of a weight of `shape` and `dtype` under an encoding of dense values.

    order: the columns that the stored ones are, where they lie in an order of their own.

    Raises CheckpointError where a code does not fit the encoding's width, EncodingError where arrays do not fit it.
    """
    made = storage(encoding_of(encoding if order is None else f"reorder . {encoding}"), shape, dtype)
    try:
        arrays = made.values.assembled(made.levels, parts)
    except EncodingError as error:
        raise CheckpointError(f"{encoding}: {error}") from None
    arrays = arrays if order is None else [order, *arrays]
    made.split(arrays)
    return Stored(made, arrays)


def tensors_of(stored: Stored) -> dict[str, Tensor]:
    """The components as tensors, by name."""
    return {c.name: t for c, t in zip(stored.storage.components, to_tensors(stored.arrays), strict=True)}
