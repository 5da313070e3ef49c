"""Which weights are kept, and what the kept ones become: magnitude, Wanda, SparseGPT.

A method gives scores, of which the level keeps the largest (in blocks: of largest L2 norm), and, once it is known which
are kept, their new values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from effcc.compression.methods.gptq import BLOCK, inverse_factor
from effcc.compression.methods.problem import Problem
from effcc.errors import UnknownNameError


@dataclass(frozen=True)
class Pruning:
    """scores: of each weight, [groups, channels, K]. updated: the weights, given which are kept; None: as they were."""

    name: str
    needs_data: bool
    scores: Callable[[Problem], Tensor]
    updated: Callable[[Problem, Tensor], Tensor] | None = None


def magnitude(problem: Problem) -> Tensor:
    """|w|."""
    return problem.weight.abs()


def wanda(problem: Problem) -> Tensor:
    """|w_nk| * ||x_k||: the change of the output where one weight is left out.

    Sun, Liu, Bair, Kolter: A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024.
    """
    norms = torch.diagonal(problem.seen(), dim1=1, dim2=2).sqrt()
    return problem.weight.abs() * norms[:, None, :]


def sparsegpt(problem: Problem) -> Tensor:
    """|w_nk| / sqrt([G^-1]_kk): the change of the output where one weight is left out and all others make up for it.

    Frantar, Alistarh: SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot, ICML 2023.
    """
    factor = inverse_factor(problem.damped())
    return problem.weight.abs() / factor.square().sum(1).sqrt()[:, None, :]  # [U^T U]_kk


def made_up_for(problem: Problem, kept: Tensor) -> Tensor:
    """The kept weights after those left out were removed column by column, later ones making up for each.

        W[:, j+1:] -= (w_j - kept_j w_j) / U_jj * U[j, j+1:]        (G + damping)^-1 = U^T U

    Columns come in the order of rising G_jj here: what is left out early has many to make up for it.
    """
    order = torch.argsort(torch.diagonal(problem.seen(), dim1=1, dim2=2).mean(0), stable=True)
    factor = inverse_factor(problem.damped()[:, order][:, :, order])
    rest = problem.weight.transpose(1, 2)[:, order].contiguous()
    mask = kept.transpose(1, 2)[:, order]
    for start in range(0, len(order), BLOCK):
        stop = min(start + BLOCK, len(order))
        errors = torch.empty_like(rest[:, start:stop])
        for j in range(start, stop):
            errors[:, j - start] = torch.where(mask[:, j], 0.0, rest[:, j]) / factor[:, j, j, None]
            rest[:, j + 1 : stop] -= factor[:, j, j + 1 : stop, None] * errors[:, None, j - start]
        rest[:, stop:] -= factor[:, start:stop, stop:].transpose(1, 2) @ errors
    found = torch.empty_like(rest)
    found[:, order] = torch.where(mask, rest, 0.0)
    return found.transpose(1, 2).contiguous()


PRUNINGS = {
    "magnitude": Pruning("magnitude", False, magnitude),
    "wanda": Pruning("wanda", True, wanda),
    "sparsegpt": Pruning("sparsegpt", True, sparsegpt, made_up_for),
}


def pruning_of(name: str) -> Pruning:
    """The method of that name. Raises UnknownNameError."""
    if name not in PRUNINGS:
        raise UnknownNameError("method", str(name), PRUNINGS)
    return PRUNINGS[name]
