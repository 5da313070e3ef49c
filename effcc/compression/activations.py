"""How layers' inputs become bytes: as a notation says, at every call or by ranges that calibration found.

    int8(per="token")     q[m,k] = round(x[m,k] * 127 / max|x[m,:]|), at every call
    int8                  q = clamp(round(x / step) + zero), by a step and a zero point that the layer keeps

A range that begins at 0 (after a ReLU) takes unsigned bytes from 0 to 254, any other signed ones from -127 to 127;
`zero=true`: unsigned ones from the least to the largest value. Such bytes lie within 127 of their middle, so that two
products of one with a weight's, the weight's sign moved to it, fit in 16 bits: AVX2 sums them four by four. `range`
says what calibration makes the range of: `"minmax"` all values that it saw, `"percentile"` all but one in ten thousand
at either end, `"mse"` those for which rounding and cutting off together are off by least.

What convolutions and something else read of one module, a residual sum above all, is read in these bytes by both, and
of two things added the one that waits for the other is kept in bytes; with `sums="float"` sums read f32.

`int7` likewise, from -63 to 63 or from 0 to 127: half as fine, but two products of such a byte with a weight's fit in
16 bits as they are, so that machines without dot products of bytes (AVX2) sum them nearly twice as fast as f32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effcc.errors import EncodingError
from effcc.ir.encoding import Scheme
from effcc.ir.parser import encoding_of

BITS = {"int8": 8, "int7": 7}
"""Of what inputs become, by name."""
_LARGEST_UNSIGNED = {8: 254, 7: 127}
SMALLEST_ROW = 2.0**-100
"""Rows whose largest magnitude is below that are quantized as if it were that: its reciprocal is a number of f32."""
RANGES = ("minmax", "percentile", "mse")
SUMS = ("int8", "float")


@dataclass(frozen=True)
class Activations:
    """How inputs are to be quantized, to so many `bits`: one scale `per` "token" (a row of the last dimension), or per
    "tensor", found by calibration from the `range` of its values, from the least value on if with a `zero` point.
    sums: in what residual sums read what convolutions read, too.
    """

    per: str = "tensor"
    zero: bool = False
    range: str = "minmax"
    bits: int = 8
    sums: str = "int8"

    @property
    def is_static(self) -> bool:
        return self.per == "tensor"


def activations_of(notation: str) -> Activations:
    """What a notation says: `int8(per="token")`, `int8`, `int8(zero=true,range="mse")`. Raises EncodingError for any
    other.
    """
    bits, options = _bits_and_options(notation)
    known = {"per": ("token", "tensor"), "zero": (True, False), "range": RANGES, "sums": SUMS}
    fits = bits and all(value in known.get(name, ()) for name, value in options.items())
    if not fits or (options.get("per") == "token" and len(options) > 1):
        raise EncodingError(
            f'activations: expected int8(per="token"), or int8 with zero=true or false, range= one of '
            f"{', '.join(RANGES)} and sums= one of {', '.join(SUMS)}, or int7 likewise, got {notation}"
        )
    return Activations(**options, bits=bits)


@dataclass(frozen=True)
class Codes:
    """What a layer's input becomes: one scale `per` "token" or, kept in the layer, "tensor"; `unsigned` numbers of so
    many `bits` or signed ones, `zero` being that of 0.

        >>> str(Codes("tensor", True, 3)), codes_of('int8(per="token")')
        ('int8(per="tensor",unsigned=true,zero=3)', Codes(per='token', unsigned=False, zero=0, bits=8))
    """

    per: str
    unsigned: bool = False
    zero: int = 0
    bits: int = 8

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.unsigned else torch.int8

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the largest."""
        return (0, _LARGEST_UNSIGNED[self.bits]) if self.unsigned else (-self.largest, self.largest)

    @property
    def largest(self) -> int:
        """Of signed ones, which lie evenly around 0."""
        return (1 << self.bits - 1) - 1

    def __str__(self) -> str:
        more = [("unsigned", True), ("zero", self.zero)] if self.unsigned else []
        return str(Scheme(f"int{self.bits}", options=(("per", self.per), *((n, v) for n, v in more if v))))


def codes_of(notation: str) -> Codes:
    """What `str` of some codes stands for. Raises EncodingError for any other notation."""
    bits, options = _bits_and_options(notation)
    per, unsigned, zero = options.get("per"), options.get("unsigned", False), options.get("zero", 0)
    if bits and per in ("token", "tensor") and type(unsigned) is bool and type(zero) is int:
        made = Codes(str(per), unsigned, zero, bits)
        largest = ((1 << bits) - 1) * unsigned  # 255 once was one of the codes
        if str(made) == notation and 0 <= zero <= largest:
            return made
    raise EncodingError(f"activations: expected how a layer's input is quantized, got {notation}")


def _bits_and_options(notation: str) -> tuple[int, dict[str, Any]]:
    """The bits and options of an `int8` or `int7` that stands alone; no bits of anything else."""
    chains = encoding_of(notation).terms
    scheme = chains[0][0] if len(chains) == 1 and len(chains[0]) == 1 else Scheme("")
    bits = 0 if scheme.args else BITS.get(scheme.name, 0)
    return bits, dict(scheme.options) if bits else {}


def by_token(x: Tensor, codes: Codes = Codes("token")) -> tuple[Tensor, Tensor]:
    """The bytes of each row, and their scale in f32: one for each row, in a last dimension of 1.

    A row with NaN or an infinity has a scale that is none, too.

        >>> whole, scale = by_token(torch.tensor([[1.0, -2.0, 0.5]]))
        >>> whole.tolist(), round(scale.item() * 127, 4)
        ([[64, -127, 32]], 2.0)
    """
    wide = x.float()
    largest = wide.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_ROW)
    whole = torch.round(wide * (codes.largest / largest))
    whole = whole.clamp(-codes.largest, codes.largest)  # says to a compiler what is so
    return whole.to(torch.int8), largest / codes.largest


def by_step(x: Tensor, step: Tensor, codes: Codes) -> Tensor:
    """The bytes of x: values beyond the least and the largest byte become those.

    >>> by_step(torch.tensor([-1.0, 0.0, 0.6, 300.0]), torch.tensor(0.5), Codes("tensor", True, 1)).tolist()
    [0, 1, 2, 254]
    """
    rounded = torch.round(x.float() * step.reciprocal())
    moved = rounded + codes.zero if codes.zero else rounded
    return moved.clamp(*codes.bounds).to(codes.dtype)
