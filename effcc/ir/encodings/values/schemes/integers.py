"""`int2` to `int8`: integers times a scale, symmetric or from a zero point or a minimum on.

    int8(per="channel")                                          v = q * s, -127 <= q <= 127, s = max|w| / 127
    int8(reduce_range=true)                                      v = q * s, -63 <= q <= 63: 7 bits in bytes
    int4(group=32)                                               v = q * s, -8 <= q <= 7
    int4(group=32, zero=true, scale="f16")                       v = (q - z) * s, 0 <= q, z <= 15
    int4(group=32, minimum=true, scale="f16")                    v = q * s + m (GGUF's Q4_1)
    int4(group=32, minimum=true, scale="u6", super=256)          s and m of 6 bits times super-scales (Q4_K)

Rounding to nearest is at most half a scale off; a zero point, an integer too, may cost another half.
signed: codes of a minimum or zero point are -2^(b-1) and above. reduce_range: two products of such a byte with any
unsigned one fit in 16 bits, so that machines without sums of four (AVX2's vpmaddubsw) add them up exactly.
"""

from __future__ import annotations

from typing import Any

from effcc.ir.encodings.registry import Declaration, Option, declare
from effcc.ir.encodings.values.coded import Coded
from effcc.ir.encodings.values.codes import Integers
from effcc.ir.encodings.values.options import EXPONENT, SCALES, SHARING, SWITCH, grid_of, settle_sharing, stored_of

REDUCED = 63
"""The largest byte of a reduced range."""

SAMPLES = (
    "",
    '(group=16,zero=true,scale="bf16")',
    '(per="tensor")',
    "(group=8)",
    '(group=32,minimum=true,scale="f16")',
    '(group=8,minimum=true,scale="u6",super=16)',
)


def _settle(given: dict[str, Any]) -> str | None:
    if given["zero"] and given["minimum"]:
        return "codes count from a zero point or from a minimum: say one of them"
    if given.get("reduce_range") and (given["zero"] or given["minimum"]):
        return "reduce_range is for integers around 0: leave zero and minimum out"
    if given.get("reduce_range") and given["group"] is not None:
        return "reduce_range is for sums along a whole channel, and those of a group gain nothing by it: leave one out"
    if given["minimum"] and given["scale"] == EXPONENT:
        return 'scale="e8" stores powers of two, and a minimum is none: say scale="f16", or zero=true'
    return settle_sharing()(given)


def _declare(bits: int) -> None:
    def make(zero: bool, minimum: bool, reduce_range: bool = False, **given: Any) -> Coded:
        scale = stored_of(given)
        code = Integers.unsigned(bits) if zero or minimum else Integers.symmetric(bits)
        if reduce_range:
            code = Integers(bits, -REDUCED, REDUCED)
        return Coded(code, grid_of(given), scale, zero, scale if minimum else None)

    name = f"int{bits}"
    samples = SAMPLES[: 6 if bits == 4 else 2]
    reducing = (Option("reduce_range", False, SWITCH),) if bits == 8 else ()
    if reducing:
        samples = (*samples, "(reduce_range=true)")
    declare(
        Declaration(
            name,
            "values",
            make,
            f"integers of {bits} bits times scales",
            tuple(name + s for s in samples),
            options=(*SHARING, Option("zero", False, SWITCH), Option("minimum", False, SWITCH), *reducing, *SCALES),
            settle=_settle,
        )
    )


for _bits in range(2, 9):
    _declare(_bits)
