"""AWQ: columns that are multiplied with much are scaled up before rounding, and their inputs down."""

from __future__ import annotations

import torch

from effcc.compression.inputs import UNCHANGED, InputChange
from effcc.compression.methods.problem import Problem, Rounding
from effcc.frontend.importer import TORCH_DTYPES

STEPS = 20
"""Exponents that are tried, evenly from 0 to 1."""


def awq(problem: Problem) -> InputChange:
    """The scale s of the input channels, W x = (W diag(s)) (x / s), whose rounding changes the output least.

        s_k = rms(x_k)^a, over its geometric mean;    a of 0, 0.05, ..., 0.95 with the smallest error

    The factor 1 / s stays an operation on the input, which the compiler fuses into what computes it. The root mean
    square stands for the paper's mean magnitude, since the Gram matrix has it.

    Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan, Han: AWQ: Activation-aware Weight Quantization for LLM
    Compression and Acceleration, MLSys 2024.
    """
    gram = problem.seen()
    squares = torch.diagonal(gram, dim1=1, dim2=2).reshape(-1, problem.taps).sum(1).double()
    seen = squares > 0
    if not bool(seen.any()):
        return UNCHANGED
    log = torch.where(seen, squares, squares[seen].mean()).log() / 2
    log = problem.shared(log - log.mean())
    dtype = TORCH_DTYPES[problem.storage.dtype]  # the scale is stored and multiplied with in the weight's dtype
    scales = [torch.exp(-log * step / STEPS).to(dtype).float() for step in range(1, STEPS)]
    best = min((InputChange(s) for s in scales), key=lambda change: _error(problem.transformed(change), quick=True))
    unscaled = _error(problem, quick=False)
    return best if _error(problem.transformed(best), quick=False) < unscaled else UNCHANGED


def _error(problem: Problem, quick: bool) -> float:
    """The output's error after rounding; `quick`: with scales that were not searched."""
    return problem.error(Rounding.of(problem, searched=not quick).all(problem.weight))
