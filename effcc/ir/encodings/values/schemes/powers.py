"""Schemes whose products are shifts or exact: `pow2`, `fixed`, `bfp`.

pow2(bits=4)                    v = +-2^(p-1) * s, or 0                                (DenseShift, arXiv:2208.09708)
fixed(bits=8)                   v = q * 2^e, of two binary points the one of smaller squared error
bfp(mantissa=4,group=16)        v = q * 2^e: block floating point, a shared exponent e of 8 bits (Flexpoint,
                                arXiv:1711.02213); `reorder . bfp` lets channels of outliers share blocks
"""

from __future__ import annotations

from typing import Any

from effcc.ir.encodings.registry import Declaration, Option, declare
from effcc.ir.encodings.values.coded import Coded
from effcc.ir.encodings.values.codes import Integers
from effcc.ir.encodings.values.listed import Powers
from effcc.ir.encodings.values.options import SCALES, SHARING, grid_of, settle_sharing, stored_of
from effcc.ir.encodings.values.parameters import Exponents


def _pow2(bits: int, **given: Any) -> Coded:
    return Coded(Powers(bits), grid_of(given), stored_of(given))


def _fixed(bits: int, **given: Any) -> Coded:
    return Coded(Integers.balanced(bits), grid_of(given), Exponents(halved=True), searched=True)


def _bfp(mantissa: int, **given: Any) -> Coded:
    return Coded(Integers.balanced(mantissa), grid_of(given), Exponents())


declare(
    Declaration(
        "pow2",
        "values",
        _pow2,
        "0 and powers of two",
        ("pow2", 'pow2(bits=3,group=16,scale="f16")'),
        options=(Option("bits", 4, (3, 4, 5)), *SHARING, *SCALES),
        settle=settle_sharing(),
    )
)
declare(
    Declaration(
        "fixed",
        "values",
        _fixed,
        "fixed point, the binary point learned",
        ("fixed", 'fixed(bits=5,per="tensor")'),
        options=(Option("bits", 8, tuple(range(2, 9))), *SHARING),
        settle=settle_sharing(),
    )
)
declare(
    Declaration(
        "bfp",
        "values",
        _bfp,
        "block floating point: integers with a shared exponent",
        ("bfp", "bfp(mantissa=6,group=8)"),
        options=(Option("mantissa", 4, tuple(range(2, 9))), *SHARING),
        settle=settle_sharing(16),
    )
)
