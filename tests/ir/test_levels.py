"""Levels: what they keep, that expression and reference agree on it, and what damaged coordinates do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType, bf16, f32
from effcc.ir.encodings import Storage, storage, stored_as
from effcc.ir.encodings.registry import DECLARATIONS, declared
from effcc.ir.interpreter import run_kernel
from effcc.ir.parser import encoding_of
from effcc.ir.verifier import verify_kernel
from tests.ir.test_encodings import decode_kernel, weight

LEVELS = tuple(sample for d in DECLARATIONS.values() if d.kind == "level" for sample in d.samples)
VALUES = ("", " . int8", ' . int8(per="tensor")', " . int4", ' . int4(per="tensor",zero=true)')
SHAPE = (8, 24)


def made(encoding: str, density: float = 0.3, shape: tuple[int, ...] = SHAPE, dtype: DType = f32) -> Storage:
    """A storage that keeps the given share of elements, where the notation leaves it open."""
    level = encoding_of(encoding).terms[0][0]
    kept, arguments = declared(level.name).kept, declared(level.name).given(level)
    return storage(encoding_of(encoding), shape, dtype, 0 if kept is None else kept(shape, density, **arguments))


@pytest.mark.parametrize("level", LEVELS)
@given(st.integers(0, 2**32), st.sampled_from((0.01, 0.3, 1.0)))
@settings(max_examples=8, deadline=None)
def test_what_is_kept_is_kept_exactly_and_the_rest_is_zero(level: str, seed: int, density: float) -> None:
    dense = weight(seed, SHAPE)
    stored = made(level, density)
    decoded = stored.decode(stored.encode(dense))
    kept = decoded != 0
    assert kept.sum() == np.prod(stored.levels.stored)
    np.testing.assert_array_equal(decoded[kept], dense[kept])


@given(st.integers(0, 2**32), st.integers(1, 192))
@settings(max_examples=30, deadline=None)
def test_csr_keeps_the_largest_elements_wherever_they_are(seed: int, count: int) -> None:
    dense = weight(seed, SHAPE)
    stored = storage(encoding_of("csr"), SHAPE, f32, count)
    kept = stored.decode(stored.encode(dense)) != 0
    assert kept.sum() == count
    assert np.abs(dense)[kept].min() >= np.abs(dense)[~kept].max(initial=0)


@given(st.integers(0, 2**32), st.sampled_from([(2, 4), (1, 4), (2, 8), (2, 6), (3, 3)]))
@settings(max_examples=30, deadline=None)
def test_nm_keeps_the_largest_of_every_m_neighbours(seed: int, pattern: tuple[int, int]) -> None:
    n, m = pattern
    dense = weight(seed, SHAPE)
    stored = made(f"nm({n},{m})")
    kept = (stored.decode(stored.encode(dense)) != 0).reshape(-1, m)
    groups = np.abs(dense).reshape(-1, m)
    assert (kept.sum(1) == n).all()
    least, most = np.where(kept, groups, np.inf).min(1), np.where(kept, 0, groups).max(1)
    assert (least >= most).all()


def test_places_of_nm_are_fields_of_bits() -> None:
    assert [str(c) for c in made("nm(2,4)").components] == ["places: u8[8,3]", "values: f32[8,6,2]"]
    assert [str(c) for c in made("nm(1,8)").components[:2]] == ["places: u8[8,1]", "places_bit2: u8[8,1]"]


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("whole", [False, True])
def test_the_expression_decodes_as_the_reference(level: str, values: str, whole: bool) -> None:
    stored = made(level + values)
    arrays = stored.encode(weight(7, SHAPE))
    kernel = decode_kernel(stored, whole)
    verify_kernel(kernel)
    given = {c.name: a for c, a in zip(stored.components, arrays, strict=True)}
    np.testing.assert_array_equal(run_kernel(kernel, given)["W"], stored.decode(arrays))


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("level", LEVELS)
def test_components_are_as_promised_and_decode_within_bounds(level: str, values: str) -> None:
    dense = weight(2, SHAPE).astype(bf16.numpy)
    dense[3] = 0
    stored = made(level + values, dtype=bf16)
    arrays = stored.encode(dense)
    assert [(c.type.dtype.numpy, c.type.shape) for c in stored.components] == [(a.dtype, a.shape) for a in arrays]
    assert stored.bytes == sum(a.nbytes for a in arrays)
    again = stored_as(stored.encoding, SHAPE, bf16, [a.shape for a in arrays])
    assert again == stored
    rows = stored.levels.at(arrays[: len(stored.levels.coordinates)])
    decoded = stored.decode(arrays)
    assert decoded.dtype == bf16.numpy
    picked = stored.levels.pick(np, decoded, arrays[: len(stored.levels.coordinates)])
    np.testing.assert_array_equal(rows.from_rows(rows.rows(picked)), picked)
    if not level.startswith(("csr", "bcsr")):  # whose rows are filled up with what was never encoded
        assert stored.holds(arrays, dense)


def test_groups_of_what_nm_keeps_share_scales() -> None:
    stored = made("nm(2,4) . int4(group=4)")
    assert str(stored.components[-1]) == "scale: f32[8,3]"
    arrays = stored.encode(weight(3, SHAPE))
    given = {c.name: a for c, a in zip(stored.components, arrays, strict=True)}
    np.testing.assert_array_equal(run_kernel(decode_kernel(stored, False), given)["W"], stored.decode(arrays))


def damaged(stored: Storage, component: int, value: int) -> list[Any]:
    arrays = stored.encode(weight(4, SHAPE))
    arrays[component] = arrays[component].copy()
    arrays[component].flat[1] = value
    return arrays


@pytest.mark.parametrize(
    ("level", "component", "value", "message"),
    [
        ("csr", 0, 10**6, "starts of rows must rise from 0 to 58"),
        ("csr", 0, -7, "starts of rows must rise"),
        ("csr", 1, 10**6, r"columns must lie in 0\.\.23"),
        ("bcsr(2,2)", 1, -1, r"columns must lie in 0\.\.11"),
        ("columns", 0, 10**6, r"columns must lie in 0\.\.23"),
        ("nm(2,6)", 0, 255, "places among 6 must lie below it"),
    ],
)
def test_damaged_coordinates_are_refused_and_read_nothing_outside(
    level: str, component: int, value: int, message: str
) -> None:
    stored = made(level)
    arrays = damaged(stored, component, value)
    if level == "nm(2,6)":
        arrays[1][:] = 255
    with pytest.raises(EncodingError, match=message):
        stored.decode(arrays)
    given = {c.name: a for c, a in zip(stored.components, arrays, strict=True)}
    assert np.isfinite(run_kernel(decode_kernel(stored, False), given)["W"]).all()


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("level", ["csr", "bcsr(2,2)"])
@pytest.mark.parametrize("value", [10**6, -7, 0])
def test_damaged_starts_are_named_before_values_ask_them_for_rows(level: str, values: str, value: int) -> None:
    stored = made(level + values)
    arrays = stored.encode(weight(4, SHAPE))
    arrays[0] = arrays[0].copy()
    arrays[0][2] = value
    for ask in (stored.decode, stored.error_bound, lambda a: stored.holds(a, weight(4, SHAPE))):
        with pytest.raises(EncodingError, match=rf"starts of rows must rise .* from (\d+ to )?{value}|to {value}$"):
            ask(arrays)


@pytest.mark.parametrize(
    ("encoding", "shape", "message"),
    [
        ("nm(2,4)", (8, 6), r"columns in multiples of 4.*nm\(2,3\) fits"),
        ("nm(2,4)", (8,), "stores matrices"),
        ("nm(4,2)", (8, 4), "n <= m"),
        ("nm(2,1)", (8, 4), "2..256"),
        ("csr", (8,), "csr stores matrices"),
        ("bcsr(3,1)", (8, 4), "rows in multiples of 3.*blocks of 2 x 1 fit"),
        ("csr . int4(group=4)", (8, 4), 'share it by channel or tensor: per="channel"'),
    ],
)
def test_what_does_not_fit_is_refused(encoding: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        storage(encoding_of(encoding), shape, f32)
