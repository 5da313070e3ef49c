"""Scratch memory for calls: checked out from a pool, so that two threads may run one model at the same time."""

from __future__ import annotations

import torch


def allocate(size: int) -> torch.Tensor:
    """That many bytes."""
    with torch.inference_mode(False):  # a tensor made in inference mode could not be written outside it
        return torch.empty(size, dtype=torch.uint8)


class ArenaPool:
    """Byte tensors of at least the size asked for; one that is given back is used again.

    (A list's `append` and `pop` are atomic, so there is no lock.)
    """

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []

    def take(self, size: int) -> torch.Tensor:
        """A byte tensor of at least `size` bytes, the caller's own until it is given back."""
        try:
            arena = self._free.pop()
        except IndexError:
            arena = None
        if arena is None or arena.numel() < size:
            arena = allocate(max(size, 64))
        return arena

    def give(self, arena: torch.Tensor) -> None:
        """Give one back."""
        self._free.append(arena)
