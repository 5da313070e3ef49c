"""GPTQ: columns are rounded in turn, and those not yet rounded make up for the errors."""

from __future__ import annotations

import torch
from torch import Tensor

from effcc.compression.methods.problem import Problem, Rounding

BLOCK = 32
"""Columns whose errors are passed on among themselves at once, and to the others together as one product."""


def gptq(problem: Problem, grid: Rounding) -> Tensor:
    """The rounded weight Q that GPTQ finds for min tr((W - Q) G (W - Q)^T).

    With U the upper Cholesky factor of the inverse, (G + damping)^-1 = U^T U, column j is rounded and its error spread
    over the later ones so that they make up for it best:

        q_j = round(w_j);   W[:, j+1:] -= (w_j - q_j) / U_jj * U[j, j+1:]

    Columns come in the order of falling G_jj (`act_order`), groups keep the scales that were fitted at the start.

    Frantar, Ashkboos, Hoefler, Alistarh: GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers, ICLR 2023.
    """
    order = torch.argsort(torch.diagonal(problem.seen(), dim1=1, dim2=2).mean(0), descending=True, stable=True)
    factor = inverse_factor(problem.damped()[:, order][:, :, order])
    rest = problem.weight.transpose(1, 2)[:, order].contiguous()  # [groups, K, channels]: a column is contiguous
    for start in range(0, len(order), BLOCK):
        stop = min(start + BLOCK, len(order))
        errors = torch.empty_like(rest[:, start:stop])
        for j in range(start, stop):
            rounded = grid.column(int(order[j]), rest[:, j])
            errors[:, j - start] = (rest[:, j] - rounded) / factor[:, j, j, None]
            rest[:, j] = rounded
            rest[:, j + 1 : stop] -= factor[:, j, j + 1 : stop, None] * errors[:, None, j - start]
        rest[:, stop:] -= factor[:, start:stop, stop:].transpose(1, 2) @ errors
    found = torch.empty_like(rest)
    found[:, order] = rest
    return found.transpose(1, 2).contiguous()


def inverse_factor(gram: Tensor) -> Tensor:
    """The upper factor U of the inverse, G^-1 = U^T U, in f32; `gram` is positive definite, in f64.

    With J the reversal of the order, J G J = L L^T gives G^-1 = (J L^-T J) (J L^-1 J), whose second factor is upper.
    """
    lower = torch.linalg.cholesky(gram.flip(1, 2))
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype).expand_as(gram)
    inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.flip(1, 2).float()
