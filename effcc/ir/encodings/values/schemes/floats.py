"""Small floats times a scale: `fp8`, `fp6`, `fp4`.

    fp8("e4m3")    to 448, NaN where all bits are set, no infinities      (arXiv:2209.05433)
    fp8("e5m2")    to 57344, with infinities and NaN, as IEEE's
    fp6("e3m2")    to 28; fp6("e2m3") to 7.5: codes of 4 + 2 bits         (ZeroQuant(4+2), arXiv:2312.08583)
    fp4            e2m1, to 6; with group=32, scale="e8" it is MXFP4      (OCP Microscaling Formats)

Rounding to nearest of the largest numbers is off by half their distance; encoding refuses infinities and NaN, codes of
them from elsewhere decode as such.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes

from effcc.ir.encodings.registry import Declaration, Option, declare
from effcc.ir.encodings.values.coded import Coded
from effcc.ir.encodings.values.listed import SmallFloats
from effcc.ir.encodings.values.options import SCALES, SHARING, grid_of, settle_sharing, stored_of

KINDS = {
    "fp8": {
        "e4m3": SmallFloats(4, 3, 7, ml_dtypes.float8_e4m3fn, "nan"),
        "e5m2": SmallFloats(5, 2, 15, ml_dtypes.float8_e5m2, "ieee"),
    },
    "fp6": {
        "e3m2": SmallFloats(3, 2, 3, ml_dtypes.float6_e3m2fn),
        "e2m3": SmallFloats(2, 3, 1, ml_dtypes.float6_e2m3fn),
    },
    "fp4": {"e2m1": SmallFloats(2, 1, 1, ml_dtypes.float4_e2m1fn)},
}


def _declare(name: str) -> None:
    kinds = KINDS[name]
    first, last = next(iter(kinds)), list(kinds)[-1]

    def make(format: str, **given: Any) -> Coded:
        return Coded(kinds[format], grid_of(given), stored_of(given))

    declare(
        Declaration(
            name,
            "values",
            make,
            f"floats of {name[2:]} bits: {', '.join(kinds)}",
            (f'{name}("{first}")', f'{name}("{last}",group=32,scale="e8")'),
            arguments=(Option("format", first, tuple(kinds)),),
            options=(*SHARING, *SCALES),
            settle=settle_sharing(),
        )
    )


for _name in KINDS:
    _declare(_name)
