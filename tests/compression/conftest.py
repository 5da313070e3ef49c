"""Every test of layers compiles them itself."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _forget_programs() -> None:
    """Dynamo compiles one piece of code at most eight times, and leaves it to eager then: `nn.Sequential.forward` is
    what most tests here compile, and one that ran in eager would hold nothing."""
    torch._dynamo.reset()
