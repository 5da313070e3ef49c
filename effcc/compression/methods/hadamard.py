"""Hadamard rotation: inputs and weights are turned alike, so that outliers are shared among many elements."""

from __future__ import annotations

import torch
from torch import Tensor

from effcc.compression.inputs import InputChange, hadamard_matrix
from effcc.compression.methods.problem import Problem
from effcc.errors import EncodingError

LARGEST = 64
"""Blocks are no larger: turning costs so many multiply-adds for each element of the input."""


def hadamard(problem: Problem) -> InputChange:
    """The rotation W x = (W H) (H x), H block-diagonal of Hadamard matrices (symmetric, their own inverse).

    An element that is large alone becomes a part of 1 / sqrt(size) of each in its block, so that the grid that holds
    the block can be finer. Blocks have the largest power of two, at most 64, that divides the channels (and, where the
    channels of a producer are to be turned instead, keeps blocks together there).

    Ashkboos, Mohtashami, Croci, Li, Cameron, Jaggi, Alistarh, Hoefler, Hensman: QuaRot: Outlier-Free 4-Bit Inference in
    Rotated LLMs, NeurIPS 2024.
    """
    if problem.taps != 1 or len(problem.weight) != 1:
        raise EncodingError("hadamard turns the channels of an nn.Linear's input; it does not turn a convolution's")
    columns = problem.weight.shape[-1]
    size = min(columns & -columns, LARGEST)
    if size == 1:
        raise EncodingError(f"hadamard needs an even number of input features, got {columns}")
    while problem.tied is not None and not together(problem.tied, size):
        size //= 2
    return InputChange(rotation=hadamard_matrix(size))


def together(channels: Tensor, size: int) -> bool:
    """Whether every block of channels is one of a producer's blocks, in order."""
    blocks = channels.reshape(-1, size)
    return bool(((blocks == blocks[:, :1] + torch.arange(size)) & (blocks[:, :1] % size == 0)).all())
