"""Light weights: bytes so small that sums of eight products with any unsigned bytes fit in 16 bits.

    of 16 consecutive elements w[n, 16*g : 16*g + 16, ...] those at 4*q and 4*q + 1 are one set, the others another
    light:  -63 <= w <= 63;  in each set the positive ones add up to at most 128, and so do the negative ones' sizes

255 * 128 is what i16 holds. A set is what a lane of vpmaddubsw sums, four products of pairs one after the other.

Bounding accumulators by what weights add up to: Colbert, Pappalardo, Petri-Koenig: A2Q: Accumulator-Aware Quantization
with Guaranteed Overflow Avoidance, ICCV 2023; tile by tile: Colbert et al., arXiv:2409.17092.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.ir.dots import LIGHT_DEPTH

LARGEST, SUM = 63, 128
"""What a byte, and what those of one sign in a set, may be at most."""
IN_SET = (2, 4)
"""The axes of `set_shape` along which elements are of one set."""
_ROUNDED = SUM - 5
"""What those of one sign may add up to before each is rounded by half, and scales to what they are stored as."""


def set_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """[N, K, ...] with K as groups of 16, quarters, sets, pairs: [N, ceil(K / 16), 4, 2, 2, ...]."""
    channels, length, *rest = shape
    return (channels, -(-length // LIGHT_DEPTH), 4, 2, 2, *rest)


def missing(length: int) -> int:
    """How many elements a last group of 16 lacks."""
    return -length % LIGHT_DEPTH


def in_sets(w: Any) -> Any:
    """The array w[N,K,...] in the shape of its sets, zeros where there is none."""
    widths = [(0, 0), (0, missing(w.shape[1])), *((0, 0) for _ in w.shape[2:])]
    return np.pad(w, widths).reshape(set_shape(w.shape))


def least_scale(w: Any) -> Any:
    """The smallest scale for each channel of w[N,K,...], by which rounded elements are light: [N]."""
    sets = in_sets(w)
    heaviest = np.maximum(np.maximum(sets, 0).sum(IN_SET), np.maximum(-sets, 0).sum(IN_SET))
    return heaviest.reshape(len(w), -1).max(axis=1, initial=0) / np.float32(_ROUNDED)


def lightened(codes: Any) -> Any:
    """Bytes of which the largest of each set that is too heavy are made smaller, until it is not: light ones as they
    are.
    """
    sets = np.moveaxis(in_sets(np.clip(codes, -LARGEST, LARGEST).astype(np.int16)), IN_SET, (-2, -1)).copy()
    rows = sets.reshape(-1, LIGHT_DEPTH // 2)
    for sign in (1, -1):
        heavy = np.flatnonzero(np.maximum(sign * rows, 0).sum(1) > SUM)
        while heavy.size:
            rows[heavy, (sign * rows[heavy]).argmax(1)] -= sign
            heavy = heavy[np.maximum(sign * rows[heavy], 0).sum(1) > SUM]
    back = np.moveaxis(rows.reshape(sets.shape), (-2, -1), IN_SET)
    whole = back.reshape(codes.shape[0], -1, *codes.shape[2:])
    return np.ascontiguousarray(whole[:, : codes.shape[1]]).astype(np.int8)
