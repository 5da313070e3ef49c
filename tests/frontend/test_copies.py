"""Copies into tensors that the model is given."""

from __future__ import annotations

import warnings

import torch

from effcc.errors import FaultWarning


def test_a_number_is_copied_into_a_tensor() -> None:
    def fill(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.copy_(0.5)
        y[1].copy_(3)
        return x + y

    def given() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(6.0).view(2, 3), torch.arange(6).view(2, 3)

    mine, theirs = given(), given()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", FaultWarning)
        found = torch.compile(fill, backend="effcc")(*mine)
    assert torch.equal(found, fill(*theirs))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
