"""Models whose pages the tests read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from effcc.deviations import Deviation
from effcc.explanation import Explanation, explain_file


class Sorted(nn.Module):
    """Two equal products, a sort that PyTorch runs, and a line that HTML would take for elements of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = torch.relu(part(x))
        x = x.sort(-1).values  # </script> <b>&amp; "<!--
        return torch.softmax(x * 2.0 + 1.0, -1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an exported `Sorted`."""
    path = tmp_path_factory.mktemp("page") / "sorted.pt2"
    torch.export.save(torch.export.export(Sorted().eval(), (torch.zeros(4, 8),)), path)
    return path


@pytest.fixture(scope="session")
def explanation(model: Path) -> Explanation:
    """What effcc makes of it, without times."""
    return explain_file(model, measure=False)


@pytest.fixture(scope="session")
def timed(explanation: Explanation) -> Explanation:
    """The same with times and errors that are made up: kernel k takes k + 1 times the limit."""
    (program,) = explanation.programs
    kernels = tuple(
        replace(k, measured=k.roofline * (n + 1), deviation=Deviation(1e-6, 10.0 ** (n - 9)), verdict=f"verdict {n}")
        for n, k in enumerate(program.kernels)
    )
    steps = tuple(replace(s, measured=1e-6) for s in program.steps)
    return replace(explanation, programs=(replace(program, kernels=kernels, steps=steps),))
