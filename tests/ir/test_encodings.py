"""Schemes of encodings: what they keep, how far decoding may be off, and that expression and reference agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.errors import EffccError, EncodingError, IRSyntaxError, UnknownNameError
from effcc.ir.dtypes import DType, bf16, f16, f32, f64
from effcc.ir.encodings import Storage, canonical, storage, stored_as
from effcc.ir.encodings.registry import DECLARATIONS
from effcc.ir.form import FormBuilder
from effcc.ir.interpreter import run_kernel
from effcc.ir.kernel import Kernel, Param
from effcc.ir.parser import encoding_of
from effcc.ir.types import TensorType
from effcc.ir.verifier import verify_kernel

VALUES = tuple(sample for d in DECLARATIONS.values() if d.kind == "values" for sample in d.samples)
ENCODINGS = (*VALUES, "block(4,1)", "block(2,3)", *(f"block(2,3) . {v}" for v in VALUES if v.startswith("int4")))
"""Every sample of every scheme that is declared, and values in all granularities over blocks."""


def weight(seed: int, shape: tuple[int, ...] = (8, 12)) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def made(encoding: str, shape: tuple[int, ...] = (8, 12), count: int = 2, dtype: DType = f32) -> Storage:
    return storage(encoding_of(encoding), shape, dtype, count if "block" in encoding else 0)


def decode_kernel(stored: Storage, whole: bool) -> Kernel:
    """The cascade that decodes `stored`."""
    params = tuple(Param(c.name, c.type) for c in stored.components)
    outputs = (Param("W", TensorType(stored.dtype, stored.shape)),)
    builder = FormBuilder(params, outputs, {})
    stored.form(builder, whole)
    return Kernel("decode", params, outputs, tuple(builder.extents.items()), tuple(builder.statements))


SHAPES = ((8, 12), (3, 37), (5, 1), (4, 3, 3, 3), (7,))


@pytest.mark.parametrize("encoding", VALUES)
@given(st.integers(0, 2**32), st.floats(1e-30, 1e30), st.sampled_from(SHAPES))
@settings(max_examples=8, deadline=None)
def test_values_stay_within_their_error_bound(encoding: str, seed: int, scale: float, shape: tuple[int, ...]) -> None:
    dense = weight(seed, shape) * np.float32(scale)
    dense[-1] = 0
    stored = storage(encoding_of(encoding), shape)
    try:
        arrays = stored.encode(dense)
    except EncodingError as error:
        assert "does not fit f16" in str(error) and scale > 1
        return
    assert stored.holds(arrays, dense)


@pytest.mark.parametrize("encoding", [v for v in VALUES if not v.startswith("int5") and not v.startswith("int7")])
def test_parameters_fitted_to_what_matters_have_less_weighted_error(encoding: str) -> None:
    """Not more than those that reach every element, but for the rounding of stored scales; methods rely on it."""
    dense = np.random.default_rng(3).standard_t(4, (16, 64)).astype(np.float32)
    made = storage(encoding_of(encoding), dense.shape)
    importance = np.random.default_rng(4).random(dense.shape).astype(np.float32) ** 4

    def error(parameters: list[Any]) -> float:
        decoded = made.decode([*made.values.round(made.levels, dense, parameters), *parameters])
        return float((importance * np.square(decoded - dense)).sum())

    plain = error(made.values.fit(made.levels, dense))
    searched = error(made.values.fit(made.levels, dense, importance))
    assert searched <= 1.02 * plain
    if encoding in ("int4(group=8)", "int2", "nf4", "codebook(group=64)"):
        assert searched < 0.95 * plain


@pytest.mark.parametrize("encoding", VALUES)
def test_columns_rounded_one_at_a_time_are_what_is_decoded(encoding: str) -> None:
    dense = weight(9, (4, 37))
    made = storage(encoding_of(encoding), dense.shape)
    parameters = made.values.fit(made.levels, dense)
    nearest = made.values.rounding(made.levels, parameters)
    columns = [nearest(dense[:, c : c + 1], c) for c in range(37)]
    rounded = np.concatenate(columns, axis=1).astype(np.float32)
    codes = made.values.round(made.levels, rounded, parameters)
    np.testing.assert_array_equal(made.decode([*codes, *parameters]), rounded)


@pytest.mark.parametrize("scheme", ["int4", "iq4", "nf4"])
def test_scales_that_have_no_sign_lose_little_beside_those_that_have(scheme: str) -> None:
    dense = weight(7, (16, 256))

    def error(notation: str) -> float:
        made = storage(encoding_of(notation), dense.shape)
        return float(np.square(made.decode(made.encode(dense)) - dense).sum())

    assert error(f'{scheme}(group=32,scale="u6",super=256)') < 2 * error(f'{scheme}(group=32,scale="f16")')
    assert error(f'{scheme}(group=32,scale="e8")') < 4 * error(f'{scheme}(group=32,scale="f16")')


def test_a_learned_table_errs_less_than_a_known_one() -> None:
    dense = np.random.default_rng(3).standard_t(4, (16, 256)).astype(np.float32)
    made = [storage(encoding_of(f"{scheme}(group=64)"), dense.shape) for scheme in ("codebook", "nf4")]
    learned, known = (float(np.square(m.decode(m.encode(dense)) - dense).sum()) for m in made)
    assert learned < 0.97 * known


def test_a_channel_of_denormals_does_not_divide_by_zero() -> None:
    dense = np.full((2, 3), 1e-42, np.float32)
    stored = storage(encoding_of("int8"), dense.shape)
    arrays = stored.encode(dense)
    assert np.isfinite(stored.decode(arrays)).all()
    assert (np.abs(stored.decode(arrays) - dense) <= stored.error_bound(arrays)).all()


@given(st.integers(0, 2**32), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_block_keeps_the_blocks_of_largest_norm_exactly(seed: int, count: int) -> None:
    dense = weight(seed)
    stored = made("block(4,1)", count=count)
    decoded = stored.decode(stored.encode(dense))
    norms = np.square(dense.reshape(2, 4, 12)).sum(1)
    kept = decoded.reshape(2, 4, 12).any(1)
    assert (kept.sum(1) == count).all()
    assert (decoded[decoded != 0] == dense[decoded != 0]).all()
    for row in range(2):
        assert norms[row][kept[row]].min() >= norms[row][~kept[row]].max(initial=0)


def test_composed_values_are_those_of_what_the_level_keeps() -> None:
    dense = weight(1)
    sparse = made("block(4,1)")
    pruned = sparse.decode(sparse.encode(dense))
    both, int8 = made("block(4,1) . int8"), storage(encoding_of("int8"), dense.shape)
    np.testing.assert_array_equal(both.decode(both.encode(dense)), int8.decode(int8.encode(pruned)))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("whole", [False, True])
def test_the_expression_decodes_as_the_reference(encoding: str, whole: bool) -> None:
    stored = made(encoding)
    arrays = stored.encode(weight(7))
    kernel = decode_kernel(stored, whole)
    verify_kernel(kernel)
    given = {c.name: a for c, a in zip(stored.components, arrays, strict=True)}
    np.testing.assert_array_equal(run_kernel(kernel, given)["W"], stored.decode(arrays))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_components_have_the_types_that_are_promised(encoding: str) -> None:
    stored = made(encoding)
    arrays = stored.encode(weight(2))
    assert [(c.type.dtype.numpy, c.type.shape) for c in stored.components] == [(a.dtype, a.shape) for a in arrays]
    assert stored.bytes == sum(a.nbytes for a in arrays)
    assert stored_as(encoding_of(encoding), stored.shape, f32, [a.shape for a in arrays]) == stored


@pytest.mark.parametrize("dtype", [bf16, f16, f64], ids=str)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_weights_of_other_dtypes_keep_them(encoding: str, dtype: DType) -> None:
    dense = weight(3).astype(dtype.numpy)
    stored = made(encoding, dtype=dtype)
    arrays = stored.encode(dense)
    decoded = stored.decode(arrays)
    assert decoded.dtype == dtype.numpy
    assert stored.holds(arrays, dense)
    given = {c.name: a for c, a in zip(stored.components, arrays, strict=True)}
    np.testing.assert_array_equal(run_kernel(decode_kernel(stored, False), given)["W"], decoded)


def test_a_damaged_coordinate_never_reads_outside() -> None:
    stored = made("block(4,1)")
    columns, values = stored.encode(weight(4))
    columns[0, 0] = 10**6
    with pytest.raises(EncodingError, match=r"columns must lie in 0\.\.11"):
        stored.decode([columns, values])
    decoded = run_kernel(decode_kernel(stored, False), {"columns": columns, "values": values})["W"]
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("int9", UnknownNameError, "did you mean 'int"),
        ("blok(4,1)", UnknownNameError, "did you mean 'block'"),
        ('int8(pre="channel")', UnknownNameError, "did you mean 'per'"),
        ('int8(per="row")', EncodingError, "expected per=.*channel.* as in int8"),
        ("int4(group=0)", EncodingError, r"expected group=1\.\.65536"),
        ("int4(group=true)", EncodingError, r"expected group=1\.\.65536"),
        ('int4(per="tensor",group=32)', EncodingError, "say one of them"),
        ("int4(zero=true,minimum=true)", EncodingError, "say one of them"),
        ("int8(reduce_range=true,minimum=true)", EncodingError, "leave zero and minimum out"),
        ("int8(reduce_range=true,group=32)", EncodingError, "gain nothing by it"),
        ('int4(minimum=true,scale="e8")', EncodingError, "a minimum is none"),
        ('int4(scale="u6")', EncodingError, "scales of groups"),
        ('int4(group=32,scale="u6",super=48)', EncodingError, "multiple of group"),
        ("int4(group=32,super=64)", EncodingError, "super says"),
        ("block(4)", EncodingError, "expected block"),
        ("block(4,0)", EncodingError, "expected columns=a positive"),
        ("block(4,1,1)", EncodingError, "expected block"),
        ("int8 . block(4,1)", EncodingError, "levels stand before values"),
        ("block(4,1) . block(2,2)", EncodingError, "at most one level"),
        ("low_rank(2) + int8 . block(4,1)", EncodingError, "levels stand before values"),
        ("block(4,1", IRSyntaxError, "1:10"),
    ],
)
def test_bad_notation_is_refused(text: str, error: type[EffccError], message: str) -> None:
    with pytest.raises(error, match=message):
        canonical(encoding_of(text))


@pytest.mark.parametrize(
    ("encoding", "shape", "count", "message"),
    [
        ("block(4,1)", (6, 4), 1, "rows in multiples of 4"),
        ("block(4,3)", (8, 4), 1, "columns in multiples of 3"),
        ("block(4,1)", (8,), 1, "stores matrices"),
        ("block(4,1)", (8, 4), 5, "1 to 4 blocks"),
        ("int8", (0, 4), 0, "at least one element"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(encoding: str, shape: tuple[int, ...], count: int, message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        storage(encoding_of(encoding), shape, f32, count)


def test_infinities_cannot_be_bytes() -> None:
    dense = weight(5)
    dense[0, 0] = np.inf
    with pytest.raises(EncodingError, match="finite"):
        storage(encoding_of("int8"), dense.shape).encode(dense)


def test_misfitting_components_are_refused() -> None:
    stored = storage(encoding_of("int8"), (8, 12))
    values, scale = stored.encode(weight(6))
    with pytest.raises(EncodingError, match=r"scale: f32\[8\]"):
        stored.decode([values, scale[:-1]])


def test_the_readme_names_every_scheme_of_values() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    names = [d.name for d in DECLARATIONS.values() if d.kind == "values" and not d.name.startswith("int")]
    assert [n for n in names if f"`{n}" not in text] == []
