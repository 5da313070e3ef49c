"""Whatever happens to a component, decoding gives an array of the weight's shape or a typed error, no read outside."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from effcc.errors import EncodingError
from effcc.ir.encodings import storage
from effcc.ir.encodings.registry import DECLARATIONS
from effcc.ir.parser import encoding_of

SHAPE = (16, 48)
LEVELS = tuple(sample for d in DECLARATIONS.values() if d.kind == "level" for sample in d.samples)
VALUES = tuple(sample for d in DECLARATIONS.values() if d.kind == "values" for sample in d.samples)
SUMS = ("outliers(4) + int8", "low_rank(4) + int4", "monarch(4)", "csr + low_rank(4)", "block(4,1) + int4")
ENCODINGS = (*VALUES, *LEVELS, *(f"{level} . int8" for level in LEVELS), *SUMS)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_damaged_components_are_decoded_or_refused(encoding: str) -> None:
    stored = storage(encoding_of(encoding), SHAPE, count=8)
    arrays = stored.encode(np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32))
    drawn = random.Random(encoding)
    for _ in range(24):
        given, place = list(arrays), drawn.randrange(len(arrays))
        given[place] = drawn.choice((other_numbers, other_numbers, other_numbers, other_array))(given[place], drawn)
        for asked in (stored.decode, stored.error_bound):
            try:
                with np.errstate(all="ignore"):
                    result = asked(given)
            except EncodingError:
                continue
            assert result.ndim <= 2 and (asked == stored.error_bound or result.shape == SHAPE)


def other_numbers(array: Any, drawn: random.Random) -> Any:
    """Its dtype's extremes, special floats, any bytes, or its own elements the other way round: at one place or all."""
    kind = array.dtype
    if kind.kind in "iu":
        info = np.iinfo(kind)
        numbers = [info.min, info.max, 0, 1, info.max // 2, min(info.max, array.size)]
    else:
        numbers = [np.nan, np.inf, -np.inf, -1e38, 0.0]
    harmed = array.copy()
    flat = harmed.reshape(-1)
    how = drawn.randrange(4)
    with np.errstate(all="ignore"):
        if how == 0:
            flat[:] = drawn.choice(numbers)
        elif how == 1:
            flat[drawn.randrange(flat.size)] = drawn.choice(numbers)
        elif how == 2:
            flat[:] = flat[::-1].copy()
        else:
            flat[:] = np.frombuffer(drawn.randbytes(flat.nbytes), kind)
    return harmed


def other_array(array: Any, drawn: random.Random) -> Any:
    """One element less, one axis more, or another dtype."""
    return drawn.choice(
        (lambda a: a[:-1] if a.ndim else a[None], lambda a: a[..., None], lambda a: a.astype(np.int64))
    )(array)
