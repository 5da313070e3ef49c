"""Knowing when weights changed, so that what was computed from them is computed again.

A weight counts as changed when its address or its version counter differs, or any of its bytes (`effcc.runtime.watch`):
writes through `.data`, NumPy, DLPack, storages and shared memory move no counter, and inference tensors have none.
What holds is this: a call computes with the weights as they were when it began, or later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from effcc.errors import InputError
from effcc.runtime.watch import Watch

_SETTLING = 3  # calls for which weights that changed are expected to change again


class _Epoch:
    """Counts the calls of `invalidate`."""

    value = 0


def advance(*_: Any) -> None:
    """Make every prepared weight suspect."""
    _Epoch.value += 1


@dataclass(frozen=True)
class Seen:
    """What a list of weights looked like: addresses, version counters, and a watch over their bytes."""

    epoch: int
    addresses: list[int]
    versions: list[int]
    watch: Watch
    storages: tuple[StorageWeakRef, ...]

    def holds(self, weights: Sequence[torch.Tensor], addresses: list[int]) -> bool:
        """Whether these are the same weights with the same values. addresses: `data_ptr()` of each."""
        if self.epoch != _Epoch.value or self.addresses != addresses or self.versions != _versions(weights):
            return False
        return self.watch.unchanged()

    def alive(self) -> bool:
        """Whether the memory of all of them is still theirs."""
        return not any(storage.expired() for storage in self.storages)


NOTHING = Seen(-1, [], [], Watch(()), ())
"""What was seen where there are no weights to watch."""


def look(weights: Sequence[torch.Tensor], addresses: list[int], changed: bool = False) -> Seen:
    """What the weights look like now; `addresses` are their `data_ptr()`s. changed: they looked otherwise before.

    Raises InputError for a weight whose storage has been shrunk or freed under it.
    """
    epoch, versions = _Epoch.value, _versions(weights)
    ranges = [(address, _extent(w)) for address, w in zip(addresses, weights, strict=True)]
    watch = Watch(ranges, _SETTLING if changed else 0, torch.get_num_threads())
    storages = tuple(StorageWeakRef(w.untyped_storage()) for w in weights)
    return Seen(epoch, list(addresses), versions, watch, storages)


def _versions(weights: Sequence[torch.Tensor]) -> list[int]:
    """Version counters; inference tensors have none."""
    try:
        return [w._version for w in weights]
    except RuntimeError:
        return [0 if w.is_inference() else w._version for w in weights]


def _extent(weight: torch.Tensor) -> int:
    """Bytes from the first to past the last element."""
    if weight.numel() == 0:
        return 0
    last = sum((n - 1) * s for n, s in zip(weight.shape, weight.stride(), strict=True))
    extent, storage = (last + 1) * weight.element_size(), weight.untyped_storage()
    held = storage.nbytes() - weight.storage_offset() * weight.element_size()
    if extent > held or not weight.data_ptr():
        shown = f"{str(weight.dtype).removeprefix('torch.')}{list(weight.shape)}"
        raise InputError(f"a weight {shown} takes {extent} bytes, of which its storage holds {max(held, 0)}")
    return extent
