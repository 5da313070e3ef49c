"""`int2` to `int8`: integers times a scale, symmetric or from a zero point or a minimum on.

    int8(per="channel")                                          v = q * s, -127 <= q <= 127, s = max|w| / 127
    int8(reduce_range=true)                                      v = q * s, -63 <= q <= 63: 7 bits in bytes
    int8(accumulator=16)                                         likewise, and sums of 8 products fit in 16 bits
    int4(group=32)                                               v = q * s, -8 <= q <= 7
    int4(group=32, zero=true, scale="f16")                       v = (q - z) * s, 0 <= q, z <= 15
    int4(group=32, minimum=true, scale="f16")                    v = q * s + m (GGUF's Q4_1)
    int4(group=32, minimum=true, scale="u6", super=256)          s and m of 6 bits times super-scales (Q4_K)

Rounding to nearest is at most half a scale off; a zero point, an integer too, may cost another half.
signed: codes of a minimum or zero point are -2^(b-1) and above. reduce_range: two products of such a byte with any
unsigned one fit in 16 bits, so that machines without sums of four (AVX2's vpmaddubsw) add them up exactly.
accumulator=16: of eight of them, too (`effcc.ir.light`), which such machines then add up before they widen a sum; where
a channel's weights are too heavy for that its scale is larger.
"""

from __future__ import annotations

from typing import Any

from effcc.ir.encodings.registry import Declaration, Option, declare
from effcc.ir.encodings.values.coded import Coded
from effcc.ir.encodings.values.codes import Integers
from effcc.ir.encodings.values.light import Light
from effcc.ir.encodings.values.options import (
    EXPONENT,
    FLOATS,
    SCALES,
    SHARING,
    SWITCH,
    grid_of,
    settle_sharing,
    stored_of,
)
from effcc.ir.light import LARGEST

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
    small = next((name for name in ("accumulator", "reduce_range") if given.get(name)), None)
    if small and (given["zero"] or given["minimum"]):
        return f"{small} is for integers around 0: leave zero and minimum out"
    if small and given["group"] is not None:
        return f"{small} is for sums along a whole channel, and those of a group gain nothing by it: leave one out"
    if given.get("accumulator") and given["scale"] not in (None, *FLOATS):
        return 'accumulator=16 raises scales, which are floats: say scale="f16", or nothing'
    if given.get("accumulator") and given["reduce_range"]:
        return "accumulator=16 has a reduced range already: leave reduce_range out"
    if given["minimum"] and given["scale"] == EXPONENT:
        return 'scale="e8" stores powers of two, and a minimum is none: say scale="f16", or zero=true'
    return settle_sharing()(given)


def _declare(bits: int) -> None:
    def make(
        zero: bool, minimum: bool, reduce_range: bool = False, accumulator: int | None = None, **given: Any
    ) -> Coded:
        scale = stored_of(given)
        if accumulator is not None:
            return Light(Integers(bits, -LARGEST, LARGEST), grid_of(given), scale)
        code = Integers.unsigned(bits) if zero or minimum else Integers.symmetric(bits)
        if reduce_range:
            code = Integers(bits, -LARGEST, LARGEST)
        return Coded(code, grid_of(given), scale, zero, scale if minimum else None)

    name = f"int{bits}"
    samples = SAMPLES[: 6 if bits == 4 else 2]
    reducing = (Option("reduce_range", False, SWITCH), Option("accumulator", None, (16,))) if bits == 8 else ()
    if reducing:
        samples = (*samples, "(reduce_range=true)", "(accumulator=16)")
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
