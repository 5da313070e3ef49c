"""Each element to the nearest number of the grid."""

from __future__ import annotations

from torch import Tensor

from effcc.compression.methods.problem import Problem, Rounding


def nearest(problem: Problem, grid: Rounding) -> Tensor:
    """Q = round(W): the smallest error of each weight, whatever it is multiplied with."""
    return grid.all(problem.weight)
