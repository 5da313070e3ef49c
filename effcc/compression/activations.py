"""Layers that multiply integers with integers: activations are quantized where they enter, sums are exact in i32.

    int8(per="token")    q[m,k] = round(x[m,k] * 127 / max|x[m,:]|), at every call
    y[m,n] = f32(sum over k of q[m,k] * values[n,k]) * (max|x[m,:]| / 127 * scale[n]) + bias[n]

The forward is made of ordinary operators and `torch._int_mm`, whose sums are those of the integers modulo 2^32: exact
while there are fewer than 2^17 terms. So a quantized layer runs in eager, is exported, and is compiled by any backend.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from effcc.compression.modules import EncodedLinear, encoded_class
from effcc.errors import EncodingError
from effcc.ir.dtypes import i8
from effcc.ir.encoding import Scheme
from effcc.ir.encodings import Storage
from effcc.ir.parser import encoding_of

LARGEST = 127
"""Quantized activations lie between -127 and 127."""
SMALLEST_ROW = 2.0**-100
"""Rows whose largest magnitude is below that are quantized as if it were that: its reciprocal is a number of f32."""
_GRANULARITIES = ("token",)


@dataclass(frozen=True)
class Activations:
    """How a layer's input is quantized: one scale `per` "token", which is a row of the last dimension."""

    per: str

    def __str__(self) -> str:
        return str(Scheme("int8", options=(("per", self.per),)))


def activations_of(notation: str) -> Activations:
    """The scheme that a notation says, `int8(per="token")`. Raises EncodingError for any other."""
    chains = encoding_of(notation).terms
    scheme = chains[0][0] if len(chains) == 1 and len(chains[0]) == 1 else Scheme("")
    options = dict(scheme.options)
    per = options.pop("per", "tensor")
    if scheme.name != "int8" or scheme.args or options or per not in _GRANULARITIES:
        raise EncodingError(f'activations: expected int8(per="token"), got {notation}')
    return Activations(str(per))


def require_integers(modules: Iterable[nn.Module], stored: Storage) -> None:
    """Raise EncodingError unless modules are linear layers, their weight bytes times scales that whole sums share."""
    for module in modules:
        if encoded_class(module) not in (EncodedLinear, IntegerLinear):
            raise EncodingError(f"activations are quantized in nn.Linear, not in {type(module).__name__}")
    values, *others = stored.components
    scales = len(others) == 1 and others[0].type.shape in ((1,), (stored.shape[0],)) and others[0].type.dtype.is_float
    if values.type.dtype != i8 or values.type.shape != stored.shape or not scales:
        raise EncodingError(
            f"activations are quantized where the weight is stored as int8, with one scale for each channel or for the "
            f"tensor; this one is stored as {stored.encoding}"
        )


class IntegerLinear(EncodedLinear):
    """`nn.Linear` with bytes for its weight, which makes bytes of its input too."""

    activations: Activations

    def forward(self, input: Tensor) -> Tensor:
        whole, scale = by_token(self.changed(input))
        values, weight_scale = (getattr(self, name) for name in self.weight_components)
        rows = whole.reshape(-1, self.in_features)
        # Of matrices with one column PyTorch 2.13's `_int_mm` gives what lies in memory.
        sums = torch._int_mm(rows, values.t()) if self.in_features > 1 else rows.int() * values.t().int()
        sums = sums.reshape(*input.shape[:-1], self.out_features)
        result = sums.float() * (scale * weight_scale.float())
        return (result if self.bias is None else result + self.bias.float()).to(input.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activations={self.activations}"


def by_token(x: Tensor) -> tuple[Tensor, Tensor]:
    """The bytes of each row, and their scale in f32: one for each row, in a last dimension of 1.

    A row with NaN or an infinity has a scale that is none, too.

        >>> whole, scale = by_token(torch.tensor([[1.0, -2.0, 0.5]]))
        >>> whole.tolist(), round(scale.item() * 127, 4)
        ([[64, -127, 32]], 2.0)
    """
    wide = x.float()
    largest = wide.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_ROW)
    return torch.round(wide * (LARGEST / largest)).to(torch.int8), largest / LARGEST


def install_activations(modules: Iterable[nn.Module], how: Activations | None) -> None:
    """Make layers whose weights are bytes quantize their inputs as is said; None: no longer."""
    for module in modules:
        if how is not None:
            module.__class__ = IntegerLinear
            module.activations = how  # type: ignore[assignment]
        elif type(module) is IntegerLinear:
            module.__class__ = EncodedLinear  # type: ignore[assignment]
