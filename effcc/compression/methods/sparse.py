"""Rounding weights of which only some elements are stored: coordinate descent over those of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effcc.compression.methods.problem import Problem
from effcc.compression.methods.quantease import SWEEPS
from effcc.errors import EncodingError
from effcc.ir.encodings import Storage

Array = Any


def rounded_where_stored(made: Storage, coordinates: Sequence[Array], elements: Array, problem: Problem) -> list[Array]:
    """The value arrays for stored `elements`: from nearest on, QuantEase's descent on the output's error.

    The j-th stored element of row n stands in column c = columns[n, j], and the best for it, others kept, rounds

        q_nj + ((W - Q) G)_nc / G_cc

    Rows have their own columns, so what a step changes of (W - Q) G is a row of G for each row of W.
    """
    levels, values = made.levels.at(coordinates), made.values
    if not levels.has_positions:
        raise EncodingError(f"{made.encoding}: rows of free lengths are rounded to nearest: method='nearest'")
    gram = problem.damped()[0].float()
    places = np.broadcast_to(np.arange(made.shape[1], dtype=np.int32), made.shape)
    columns = torch.from_numpy(np.ascontiguousarray(levels.rows(levels.compress(places, coordinates)))).long()
    rows = torch.from_numpy(np.ascontiguousarray(levels.rows(np.asarray(elements, np.float32))))
    diagonal = torch.diagonal(gram)
    parameters = values.fit(levels, np.asarray(elements), diagonal[columns].numpy())
    rounding = values.rounding(levels, parameters)

    def nearest(numbers: Tensor, start: int) -> Tensor:
        found = rounding(numbers.contiguous().numpy(), start)
        return torch.from_numpy(np.ascontiguousarray(found, np.float32))

    found = nearest(rows, 0)
    pull = torch.zeros(made.shape).scatter_(1, columns, rows - found) @ gram
    every = torch.arange(len(rows))
    for _ in range(SWEEPS):
        before = found.clone()
        for j in range(rows.shape[1]):
            at = columns[:, j]
            wanted = nearest((found[:, j] + pull[every, at] / diagonal[at])[:, None], j)[:, 0]
            pull += (found[:, j] - wanted)[:, None] * gram[at]
            found[:, j] = wanted
        if torch.equal(before, found):
            break
    return [*values.round(levels, levels.from_rows(found.numpy()), parameters), *parameters]
