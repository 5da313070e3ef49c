"""Views of memory in another shape: what NumPy reads through the strides is what reshaping gives."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.ir.dims import symbol
from effcc.ir.dtypes import f32
from effcc.ir.types import TensorType
from effcc.ir.views import holder, runs, viewed

N = symbol("s0")


@pytest.mark.parametrize(
    ("shape", "strides", "other", "fits"),
    [
        ((2, 6, 4), (24, 1, 6), (2, 2, 3, 4), True),
        ((2, 6, 4), (24, 1, 6), (2, 24), False),
        ((2, 6, 4), (24, 4, 1), (48,), True),
        ((4, 1, 6), (6, 1, 1), (2, 2, 6, 1), True),
        ((4, 6), (8, 1), (4, 3, 2), True),
        ((4, 6), (8, 1), (24,), False),
        ((1, 1), (7, 3), (1,), True),
    ],
)
def test_strides_of_a_view(
    shape: tuple[int, ...], strides: tuple[int, ...], other: tuple[int, ...], fits: bool
) -> None:
    memory = np.arange(64, dtype=np.float32)

    def seen(type: TensorType) -> np.ndarray:
        return np.lib.stride_tricks.as_strided(memory, type.shape, [4 * int(s) for s in type.layout])

    whole = TensorType(f32, shape, strides)
    found = viewed(whole, other)
    assert (found is not None) == fits
    if found is not None:
        np.testing.assert_array_equal(seen(found), seen(whole).reshape(other))


def test_sizes_known_at_run_time_come_apart_where_they_stand_alone() -> None:
    assert runs((N, 6), (N, 2, 3)) == [(range(1), range(1)), (range(1, 2), range(1, 3))]
    assert runs((N, 6), (6, N)) is None
    assert runs((0, 6), (2, 3)) is None


def test_the_last_part_of_a_dimension_moves_as_it_does() -> None:
    assert [holder((2, 64, 9), (2, 8, 8, 9), d) for d in range(4)] == [0, None, 1, 2]
    assert [holder((2, 3, 4), (2, 12), d) for d in range(2)] == [0, 2]
