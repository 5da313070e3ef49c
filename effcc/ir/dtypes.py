"""Element types: one frozen value per dtype, with its NumPy counterpart and the facts that promotion needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from effcc.errors import UnknownNameError


@dataclass(frozen=True, eq=False)
class DType:
    """An element type; there is one object for each.

    `kind` is 'float', 'int', 'uint' or 'bool'; `bits` its storage size (bool takes a byte).

    `kind` is 'carried' for one that no kernel computes on: programs pass such tensors from one call of PyTorch's to the
    next.
    """

    name: str
    kind: str
    bits: int
    numpy: Any

    @property
    def long_name(self) -> str:
        """What NumPy and PyTorch call it: `float32`.

        >>> [d.long_name for d in (f32, bf16, boolean)]
        ['float32', 'bfloat16', 'bool']
        """
        return str(self.numpy.name)

    @property
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_carried(self) -> bool:
        return self.kind == "carried"

    @property
    def accumulator(self) -> DType:
        """What a sum over this type accumulates in: f32 for half types, i64 for integers, itself otherwise."""
        if self in (f16, bf16):
            return f32
        return self if self.is_float else i64

    @property
    def products(self) -> DType:
        """What a sum of products over this type accumulates in: as `accumulator`, but i32 for integers of up to 32
        bits, whose sums, cut to as many bits, are the same.
        """
        return i32 if self.is_integer and self.bits <= 32 else self.accumulator

    def __reduce__(self) -> tuple[Any, ...]:
        return dtype, (self.name,)

    def __repr__(self) -> str:
        return self.name


f64 = DType("f64", "float", 64, np.dtype(np.float64))
f32 = DType("f32", "float", 32, np.dtype(np.float32))
f16 = DType("f16", "float", 16, np.dtype(np.float16))
bf16 = DType("bf16", "float", 16, np.dtype(ml_dtypes.bfloat16))
i64 = DType("i64", "int", 64, np.dtype(np.int64))
i32 = DType("i32", "int", 32, np.dtype(np.int32))
i16 = DType("i16", "int", 16, np.dtype(np.int16))
i8 = DType("i8", "int", 8, np.dtype(np.int8))
u8 = DType("u8", "uint", 8, np.dtype(np.uint8))
u7 = DType("u7", "uint", 8, np.dtype(np.uint8))
"""A byte whose value is known to be at most 127; no tensor of a user's has it, and nothing checks what is stored."""
i7 = DType("i7", "int", 8, np.dtype(np.int8))
"""A byte whose value is known to be from -64 to 63, likewise."""
b8 = DType("b8", "int", 8, np.dtype(np.int8))
"""A byte whose value is known to be from -127 to 127 (balanced), likewise: its negative is a byte, too."""
l8 = DType("l8", "int", 8, np.dtype(np.int8))
"""A byte of a light weight, likewise: from -64 to 63, and of eight that are summed together (`effcc.ir.light`) those of
either sign add up to at most 128 in magnitude."""
BOUNDED = frozenset((u7, i7, b8, l8))
boolean = DType("bool", "bool", 8, np.dtype(np.bool_))

DTYPES: dict[str, DType] = {d.name: d for d in (f64, f32, f16, bf16, i64, i32, i16, i8, u8, u7, i7, b8, l8, boolean)}

CARRIED: dict[str, DType] = {
    d.name: d
    for d in (
        DType("c64", "carried", 64, np.dtype(np.complex64)),
        DType("c128", "carried", 128, np.dtype(np.complex128)),
        DType("u16", "carried", 16, np.dtype(np.uint16)),
        DType("u32", "carried", 32, np.dtype(np.uint32)),
        DType("u64", "carried", 64, np.dtype(np.uint64)),
        DType("f8e4m3", "carried", 8, np.dtype(ml_dtypes.float8_e4m3fn)),
        DType("f8e5m2", "carried", 8, np.dtype(ml_dtypes.float8_e5m2)),
    )
}

NAMED: dict[str, DType] = {**DTYPES, **CARRIED}
"""Every dtype that a type may have, by its name in the IR's text: those that kernels compute on, and the others."""


def dtype(name: str) -> DType:
    """The dtype called `name`; raises UnknownNameError with near misses."""
    try:
        return NAMED[name]
    except KeyError:
        raise UnknownNameError("dtype", name, NAMED) from None


def from_numpy(np_dtype: Any) -> DType:
    """The dtype whose NumPy counterpart is `np_dtype`."""
    wanted = np.dtype(np_dtype)
    for candidate in DTYPES.values():
        if candidate.numpy == wanted:
            return candidate
    raise UnknownNameError("NumPy dtype", str(wanted), (str(d.numpy) for d in DTYPES.values()))
