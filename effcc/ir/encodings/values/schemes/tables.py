"""Tables of 16 numbers: `nf4`, `iq4`, and `codebook`, which learns its own.

    nf4(group=64)           v = table[q] * s, s = max|w|: quantiles of a normal distribution (QLoRA, arXiv:2305.14314)
    iq4(group=32)           denser around 0 than int4, in 1/127 (GGUF's IQ4_NL; with scale="i6" IQ4_XS)
    codebook(bits=4)        the table of smallest squared error for this weight (bits=2..8)

The table is a component, f32[2^bits], which gradients pass to.
"""

from __future__ import annotations

from typing import Any

from effcc.ir.encodings.registry import Declaration, Option, declare
from effcc.ir.encodings.values.coded import Coded
from effcc.ir.encodings.values.listed import Table
from effcc.ir.encodings.values.options import SCALES, SHARING, grid_of, settle_sharing, stored_of

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
IQ4 = (-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0)


def _nf4(**given: Any) -> Coded:
    return Coded(Table(4, NF4), grid_of(given), stored_of(given))


def _iq4(**given: Any) -> Coded:
    return Coded(Table(4, IQ4), grid_of(given), stored_of(given))


def _codebook(bits: int, **given: Any) -> Coded:
    return Coded(Table(bits, None), grid_of(given), stored_of(given))


_SHARED = (*SHARING, *SCALES)
declare(
    Declaration(
        "nf4",
        "values",
        _nf4,
        "4 bits: quantiles of a normal distribution",
        ("nf4", 'nf4(group=16,scale="f16")'),
        options=_SHARED,
        settle=settle_sharing(64),
    )
)
declare(
    Declaration(
        "iq4",
        "values",
        _iq4,
        "4 bits: GGUF's non-linear table",
        ("iq4", 'iq4(group=8,scale="i6",super=16)'),
        options=_SHARED,
        settle=settle_sharing(32),
    )
)
declare(
    Declaration(
        "codebook",
        "values",
        _codebook,
        "a learned table of 2^bits numbers",
        ("codebook(group=64)", 'codebook(bits=3,group=32,scale="f16")'),
        options=(Option("bits", 4, tuple(range(2, 9))), *_SHARED),
        settle=settle_sharing(64),
    )
)
