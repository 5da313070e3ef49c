"""Rows are stored as the encodings say: the same arrays, bit for bit, and within their error bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from effcc.caches.rows import RowCodes, row_codes
from effcc.errors import EncodingError, IRSyntaxError, UnknownNameError
from effcc.frontend.decode import storage_of, to_numpy
from effcc.ir.encodings import Storage

SCHEMES = [
    "int8", 'int8(per="token")', "int4(group=16)", "int4", "int5", "int6(group=8)", "int3(group=32)", "int2(group=8)",
    "int7(zero=true)", "int4(group=16,zero=true)", "int8(zero=true,group=8)",
    'int4(group=16,minimum=true,scale="f16")', "int5(minimum=true)", 'int8(group=32,scale="f16")',
]  # fmt: skip


def reference(codes: RowCodes, rows: torch.Tensor) -> Storage:
    return storage_of(codes.encoding, rows.shape, codes.encode(rows), rows.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_rows_are_stored_as_a_matrix_of_them_is(scheme: str, dtype: torch.dtype) -> None:
    rows = torch.randn(48, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-9, 3, 48)[:, None]
    rows[3], rows[4, :16], rows[5], rows[6] = 0, 0, rows[5].abs(), -rows[6].abs()
    codes = row_codes(scheme, 64, dtype)
    got = codes.encode(rows.to(dtype))
    wanted = reference(codes, rows.to(dtype)).encode(to_numpy(rows.to(dtype)))
    for name, one, other in zip(codes.names, got, wanted, strict=True):
        assert to_numpy(one).dtype == other.dtype and np.array_equal(to_numpy(one), other), name
    assert codes.bytes == sum(a.nbytes for a in wanted) // 48


@given(
    arrays.arrays(np.float32, (3, 32), elements=st.floats(-(2.0**90), 2.0**90, width=32)),
    st.sampled_from([s for s in SCHEMES if "f16" not in s]),
)
def test_what_is_read_is_within_the_error_bound(rows: np.ndarray, scheme: str) -> None:
    codes = row_codes(scheme, 32)
    held = [to_numpy(a) for a in codes.encode(torch.from_numpy(rows))]
    assert reference(codes, torch.from_numpy(rows)).holds(held, rows)


def test_a_group_that_holds_no_numbers_is_read_as_nan_and_its_neighbours_as_they_are() -> None:
    rows = torch.ones(3, 32)
    rows[0, 3], rows[1, 20] = torch.nan, torch.inf
    for scheme in ("int8(group=16)", "int4(group=16)", "int3(group=16)"):
        codes = row_codes(scheme, 32)
        read = torch.from_numpy(reference(codes, rows).decode([to_numpy(a) for a in codes.encode(rows)]))
        assert read[0, :16].isnan().all() and read[1, 16:].isnan().all()
        assert torch.allclose(read[[0, 1], [31, 0]], torch.ones(2)) and torch.allclose(read[2], torch.ones(32))


@pytest.mark.parametrize(
    ("scheme", "error", "says"),
    [
        ('int8(per="tensor")', EncodingError, 'per="token"'),
        ('int8(per="channel")', EncodingError, "shared by rows"),
        ("int4(group=24)", EncodingError, "8, 16, 32, 64 would"),
        ("nf4(group=32)", EncodingError, "int2 to int8"),
        ('int4(group=32,scale="u6")', EncodingError, "floating scales"),
        ("block(4,1) . int8", EncodingError, "int2 to int8"),
        ("low_rank(2) + int4", EncodingError, "int2 to int8"),
        ("int9", UnknownNameError, "int8"),
        ("int4(group=", IRSyntaxError, "^"),
    ],
)
def test_what_cannot_be_written_row_by_row_is_refused(scheme: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        row_codes(scheme, 64)
    assert says in str(raised.value)
