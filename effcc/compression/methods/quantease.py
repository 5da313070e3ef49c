"""QuantEase: coordinate descent on the output's error, a column at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from effcc.compression.methods.gptq import BLOCK, gptq
from effcc.compression.methods.problem import Problem, Rounding

SWEEPS = 8
"""How often every column is revisited at most; it ends where nothing changes any more."""


def quantease(problem: Problem, grid: Rounding) -> Tensor:
    """The rounded weight Q that cyclic coordinate descent finds for min tr((W - Q) G (W - Q)^T), from GPTQ's on.

    With all other columns kept, the best column j is the rounding of

        q_j + ((W - Q) G)_j / G_jj

    so the error never grows. A block of columns keeps its own part of (W - Q) G up to date; the rest follows by one
    product.

    Behdin, Acharya, Gupta, Song, Zhu, Keerthi, Mazumder: QuantEase: Optimization-based Quantization for Language
    Models, 2023.
    """
    gram = problem.damped().float()
    found = gptq(problem, grid).transpose(1, 2).contiguous()  # [groups, K, channels]: a column is contiguous
    pull = gram @ (problem.weight.transpose(1, 2) - found)
    for _ in range(SWEEPS):
        changed = False
        for start in range(0, gram.shape[-1], BLOCK):
            block = slice(start, start + BLOCK)
            own, inner = pull[:, block].clone(), gram[:, block, block]
            steps = torch.zeros_like(own)
            for j in range(own.shape[1]):
                before = found[:, start + j]
                after = grid.column(start + j, before + own[:, j] / inner[:, j, j, None])
                steps[:, j] = before - after
                own += inner[:, j, :, None] * steps[:, None, j]
                found[:, start + j] = after
            if bool(steps.any()):
                pull += gram[:, :, block] @ steps
                changed = True
        if not changed:
            break
    return found.transpose(1, 2).contiguous()
