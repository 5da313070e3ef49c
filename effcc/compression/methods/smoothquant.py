"""SmoothQuant: what makes inputs hard to quantize moves into the weights, half of it."""

from __future__ import annotations

import torch

from effcc.compression.inputs import UNCHANGED, InputChange
from effcc.compression.methods.problem import Problem
from effcc.frontend.importer import TORCH_DTYPES

STRENGTH = 0.5
"""The exponent: 0 leaves all in the inputs, 1 moves all into the weights."""


def smoothquant(problem: Problem) -> InputChange:
    """The scale of input channels before both are quantized, W x = (W diag(s)) (x / s):

        s_k = rms(x_k)^a / max_n |w_nk|^(1 - a),    a = 1/2

    so that channels of inputs and columns of weights are equally large. The root mean square stands for the paper's
    maximum, since the Gram matrix has it.

    Xiao, Lin, Seznec, Wu, Demouth, Han: SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
    Language Models, ICML 2023.
    """
    squares = torch.diagonal(problem.seen(), dim1=1, dim2=2).reshape(-1, problem.taps).sum(1)
    inputs = squares.sqrt()
    weights = problem.weight.abs().amax(1).reshape(-1, problem.taps).amax(1)
    both = (inputs > 0) & (weights > 0)
    if not bool(both.any()):
        return UNCHANGED
    log = torch.where(both, STRENGTH * inputs.log() - (1 - STRENGTH) * weights.log(), 0.0)
    log = problem.shared(torch.where(both, log - log[both].mean(), 0.0))
    return InputChange(torch.exp(-log).to(TORCH_DTYPES[problem.storage.dtype]).float())
