"""Sums and products of encodings: what they store, how near they come, and how their notation is refused."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.errors import EncodingError
from effcc.ir.dtypes import bf16, f32
from effcc.ir.encodings import canonical, storage, stored_as
from effcc.ir.parser import encoding_of
from tests.ir.test_encodings import weight

SUMS = (
    "outliers(2) + int8",
    "low_rank(3)",
    "low_rank(2) . int8",
    "low_rank(2) + int3",
    "csr(share=0.1) + low_rank(2)",
    "nm(2,4) . int8 + int4(group=4)",
    "monarch(2)",
    "monarch(4) + int4",
)
SHAPE = (8, 24)


@pytest.mark.parametrize("encoding", SUMS)
@pytest.mark.parametrize("dtype", [f32, bf16], ids=str)
def test_components_are_as_promised_and_decode_within_bounds(encoding: str, dtype: object) -> None:
    dense = weight(1, SHAPE).astype(dtype.numpy)  # type: ignore[attr-defined]
    stored = storage(encoding_of(encoding), SHAPE, dtype)  # type: ignore[arg-type]
    arrays = stored.encode(dense)
    assert [(c.type.dtype.numpy, c.type.shape) for c in stored.components] == [(a.dtype, a.shape) for a in arrays]
    assert stored.bytes == sum(a.nbytes for a in arrays)
    assert len({c.name for c in stored.components}) == len(arrays)
    assert stored_as(stored.encoding, SHAPE, stored.dtype, [a.shape for a in arrays]) == stored
    assert canonical(encoding_of(str(stored.encoding))) == stored.encoding
    assert stored.decode(arrays).dtype == dense.dtype
    assert stored.holds(arrays, dense)


def test_low_rank_is_the_nearest_of_its_rank() -> None:
    dense = weight(2, SHAPE)
    stored = storage(encoding_of("low_rank(3)"), SHAPE)
    error = np.linalg.norm(stored.decode(stored.encode(dense)) - dense)
    assert error == pytest.approx(np.sqrt((np.linalg.svd(dense)[1][3:] ** 2).sum()), rel=1e-5)


def test_monarch_keeps_a_matrix_that_is_one() -> None:
    random = np.random.default_rng(3)
    left, right = random.standard_normal((4, 2, 4)), random.standard_normal((4, 4, 6))
    dense = np.einsum("jsi,ijt->sjit", left, right).reshape(8, 24).astype(np.float32)
    stored = storage(encoding_of("monarch(4)"), SHAPE)
    np.testing.assert_allclose(stored.decode(stored.encode(dense)), dense, atol=1e-5)
    # x times two block-diagonal matrices, with the grid of their results turned between them
    x = random.standard_normal((5, 24))
    between = np.einsum("mit,ijt->mij", x.reshape(5, 4, 6), right)
    np.testing.assert_allclose(np.einsum("mij,jsi->msj", between, left).reshape(5, 8), x @ dense.T, atol=1e-4)


def test_outliers_leave_small_columns_to_the_other_term() -> None:
    dense = weight(4, SHAPE)
    dense[:, [3, 17]] *= 100
    alone, both = (storage(encoding_of(e), SHAPE) for e in ("int8", "outliers(2) + int8"))
    errors = [np.abs(s.decode(s.encode(dense)) - dense).max() for s in (alone, both)]
    assert errors[1] < errors[0] / 20
    assert both.encode(dense)[0].tolist() == [[3, 17]]


@pytest.mark.parametrize(
    ("encoding", "shape", "message"),
    [
        ("low_rank(9)", SHAPE, "a rank of at most 8"),
        ("low_rank(2)", (2, 3, 4), "stores matrices"),
        ("monarch(5)", SHAPE, r"rows and columns in multiples of 5.*monarch\(\d\) fits"),
        ("int8 . low_rank(2)", SHAPE, "stands first"),
        ("low_rank(2) . csr", SHAPE, "only values"),
        ("low_rank(0) + int8", SHAPE, "a positive integer"),
        ("csr(share=1.5) + int8", SHAPE, "0 < share <= 1"),
    ],
)
def test_what_does_not_fit_is_refused(encoding: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        storage(encoding_of(encoding), shape)
