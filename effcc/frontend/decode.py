"""The operator by which a stored weight stays one through capture: `effcc::decode(scheme, shape, components, dtype) ->
Tensor`.

Eager runs the reference decoder. AOTAutograd and torch.export carry the call as it is, and the importer turns it into
the op `decode`, so that what is compiled sees the components and never the dense weight.

Gradients pass to components in a floating dtype (scales, minimums, tables): decoding is linear in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from effcc.errors import EncodingError
from effcc.frontend.importer import Importer, dtype_of, imports
from effcc.ir.encodings import Storage, canonical, stored_as
from effcc.ir.graph import Value
from effcc.ir.parser import encoding_of


def storage_of(
    scheme: str, shape: Sequence[int], components: Sequence[Tensor], dtype: torch.dtype | None = None
) -> Storage:
    """The storage that tensors are the components of. Raises EncodingError where they do not fit it."""
    made = dtype_of(_result_dtype(scheme, [c.dtype for c in components], dtype))
    return stored_as(encoding_of(scheme), shape, made, [tuple(c.shape) for c in components])


def _result_dtype(scheme: str, dtypes: Sequence[torch.dtype], dtype: torch.dtype | None) -> torch.dtype:
    """The weight's dtype: the one that is said, or that of the first floating component."""
    floating = [d for d in dtypes if d.is_floating_point]
    if dtype is None and not floating:
        raise EncodingError(f"{scheme}: expected values or a scale in a floating dtype among the components, got none")
    return dtype or floating[0]


def to_numpy(tensor: Tensor) -> Any:
    """A tensor's values as an array, without a copy where they are on the CPU."""
    held = tensor.detach().cpu().contiguous()
    return held.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if held.dtype == torch.bfloat16 else held.numpy()


def to_tensor(array: Any) -> Tensor:
    """An array as a tensor of its own."""
    held = np.ascontiguousarray(array)
    if held.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(held.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(held.copy() if held.base is not None or held is array else held)


_APART = 64
"""Bytes of a cache line: arrays that lie side by side begin with one."""


def to_tensors(arrays: Sequence[Any]) -> list[Tensor]:
    """Arrays as tensors of their own that lie side by side in memory: a weight's components, of which a program asks
    at each call whether any was written (`effcc.runtime.watch`), which is one question then, and not one for each."""
    held = [np.ascontiguousarray(a) for a in arrays]
    begins = list(accumulate((-(-a.nbytes // _APART) * _APART for a in held), initial=0))
    memory = np.empty(begins[-1] + _APART, np.uint8)
    first = -memory.ctypes.data % _APART
    made = []
    for array, begin in zip(held, begins, strict=False):
        half = array.dtype == ml_dtypes.bfloat16
        place = memory[first + begin : first + begin + array.nbytes].view(np.int16 if half else array.dtype)
        place = place.reshape(array.shape)
        place[...] = array.view(np.int16) if half else array
        made.append(torch.from_numpy(place).view(torch.bfloat16) if half else torch.from_numpy(place))
    return made


@torch.library.custom_op(
    "effcc::decode",
    mutates_args=(),
    schema="(str scheme, int[] shape, Tensor[] components, ScalarType? dtype=None) -> Tensor",
)
def decode(scheme: str, shape: Sequence[int], components: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """The dense weight of `shape` that `components` store under `scheme`.

    dtype: the weight's; where it is not said, that of the first floating component.

    Raises EncodingError where the components do not fit the scheme.
    """
    made = storage_of(scheme, shape, components, dtype)
    return to_tensor(made.decode([to_numpy(c) for c in components])).to(components[0].device)


@decode.register_fake
def _(scheme: str, shape: Sequence[int], components: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    storage_of(scheme, shape, components, dtype)
    made = _result_dtype(scheme, [c.dtype for c in components], dtype)
    return components[0].new_empty(tuple(shape), dtype=made)


def _save(ctx: Any, inputs: Any, output: Tensor) -> None:
    scheme, shape, components, dtype = inputs
    ctx.scheme, ctx.shape, ctx.dtype = scheme, tuple(shape), dtype
    ctx.save_for_backward(*components)


def _gradients(ctx: Any, upstream: Tensor) -> tuple[None, None, list[Tensor | None], None]:
    """The gradients of the floating components: the stored elements themselves, or scales, minimums and tables."""
    components = ctx.saved_tensors
    made = storage_of(ctx.scheme, ctx.shape, components, ctx.dtype)
    found = made.gradients(torch, components, upstream)
    return None, None, [g if g is None else g.to(c.dtype) for g, c in zip(found, components, strict=True)], None


decode.register_autograd(_gradients, setup_context=_save)


@imports(torch.ops.effcc.decode.default)
def import_decode(
    m: Importer, scheme: str, shape: tuple[int, ...], components: tuple[Value, ...], dtype: torch.dtype | None = None
) -> Value:
    """The op `decode` over the components as they are stored."""
    made = dtype_of(dtype) if dtype else next(c.type.dtype for c in components if c.type.dtype.is_float)
    return m.emit("decode", *components, encoding=canonical(encoding_of(scheme)), dtype=made, shape=tuple(shape))
