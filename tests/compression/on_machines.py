"""A small model with odd sizes, and the machines that its compiled bytes are tried on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from effcc.target import Target


def runs(machine: str) -> str:
    """The machine, if its code can run here; else the test is skipped."""
    if not Target.parse(machine).runs_here():
        pytest.skip(f"this CPU is no {machine}")
    return machine


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(37, 72), nn.GELU(), nn.Linear(72, 20, bias=False)).eval()
