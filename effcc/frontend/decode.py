"""The operator by which a stored weight stays one through capture: `effcc::decode(scheme, shape, components) ->
Tensor`.

Eager runs the reference decoder. AOTAutograd and torch.export carry the call as it is, and the importer turns it into
the op `decode`, so that what is compiled sees the components and never the dense weight.

Gradients pass to components in a floating dtype: decoding is linear in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from effcc.errors import EncodingError
from effcc.frontend.importer import Importer, dtype_of, imports
from effcc.ir.encodings import Storage, canonical, stored_as
from effcc.ir.encodings.levels import Levels
from effcc.ir.graph import Value
from effcc.ir.parser import encoding_of


def storage_of(scheme: str, shape: Sequence[int], components: Sequence[Tensor]) -> Storage:
    """The storage that tensors are the components of. Raises EncodingError where they do not fit it."""
    floating = [c.dtype for c in components if c.is_floating_point()]
    if not floating:
        raise EncodingError(f"{scheme}: expected values or a scale in a floating dtype among the components, got none")
    return stored_as(encoding_of(scheme), shape, dtype_of(floating[0]), [tuple(c.shape) for c in components])


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


@torch.library.custom_op(
    "effcc::decode", mutates_args=(), schema="(str scheme, int[] shape, Tensor[] components) -> Tensor"
)
def decode(scheme: str, shape: Sequence[int], components: Sequence[Tensor]) -> Tensor:
    """The dense weight of `shape` that `components` store under `scheme`; in the dtype of its first floating component.

    Raises EncodingError where the components do not fit the scheme.
    """
    made = storage_of(scheme, shape, components)
    return to_tensor(made.decode([to_numpy(c) for c in components])).to(components[0].device)


@decode.register_fake
def _(scheme: str, shape: Sequence[int], components: Sequence[Tensor]) -> Tensor:
    storage_of(scheme, shape, components)
    dtype = next(c.dtype for c in components if c.is_floating_point())
    return components[0].new_empty(tuple(shape), dtype=dtype)


def _save(ctx: Any, inputs: Any, output: Tensor) -> None:
    scheme, shape, components = inputs
    ctx.scheme, ctx.shape = scheme, tuple(shape)
    ctx.save_for_backward(*components)


def _gradients(ctx: Any, upstream: Tensor) -> tuple[None, None, list[Tensor | None]]:
    """The gradient of the one floating component: the stored elements themselves, or the scale they share."""
    components = ctx.saved_tensors
    made = storage_of(ctx.scheme, ctx.shape, components)
    gradient = _at_stored_elements(upstream, made.levels, components)
    if not made.values.is_exact:
        *_, whole, scale = components
        products = made.levels.rows(gradient) * made.levels.rows(whole)
        gradient = products.sum(1 if scale.numel() == products.shape[0] else (0, 1)).reshape(scale.shape)
    return None, None, [*(None for _ in components[:-1]), gradient]


def _at_stored_elements(dense: Tensor, levels: Levels, components: Sequence[Tensor]) -> Tensor:
    """A dense tensor at the places that are stored: `Levels.compress` in operators that can be traced."""
    if not levels.coordinates:
        return dense
    (n, k), (height, width) = levels.shape, levels.block
    blocks = dense.reshape(n // height, height, k // width, width).transpose(1, 2)
    chosen = components[0].to(torch.int64)[:, :, None, None].expand(-1, -1, height, width)
    return blocks.gather(1, chosen).reshape(levels.stored)


decode.register_autograd(_gradients, setup_context=_save)


@imports(torch.ops.effcc.decode.default)
def import_decode(m: Importer, scheme: str, shape: tuple[int, ...], components: tuple[Value, ...]) -> Value:
    """The op `decode` over the components as they are stored."""
    dtype = next(c.type.dtype for c in components if c.type.dtype.is_float)
    return m.emit("decode", *components, encoding=canonical(encoding_of(scheme)), dtype=dtype, shape=tuple(shape))
