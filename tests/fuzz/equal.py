"""Equal values: NumPy's own comparison takes NaN for equal to NaN in its own dtypes only, not in bfloat16."""

from __future__ import annotations

import numpy as np


def assert_equal_values(got: np.ndarray, wanted: np.ndarray) -> None:
    """Equal dtypes, shapes and values, NaN where NaN is wanted; a widened bfloat16 keeps every value."""
    assert got.dtype == wanted.dtype, f"{got.dtype} instead of {wanted.dtype}"
    if got.dtype.kind == "V":
        got, wanted = got.astype(np.float32), wanted.astype(np.float32)
    np.testing.assert_array_equal(got, wanted)
