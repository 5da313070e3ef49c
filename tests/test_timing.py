"""Timing a program leaves what it is given as it was."""

from __future__ import annotations

import torch
from torch import nn

import effcc


class Counting(nn.Module):
    """Reads a table at a place that moves on by one with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("place", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("table", torch.arange(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        read = x * self.table[self.place]
        self.place += 1
        return read


def test_a_program_that_counts_its_calls_can_be_timed() -> None:
    """More calls than the table has places: each begins where the first began."""
    compiled = torch.compile(Counting().eval(), backend="effcc")
    with torch.no_grad():
        compiled(torch.ones(4))
    (program,) = effcc.explain(compiled).programs
    assert all(kernel.measured for kernel in program.kernels)
