"""The operator that says of bytes that they are light weights (`effcc.ir.light`): `effcc::light(values) -> Tensor`.

What is not light, because somebody wrote other bytes, is made so: bytes are clamped, and sets that are too heavy are 0.
So compiled programs may rely on it, and give what eager gives in any case.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from effcc.frontend.importer import Importer, imports
from effcc.ir.dims import elements
from effcc.ir.dtypes import i32, l8
from effcc.ir.graph import Value
from effcc.ir.light import IN_SET, LARGEST, SUM, missing, set_shape


@torch.library.custom_op("effcc::light", mutates_args=(), schema="(Tensor values) -> Tensor")
def light(values: Tensor) -> Tensor:
    """Bytes values[N,K,...] that are light: those that are, as they are."""
    length = values.shape[1]
    padded = F.pad(values.clamp(-LARGEST, LARGEST), (*(0 for _ in range(2 * values.dim() - 4)), 0, missing(length)))
    sets = padded.reshape(set_shape(values.shape)).int()
    positive, negative = (sets.clamp(*bounds).sum(IN_SET, keepdim=True) for bounds in ((0, None), (None, 0)))
    kept = torch.where((positive <= SUM) & (negative >= -SUM), sets, 0)
    return kept.reshape(padded.shape)[:, :length].to(torch.int8).contiguous()


@light.register_fake
def _(values: Tensor) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


@imports(torch.ops.effcc.light.default)
def import_light(m: Importer, values: Value) -> Value:
    """The same, of a dtype that says so."""
    channels, length, *rest = values.type.shape
    none = (0,) * len(rest)
    assert isinstance(channels, int) and isinstance(length, int) and all(isinstance(n, int) for n in rest)
    apart = set_shape((channels, length))
    zero, largest, smallest, heaviest = (m.constant(n, i32) for n in (0, LARGEST, -LARGEST, SUM))
    bytes_ = m.emit("maximum", m.emit("minimum", m.cast(values, i32), largest), smallest)
    padded = m.emit("pad", bytes_, low=(0, 0, *none), high=(0, missing(length), *none), value=0)
    sets = m.emit("reshape", padded, shape=(*apart, elements(tuple(rest))))
    positive = m.emit("maximum", sets, zero)
    sums = [m.emit("sum", x, axes=IN_SET, keepdim=True) for x in (positive, m.emit("sub", positive, sets))]
    heavy = m.cast(m.emit("maximum", *sums), i32)
    kept = m.emit("reshape", m.emit("where", m.emit("le", heavy, heaviest), sets, zero), shape=padded.type.shape)
    if missing(length):
        kept = m.emit("slice", kept, axis=1, start=0, end=length, step=1)
    return m.cast(kept, l8)
