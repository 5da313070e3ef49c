"""The block formats of GGUF files, taken apart: which integers, scales and minimums a row of blocks holds.

    v[n,k] = number(code[n,k]) * scale[n,k/g] + minimum[n,k/g]

In each type the codes of a block are interleaved in an order of its own, chosen for one machine's shuffles; here they
are put in the order of the weight's columns, and nothing is computed with them. A scale is a half-precision number, or
one that a superblock of 256 columns shares, times a small integer of the group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.checkpoints.gguf_file import GgufTensor
from effcc.checkpoints.weights import Factors, Parts
from effcc.errors import CheckpointError
from effcc.ir.encodings.values.schemes.tables import IQ4

Array = Any


@dataclass(frozen=True)
class Format:
    """How effcc writes a type of blocks, and what takes rows of blocks apart."""

    encoding: str
    parts: Callable[[Array], Parts]


def unpack(tensor: GgufTensor) -> tuple[str, Parts]:
    """The encoding of a tensor, and its integers and factors, leading axes as rows.

    Raises CheckpointError for types that are not blocks of integers with scales, or that effcc does not know.
    """
    if tensor.type not in FORMATS:
        raise CheckpointError(
            f"tensor {tensor.name} is stored as {tensor.type}; known are F32, F16, BF16, {', '.join(FORMATS)}"
        )
    rows = tensor.blocks.reshape(-1, tensor.blocks.shape[-1])
    found = FORMATS[tensor.type]
    return found.encoding, found.parts(rows)


def _fields(rows: Array, *sizes: int) -> list[Array]:
    """The fields of each block, one after the other: [N, blocks, bytes]."""
    blocks = rows.reshape(rows.shape[0], -1, sum(sizes))
    return [np.ascontiguousarray(f) for f in np.split(blocks, np.cumsum(sizes)[:-1], axis=2)]


def _half(field: Array) -> Array:
    """Half-precision numbers [N, blocks]."""
    return field.view(np.float16)[..., 0]


def _spread(field: Array, bits: int, width: int) -> Array:
    """Integers of a few bits, of which byte i of each `width` holds those at i, i + width, i + 2 width, ..."""
    n, blocks, size = field.shape
    shifts = np.arange(0, 8, bits, dtype=np.uint8).reshape(1, 1, 1, -1, 1)
    apart = field.reshape(n, blocks, size // width, 1, width) >> shifts
    return (apart & np.uint8((1 << bits) - 1)).reshape(n, blocks, -1)


def _columns(codes: Array, offset: int = 0) -> Array:
    """Codes of all blocks of a row side by side, as signed bytes; `offset` is the code of zero."""
    return codes.reshape(codes.shape[0], -1).astype(np.int8) - np.int8(offset)


def _q4_0(rows: Array) -> Parts:
    d, q = _fields(rows, 2, 16)
    return Parts(_columns(_spread(q, 4, 16), 8), Factors(_half(d)))


def _q4_1(rows: Array) -> Parts:
    d, m, q = _fields(rows, 2, 2, 16)
    return Parts(_columns(_spread(q, 4, 16)), Factors(_half(d)), minimum=Factors(_half(m)))


def _fifth_bit(high: Array, codes: Array) -> Array:
    """Codes with their fifth bits, which lie in order, a bit a column."""
    return codes | np.unpackbits(high, axis=2, bitorder="little") << np.uint8(4)


def _q5_0(rows: Array) -> Parts:
    d, high, q = _fields(rows, 2, 4, 16)
    return Parts(_columns(_fifth_bit(high, _spread(q, 4, 16)), 16), Factors(_half(d)))


def _q5_1(rows: Array) -> Parts:
    d, m, high, q = _fields(rows, 2, 2, 4, 16)
    codes = _columns(_fifth_bit(high, _spread(q, 4, 16)))
    return Parts(codes, Factors(_half(d)), minimum=Factors(_half(m)))


def _q8_0(rows: Array) -> Parts:
    d, q = _fields(rows, 2, 32)
    return Parts(q.view(np.int8).reshape(rows.shape[0], -1), Factors(_half(d)))


def _six_bits(field: Array) -> tuple[Array, Array]:
    """Eight scales and eight minimums of 6 bits, packed in 12 bytes: [N, blocks, 8] each."""
    d, m, rest = np.split(field, 3, axis=2)
    scale = np.concatenate([d & 0x3F, (rest & 0x0F) | (d >> 2) & 0x30], axis=2)
    minimum = np.concatenate([m & 0x3F, (rest >> 4) | (m >> 2) & 0x30], axis=2)
    return scale, minimum


def _with_minimums(d: Array, m: Array, packed: Array, codes: Array) -> Parts:
    """A superblock of eight groups; what it subtracts is added, with the sign at the shared factor."""
    scale, minimum = (f.reshape(f.shape[0], -1) for f in _six_bits(packed))
    return Parts(_columns(codes), Factors(_half(d), scale), minimum=Factors(-_half(m), minimum))


def _q4_k(rows: Array) -> Parts:
    d, m, packed, q = _fields(rows, 2, 2, 12, 128)
    return _with_minimums(d, m, packed, _spread(q, 4, 32))


def _q5_k(rows: Array) -> Parts:
    d, m, packed, high, q = _fields(rows, 2, 2, 12, 32, 128)
    codes = _spread(q, 4, 32) | _spread(high, 1, 32) << np.uint8(4)
    return _with_minimums(d, m, packed, codes)


def _q6_k(rows: Array) -> Parts:
    low, high, scale, d = _fields(rows, 128, 64, 16, 2)
    codes = _spread(low, 4, 64) | _spread(high, 2, 32) << np.uint8(4)
    inner = scale.view(np.int8).reshape(rows.shape[0], -1)
    return Parts(_columns(codes, 32), Factors(_half(d), inner))


def _iq4_table() -> Array:
    return np.array(IQ4, np.float32)


def _iq4_nl(rows: Array) -> Parts:
    d, q = _fields(rows, 2, 16)
    return Parts(_columns(_spread(q, 4, 16)), Factors(_half(d)), table=_iq4_table())


def _iq4_xs(rows: Array) -> Parts:
    d, high, low, q = _fields(rows, 2, 2, 4, 128)
    pairs = high.view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    inner = _columns(_spread(low, 4, 1) | pairs.astype(np.uint8) << np.uint8(4), 32)
    return Parts(_columns(_spread(q, 4, 16)), Factors(_half(d), inner), table=_iq4_table())


FORMATS: dict[str, Format] = {
    "Q4_0": Format('int4(group=32,scale="f16")', _q4_0),
    "Q4_1": Format('int4(group=32,minimum=true,scale="f16")', _q4_1),
    "Q5_0": Format('int5(group=32,scale="f16")', _q5_0),
    "Q5_1": Format('int5(group=32,minimum=true,scale="f16")', _q5_1),
    "Q8_0": Format('int8(group=32,scale="f16")', _q8_0),
    "Q4_K": Format('int4(group=32,minimum=true,scale="u6",super=256)', _q4_k),
    "Q5_K": Format('int5(group=32,minimum=true,scale="u6",super=256)', _q5_k),
    "Q6_K": Format('int6(group=16,scale="i8",super=256)', _q6_k),
    "IQ4_NL": Format('iq4(group=32,scale="f16")', _iq4_nl),
    "IQ4_XS": Format('iq4(group=32,scale="i6",super=256)', _iq4_xs),
}
"""The types of blocks by their names."""
