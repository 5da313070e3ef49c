"""Linear layers whose weight is a sum of terms, each stored in its own way: `low_rank(16) + int3(group=64)`.

    y = x Q^T + (x R^T) L^T + bias          W = Q + L R,    L[N, r], R[r, K]

Terms are modules of their own, so the product is never one with the sum of the weights: a term of low rank costs
r (N + K) multiply-adds a row, and each term is compiled, saved, explained and quantized further like any other layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from effcc.errors import EncodingError
from effcc.ir.encoding import Encoding


class LowRank(nn.Module):
    """x -> (x R^T) L^T: a linear layer of low rank. Both factors can be trained, as adapters are, or stored."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self.right = _linear(right)
        self.left = _linear(left)

    @property
    def weight(self) -> Tensor:
        return self.left.weight @ self.right.weight

    def forward(self, input: Tensor) -> Tensor:
        made: Tensor = self.left(self.right(input))
        return made


def _linear(weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    made.weight = nn.Parameter(weight)
    return made


class SummedLinear(nn.Linear):
    """`nn.Linear` whose weight is the sum of its `terms`' weights; `encoding` is the notation."""

    encoding: str
    terms: nn.ModuleList
    weight_error: float | None

    @property
    def weight(self) -> Tensor:
        """The dense weight: the sum."""
        weights: list[Any] = [term.weight for term in self.terms]
        return torch.stack(weights).sum(0)

    @weight.setter
    def weight(self, value: object) -> None:
        raise EncodingError(f"the weight is stored as {self.encoding}; assign its terms' components")

    def forward(self, input: Tensor) -> Tensor:
        first, *others = self.terms
        total: Tensor = first(input)
        for term in others:
            total = total + term(input)
        return total if self.bias is None else total + self.bias

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight={self.encoding}"


def empty_terms(module: nn.Linear, encoding: Encoding) -> list[nn.Module]:
    """Terms of the shapes that a sum of low rank and values has for a dense layer, for numbers to be loaded into."""
    (low, *_), *others = encoding.terms
    rank = int(low.args[0])
    weight = module.weight
    terms: list[nn.Module] = [
        nn.Linear(module.in_features, module.out_features, bias=False, device="meta") for _ in others
    ]
    left, right = weight.new_empty(module.out_features, rank), weight.new_empty(rank, module.in_features)
    return [*terms, LowRank(left, right)]


def sum_up(module: nn.Linear, encoding: str, terms: list[nn.Module], error: float | None) -> None:
    """Put a sum of terms in the place of a linear layer's weight."""
    summed: Any = module
    del summed.weight
    summed.__class__ = SummedLinear
    summed.encoding, summed.weight_error = encoding, error
    summed.terms = nn.ModuleList(terms)
