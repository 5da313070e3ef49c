"""Whether what is stored is what storing promises, by rules that hold of every encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.compression.install import Stored
from effcc.ir.encodings.storage import Storage
from effcc.ir.encodings.values import EPSILON, SMALLEST


def wrongly_stored(held: Stored, dense: Any, nearest: bool, largest: bool) -> str:
    """How a stored weight is wrong beside the dense one; empty where it is right.

    nearest: whether it was rounded to nearest, an element at a time, from just these numbers. largest: whether what is
    kept of it was chosen by magnitude.
    """
    changed = held.change.scale is not None or held.change.rotation is not None
    return wrong_storage(held.storage, held.arrays, dense, nearest and not changed, largest)


def wrong_storage(made: Storage, arrays: Sequence[Any], dense: Any, nearest: bool, largest: bool) -> str:
    """How arrays are wrong as what `made` stores of a dense weight; empty where they are right."""
    decoded = made.decode(arrays)
    if decoded.shape != dense.shape or decoded.dtype != dense.dtype:
        return f"it is decoded as {decoded.dtype}{list(decoded.shape)}, not {dense.dtype}{list(dense.shape)}"
    if not np.isfinite(decoded.astype(np.float64)).all():
        return "it is decoded as infinities or NaN"
    if largest and _keeps_little(made, arrays, dense):
        return "what is kept is smaller than what is left out"
    if not nearest:
        return ""
    if not made.holds(arrays, dense):
        return "an element is off by more than the error bound"
    return _farther_than_need_be(made, arrays, dense)


def _keeps_little(made: Storage, arrays: Sequence[Any], dense: Any) -> bool:
    """Whether the elements that are kept are smaller in the mean than all are."""
    coordinates, _ = made.split(arrays)
    if not coordinates:
        return False
    kept = np.square(made.levels.compress(dense.astype(np.float64), coordinates))
    return bool(kept.mean() < np.square(dense.astype(np.float64)).mean() * (1 - 1e-9))


def _farther_than_need_be(made: Storage, arrays: Sequence[Any], dense: Any) -> str:
    """Whether an element is farther from its number than from what another is decoded as that shares its scale."""
    coordinates, values = made.split(arrays)
    levels = made.levels.at(coordinates)
    given = made.values.blocks(levels.rows(levels.compress(dense.astype(np.float64), coordinates)))
    if given is None:
        return ""
    decoded = made.values.blocks(levels.rows(made.values.decode(levels, values, made.dtype).astype(np.float64)))
    assert decoded is not None, "what is stored is, in blocks"
    size = given.shape[-1]
    for w, d in zip(given.reshape(-1, size), decoded.reshape(-1, size), strict=True):
        known = np.unique(d[(d != 0) | (w != 0)])  # what rows are filled up with is nobody's choice
        if not known.size:
            continue
        at = np.searchsorted(known, w)
        around = known[np.clip(np.stack([at - 1, at]), 0, len(known) - 1)]
        least = np.abs(around - w).min(axis=0)
        slack = 4 * EPSILON[made.dtype] * np.abs(d).max() + 4 * SMALLEST[made.dtype] + 1e-6 * np.abs(w).max()
        if (np.abs(w - d) > least + slack).any():
            worst = int(np.argmax(np.abs(w - d) - least))
            return f"{w[worst]} is decoded as {d[worst]}, where {least[worst]} off was to be had"
    return ""
