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


def test_divisors_are_ones_where_zeros_are_refused() -> None:
    compiled = torch.compile(lambda x, n: x // n + 1, backend="effcc")
    compiled(torch.arange(8), torch.ones(8, dtype=torch.int64))
    (program,) = effcc.explain(compiled, details=True, trace=True).programs
    assert all(kernel.measured and kernel.deviation and not kernel.deviation.rms for kernel in program.kernels)
    assert program.ticks and not program.problem


def test_a_model_that_refuses_all_random_inputs_says_why_it_was_not_measured() -> None:
    compiled = torch.compile(lambda x, n: x // (n * (n - 1)), backend="effcc")
    compiled(torch.arange(8), torch.full((8,), 3))
    explanation = effcc.explain(compiled, details=True, trace=True)
    (program,) = explanation.programs
    assert all(kernel.measured is None and kernel.deviation is None for kernel in program.kernels)
    assert "nothing was measured: the model refuses random inputs: floordiv" in str(explanation)


def test_starting_takes_no_longer_than_the_quickest_launch() -> None:
    compiled = torch.compile(lambda x: torch.softmax(x @ x, -1), backend="effcc")
    compiled(torch.ones(32, 32))
    (program,) = effcc.explain(compiled).programs
    quickest = min((k.measured or 0.0) / k.launches for k in program.kernels)
    assert 0 < program.limits["start"] <= quickest
    assert all("% of a call" not in k.verdict or int(k.verdict.split()[-5]) <= 100 for k in program.kernels)
