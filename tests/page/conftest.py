"""Models whose pages the tests read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

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
