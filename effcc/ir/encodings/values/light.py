"""Codes times scales, codes light (`effcc.ir.light`): the scale is so large that no set of codes is too heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effcc.ir.dtypes import from_numpy
from effcc.ir.encodings.levels import Levels
from effcc.ir.encodings.values.base import Array
from effcc.ir.encodings.values.coded import Coded, rows_shape
from effcc.ir.light import least_scale, lightened


@dataclass(frozen=True)
class Light(Coded):
    """Symmetric bytes. Where levels leave elements out, there are no sets: codes are those of a reduced range."""

    @property
    def is_light(self) -> bool:
        return True

    def fit(self, levels: Levels, stored: Array, importance: Array | None = None) -> list[Array]:
        parameters = super().fit(levels, stored, importance)
        if not _is_whole(levels):
            return parameters
        shape = self.grid.shape(rows_shape(levels))
        least = least_scale(np.asarray(stored, np.float32).reshape(levels.shape))
        least = least.max(initial=0) if self.grid.per == "tensor" else least
        wanted = np.maximum(self.scale.numbers(parameters, shape), np.broadcast_to(least, shape))
        return self._stored_scale(wanted, shape, from_numpy(stored.dtype))

    def round(self, levels: Levels, stored: Array, parameters: Sequence[Array]) -> list[Array]:
        """The nearest codes; where a method moved elements after scales were fitted, those that are light."""
        codes, *others = super().round(levels, stored, parameters)
        return [lightened(codes) if _is_whole(levels) else codes, *others]


def _is_whole(levels: Levels) -> bool:
    """Whether all elements are stored, in their own places."""
    return len(levels.shape) > 1 and levels.stored == levels.shape and not levels.coordinates
