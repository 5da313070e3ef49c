"""Scratch memory for calls: checked out from a pool, so that two threads may run one model at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class ArenaPool:
    """Byte tensors of at least the size asked for; one that is returned is used again."""

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []
        self._lock = threading.Lock()

    @contextmanager
    def take(self, size: int) -> Iterator[torch.Tensor]:
        """A byte tensor of at least `size` bytes, the caller's own until the block ends."""
        with self._lock:
            arena = self._free.pop() if self._free else None
        if arena is None or arena.numel() < size:
            arena = torch.empty(max(size, 64), dtype=torch.uint8)
        try:
            yield arena
        finally:
            with self._lock:
                self._free.append(arena)
