"""What a method is given: a weight as a matrix, what it is multiplied with, and the storage to fill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effcc.compression.inputs import InputChange
from effcc.errors import EncodingError
from effcc.ir.encodings import Storage
from effcc.ir.encodings.values import Nearest

Array = Any

DAMPING = 0.01
"""What is added to the diagonal of a Gram matrix, as a share of its mean: few data leave directions unseen."""


@dataclass(frozen=True)
class Problem:
    """Store `weight`[groups, channels of a group, K] so that its product with the layer's inputs changes little.

    gram: [groups, K, K], the sum of x x^T over the inputs' rows; None without data. taps: how many elements of a row
    one input channel has (the size of a convolution's kernel). tied: input channels with equal numbers have one factor
    (heads that share values). All in f32.
    """

    weight: Tensor
    gram: Tensor | None
    storage: Storage
    taps: int = 1
    tied: Tensor | None = None

    def shared(self, of_channels: Tensor) -> Tensor:
        """The mean of what channels that are `tied` by an equal number have, for each of them."""
        if self.tied is None:
            return of_channels
        count = int(self.tied.max()) + 1
        sums, counts = (
            of_channels.new_zeros(count).index_add(0, self.tied, v) for v in (of_channels, torch.ones_like(of_channels))
        )
        return (sums / counts.clamp(min=1))[self.tied]

    @property
    def matrix(self) -> Tensor:
        """The weight as rows of channels, [N, K]."""
        return self.weight.reshape(-1, self.weight.shape[-1])

    @property
    def importance(self) -> Array | None:
        """How much the square of each element's error counts, [N, K]."""
        if self.gram is None:
            return None
        diagonal = torch.diagonal(self.gram, dim1=1, dim2=2)[:, None, :]
        return diagonal.expand(self.weight.shape).reshape(self.matrix.shape).numpy()

    def seen(self) -> Tensor:
        """The Gram matrix. Raises EncodingError without data."""
        if self.gram is None:
            raise EncodingError("needs calibration data: data=...")
        return self.gram

    def damped(self) -> Tensor:
        """The Gram matrix in f64 with damping on its diagonal; what is never multiplied counts as if it were alone."""
        gram = self.seen().double()
        diagonal = torch.diagonal(gram, dim1=1, dim2=2)
        mean = diagonal.mean(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        return gram + torch.diag_embed((DAMPING * mean).expand_as(diagonal))

    def error(self, stored: Tensor) -> float:
        """The squared error of the output (without data, of the weight) if `stored`[groups, channels, K] is used."""
        return squared(self.weight - stored, self.gram)

    def transformed(self, change: InputChange) -> Problem:
        """The problem whose weight and inputs are changed so that their product is the same."""
        gram = None if self.gram is None else change.of_gram(self.gram, self.taps)
        return replace(self, weight=change.of_weight(self.weight, self.taps), gram=gram)


def squared(error: Tensor, gram: Tensor | None) -> float:
    """tr(E G E^T), or the sum of squares."""
    return float((error.square() if gram is None else (error @ gram) * error).double().sum())


@dataclass(frozen=True)
class Rounding:
    """A grid that was fitted to a weight: elements are rounded on it a column at a time, in any order."""

    storage: Storage
    parameters: Sequence[Array]
    nearest: Nearest

    @staticmethod
    def of(problem: Problem, searched: bool = True) -> Rounding:
        """The grid for a problem's weight.

        searched: with the smallest error, weighted by how strongly columns are multiplied; else what reaches all.
        """
        made = problem.storage
        rows = np.ascontiguousarray(problem.matrix.numpy()).astype(made.dtype.numpy)  # scales may be in its dtype
        parameters = made.values.fit(made.levels, made.levels.from_rows(rows), problem.importance if searched else None)
        return Rounding(made, parameters, made.values.rounding(made.levels, parameters))

    def column(self, number: int, column: Tensor) -> Tensor:
        """What each of a column's numbers, [groups, channels of a group], is stored as."""
        found = self.nearest(column.reshape(-1, 1).to(torch.float32).numpy(), number)
        return torch.from_numpy(np.ascontiguousarray(found, np.float32)).reshape(column.shape)

    def all(self, weight: Tensor) -> Tensor:
        """What the whole weight is stored as."""
        rows = np.ascontiguousarray(weight.reshape(-1, weight.shape[-1]).numpy())
        found = self.nearest(rows, 0)
        return torch.from_numpy(np.ascontiguousarray(found, np.float32)).reshape(weight.shape)

    def arrays(self, weight: Tensor) -> list[Array]:
        """The component arrays: codes of numbers that `column` or `all` gave, then the parameters."""
        values, levels = self.storage.values, self.storage.levels
        rows = np.ascontiguousarray(weight.reshape(-1, weight.shape[-1]).to(torch.float32).numpy())
        return [*values.round(levels, levels.from_rows(rows), self.parameters), *self.parameters]


Solve = Callable[[Problem, Rounding], Tensor]
"""The numbers, all on the grid, that a weight is stored as."""

Transform = Callable[[Problem], InputChange]
"""How the input is changed first."""


@dataclass(frozen=True)
class Method:
    """A way to the stored form: a transform of the input, or a way of rounding."""

    name: str
    needs_data: bool
    solve: Solve | None = None
    transform: Transform | None = None
