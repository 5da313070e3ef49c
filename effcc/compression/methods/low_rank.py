"""Weights as a sum of a matrix of low rank and one of few bits, by alternation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from effcc.compression.methods.problem import Problem, Rounding, Solve, squared

ROUNDS = 8
"""Alternations at most; it ends where the error does not fall any more."""


def nearest_of_rank(error: Tensor, gram: Tensor | None, rank: int) -> tuple[Tensor, Tensor]:
    """L[N, r] and R[r, K] of min tr((E - L R) G (E - L R)^T), or of least squares without data.

    With G = S S^T (Cholesky), the singular vectors of E S: L R = [E S]_r S^-1 (Eckart, Young 1936).
    """
    if gram is None:
        u, s, v = torch.linalg.svd(error.double(), full_matrices=False)
        right = v[:rank]
    else:
        root = torch.linalg.cholesky(gram)
        u, s, v = torch.linalg.svd(error.double() @ root, full_matrices=False)
        right = torch.linalg.solve_triangular(root, v[:rank], upper=False, left=False)
    size = s[:rank].sqrt()
    return (u[:, :rank] * size).float().contiguous(), (size[:, None] * right).float().contiguous()


def alternate(
    problem: Problem, rank: int, solve: Solve, rounds: int | None = None
) -> tuple[Rounding, Tensor, Tensor, Tensor]:
    """A grid, numbers Q on it, L and R with Q + L R near W: the best of up to `ROUNDS` rounds of

        L R = the best matrix of that rank for W - Q;     Q = W - L R, rounded by `solve`

    from Q = 0 on, both measured by what the layer is given where there are data.

    Guo, Greengard, Xing, Kim: LQ-LoRA: Low-rank Plus Quantized Matrix Decomposition for Efficient Language Model
    Finetuning, ICLR 2024 (which weighs elements by Fisher information; here it is the output that counts).
    """
    gram = None if problem.gram is None else problem.damped()[0]
    weight = problem.weight[0]
    numbers, best, least = torch.zeros_like(weight), None, float("inf")
    for _ in range(rounds or ROUNDS):
        left, right = nearest_of_rank(weight - numbers, gram, rank)
        rest = replace(problem, weight=(weight - left @ right)[None])
        grid = Rounding.of(rest)
        numbers = solve(rest, grid)[0]
        error = squared((weight - numbers - left @ right)[None], problem.gram)
        if error >= least * (1 - 1e-4):
            break
        best, least = (grid, numbers, left, right), error
    assert best is not None
    return best
