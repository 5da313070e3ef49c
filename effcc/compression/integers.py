"""Layers that multiply integers with integers: activations are quantized where they enter, sums are exact in i32.

    y[m,n] = f32(sum over k of (q[m,k] - zero) * values[n,k]) * (step * scale[n]) + bias[n]

and likewise for convolutions, where a tap beyond the border adds 0. Where groups of a channel's elements share a scale,
or codes have fewer bits, a linear layer multiplies with the weight in f32,

    y[m,n] = sum over k of (q[m,k] - zero) * w[n,k] * step + bias[n]

which the compiler sums in integers a group at a time where that is quicker (`effcc.passes.encodings.by_groups`).
Of `outliers(8) + int8` the few columns that are not bytes multiply what they are given in f32, and a row's step is that
of its other elements,

    y[m,n] = f32(sum over the others of q[m,k] * values[n,k]) * (step[m] * scale[n]) + sum over c of x[m,c] * w[n,c]

The forward is made of ordinary operators, whose
sums are those of the integers modulo 2^32: exact while there are fewer than 2^16 terms. So a quantized layer runs in
eager, is exported, and is compiled by any backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effcc.compression.activations import Codes, by_step, by_token
from effcc.compression.modules import EncodedConv2d, EncodedLinear, EncodedModule, encoded_class
from effcc.errors import EncodingError
from effcc.frontend.decode import decode, storage_of
from effcc.frontend.light import light
from effcc.ir.dtypes import i8
from effcc.ir.encodings import Storage
from effcc.ir.encodings.groups import integers_of
from effcc.ir.encodings.storage import Component


class IntegerModule(EncodedModule):
    """A module with bytes for its weight, which makes bytes of its input too.

    input_step: f32[], a buffer; None where each token has a step of its own.
    has_light_weight: whether its bytes are light ones (`effcc.ir.light`).
    weight_bounds: the least and the largest byte of the weight, where its scheme has no others (`reduce_range`).
    """

    activations: Codes
    input_step: Tensor | None
    weight_bounds: tuple[int, int] | None = None
    has_light_weight: bool = False

    def quantized(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """The bytes of the input, and what one of them is worth."""
        if self.input_step is None:
            return by_token(input, self.activations)
        return by_step(input, self.input_step, self.activations), self.input_step

    def centred(self, whole: Tensor, dtype: torch.dtype = torch.int32) -> Tensor:
        """Bytes of the input as integers that are 0 where it is."""
        wide = whole.to(dtype)
        return wide - self.activations.zero if self.activations.zero else wide

    def bounded(self, values: Tensor) -> Tensor:
        """The weight's bytes, clamped to what they are: says to a compiler what is so."""
        if self.has_light_weight:
            return light(values)
        return values if self.weight_bounds is None else values.clamp(*self.weight_bounds)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activations={self.activations}"


class IntegerLinear(IntegerModule, EncodedLinear):
    """`nn.Linear` of bytes."""

    def forward(self, input: Tensor) -> Tensor:
        whole, step = self.quantized(self.changed(input))
        values, weight_scale = (getattr(self, name) for name in self.weight_components)
        result = self.summed(whole, values).float() * (step * weight_scale.float())
        return (result if self.bias is None else result + self.bias.float()).to(input.dtype)

    def summed(self, whole: Tensor, values: Tensor) -> Tensor:
        """The sums of products of bytes."""
        values = self.bounded(values)
        rows = whole.reshape(-1, self.in_features)
        if rows.dtype == torch.int8 and self.in_features > 1:
            sums = torch._int_mm(rows, values.t())
        else:  # of matrices with one column PyTorch 2.13's `_int_mm` gives what lies in memory
            sums = F.linear(self.centred(rows), values.int())
        return sums.reshape(*whole.shape[:-1], self.out_features)


class OutlierLinear(IntegerLinear):
    """`nn.Linear` of bytes but for a few columns: these multiply their inputs in floats, and no scale sees them.

    Dettmers, Lewis, Belkada, Zettlemoyer: LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale, NeurIPS
    2022. Columns are those of the stored weight, where the bytes are 0, not found anew at every call.
    """

    def forward(self, input: Tensor) -> Tensor:
        x = self.changed(input)
        columns, apart, values, weight_scale = (getattr(self, name) for name in self.weight_components)
        columns = columns.reshape(-1)
        is_apart = (torch.arange(self.in_features, device=x.device)[:, None] == columns).any(1)
        whole, step = self.quantized(torch.where(is_apart, 0, x))
        result = self.summed(whole, values).float() * (step * weight_scale.float())
        result = result + F.linear(x.index_select(-1, columns).float(), apart[0].t().float())
        return (result if self.bias is None else result + self.bias.float()).to(input.dtype)


class GroupedLinear(IntegerModule, EncodedLinear):
    """`nn.Linear` of bytes and integers with scales of their own for groups."""

    def forward(self, input: Tensor) -> Tensor:
        whole, step = self.quantized(self.changed(input))
        components = [getattr(self, name) for name in self.weight_components]
        weight = decode(self.encoding, list(self.weight_shape), components, torch.float32)
        result = F.linear(self.centred(whole, torch.float32), weight) * step
        return (result if self.bias is None else result + self.bias.float()).to(input.dtype)


class IntegerConv2d(IntegerModule, EncodedConv2d):
    """`nn.Conv2d` of bytes."""

    def forward(self, input: Tensor) -> Tensor:
        whole, step = self.quantized(self._padded(self.changed(input)))
        values, weight_scale = (getattr(self, name) for name in self.weight_components)
        # PyTorch 2.13 has dilated convolutions of i64, but not of i32.
        wide = torch.int64 if any(d > 1 for d in self.dilation) else torch.int32
        padding = self.padding if self.padding_mode == "zeros" else 0
        sums = F.conv2d(
            self.centred(whole, wide),
            self.bounded(values).to(wide),
            None,
            self.stride,
            padding,
            self.dilation,
            self.groups,
        )
        result = sums.float() * (step * weight_scale.float()).reshape(-1, 1, 1)
        return (result if self.bias is None else result + self.bias.float().reshape(-1, 1, 1)).to(input.dtype)

    def _padded(self, input: Tensor) -> Tensor:
        if self.padding_mode == "zeros":
            return input
        return F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)


_ENCODED: Mapping[type[nn.Module], type[EncodedModule]] = {
    IntegerLinear: EncodedLinear, OutlierLinear: EncodedLinear, GroupedLinear: EncodedLinear,
    IntegerConv2d: EncodedConv2d,
}  # fmt: skip
"""What each class of module was before its activations were quantized."""


def multiplies(module: nn.Module, static: bool = True) -> bool:
    """Whether a module can multiply bytes with bytes; a scale for each token is one of linear layers."""
    found = encoded_class(module)
    if found is None:
        return False
    return issubclass(found, EncodedLinear) or (static and issubclass(found, EncodedConv2d))


def require_integers(modules: Iterable[nn.Module], stored: Storage, static: bool) -> None:
    """Raise EncodingError unless modules are such layers, their weight bytes times scales that whole sums share."""
    for module in modules:
        if not multiplies(module, static):
            where = "nn.Linear and nn.Conv2d" if static else "nn.Linear (by token)"
            raise EncodingError(f"activations are quantized in {where}, not in {type(module).__name__}")
    if not all(takes_integers(module, stored, static) for module in modules):
        raise EncodingError(
            f"activations are quantized where the weight is stored as int8, with one scale for each channel or for the "
            f"tensor (by token also as outliers(8) + int8), or in linear layers as integers of any kind; this one is "
            f"stored as {stored.encoding}"
        )


def takes_integers(module: nn.Module, stored: Storage, static: bool = True) -> bool:
    """Whether a module with a weight that is stored so can quantize its input."""
    linear = issubclass(encoded_class(module) or nn.Module, EncodedLinear)
    if _has_outliers(stored):
        return linear and not static
    return multiplies(module, static) and (_is_whole(stored) or (linear and integers_of(stored) is not None))


def _has_outliers(stored: Storage) -> bool:
    """Whether a weight is stored as whole columns of floats and, as a second term, such bytes."""
    if len(stored.encoding.terms) != 2 or stored.encoding.terms[0][0].name != "outliers":
        return False
    columns, apart, *others = stored.components
    is_float = len(others) == 2 and apart.type.dtype.is_float
    return is_float and apart.type.shape == (*columns.type.shape, stored.shape[0]) and _is_whole(stored, others)


def _is_whole(stored: Storage, components: Sequence[Component] = ()) -> bool:
    """Whether a weight, or a term of it, is stored as signed bytes times scales that whole sums share."""
    values, *others = components or stored.components
    scales = len(others) == 1 and others[0].type.shape in ((1,), (stored.shape[0],)) and others[0].type.dtype.is_float
    return values.type.dtype == i8 and values.type.shape == stored.shape and scales


def _integer_class(module: EncodedModule) -> type[IntegerModule]:
    if isinstance(module, EncodedConv2d):
        return IntegerConv2d
    components = [getattr(module, name) for name in module.weight_components]
    stored = storage_of(module.encoding, module.weight_shape, components)
    if _has_outliers(stored):
        return OutlierLinear
    return IntegerLinear if _is_whole(stored) else GroupedLinear


def _bounds(module: EncodedModule) -> tuple[int, int] | None:
    """Between which numbers the bytes of a weight are, where its scheme uses fewer than a byte has."""
    components = [getattr(module, name) for name in module.weight_components]
    form = storage_of(module.encoding, module.weight_shape, components).values.integer_form
    code = None if form is None else form.code
    return (code.low, code.high) if code is not None and code.packed.signed and code.high < 127 else None


def _is_light(module: EncodedModule) -> bool:
    """Whether the bytes of a weight are light ones."""
    components = [getattr(module, name) for name in module.weight_components]
    return storage_of(module.encoding, module.weight_shape, components).values.is_light


def install_activations(module: Any, codes: Codes | None, step: Tensor | None = None) -> None:
    """Make a layer whose weight is bytes quantize its input as is said; None: no longer."""
    if isinstance(module, IntegerModule):
        del module.input_step, module.weight_bounds, module.has_light_weight
        module.__class__ = _ENCODED[type(module)]  # type: ignore[assignment]
    if codes is not None:
        module.__class__ = _integer_class(module)
        module.activations = codes
        module.weight_bounds = _bounds(module)
        module.has_light_weight = _is_light(module)
        source = getattr(module, module.weight_components[0])
        module.register_buffer("input_step", None if step is None else step.to(source.device))
