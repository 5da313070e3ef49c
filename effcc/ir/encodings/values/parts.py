"""What others stored of a weight, in plain arrays: one integer to an element, as `Values.assembled` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effcc.errors import EncodingError
from effcc.ir.encodings.packing import Packed

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


def pack_integers(packed: Packed, codes: Array, offset: int = 0) -> list[Array]:
    """Integers in an encoding's packing; `offset` is what is added to store them.

    Raises EncodingError where one does not fit.
    """
    low, high = (-128, 127) if packed.signed else (-offset, (1 << packed.bits) - 1 - offset)
    least, most = int(codes.min()), int(codes.max())
    if least < low or most > high:
        raise EncodingError(f"codes are {low} to {high}; the weight holds {least} to {most}")
    return packed.pack(codes + codes.dtype.type(offset) if offset else codes)
