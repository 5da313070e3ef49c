"""Knowing when weights changed, so that what was computed from them is computed again.

A weight counts as changed when its address differs, or any of its bytes (`effcc.runtime.watch`). Version counters tell
less: writes through `.data`, NumPy, DLPack, storages and shared memory move none, and inference tensors have none. They
are asked only where a device may write to pinned memory, which the kernel does not record.
What holds is this: a call computes with the weights as they were when it began, or later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
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


def chooser(positions: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """What takes the items at `positions` out of a sequence, in a single turn of Python."""
    if len(positions) < 2:  # `itemgetter` wants one, and gives one item bare
        return lambda items: tuple([items[i] for i in positions])
    return itemgetter(*positions)


@dataclass(frozen=True)
class Seen:
    """What the inputs that are `chosen` looked like: addresses, and a watch over their bytes; version counters, too,
    where there are devices."""

    epoch: int
    chosen: Callable[[Sequence[Any]], tuple[Any, ...]]
    addresses: tuple[int, ...]
    versions: tuple[int, ...] | None
    watch: Watch
    storages: tuple[StorageWeakRef, ...]

    def holds(self, inputs: Sequence[torch.Tensor], addresses: Sequence[int]) -> bool:
        """Whether these are the same weights with the same values. addresses: `data_ptr()` of each input."""
        if self.epoch != _Epoch.value or not self.where(addresses):
            return False
        if self.versions is not None and self.versions != _versions(self.chosen(inputs)):
            return False
        return self.watch.unchanged()

    def where(self, addresses: Sequence[int]) -> bool:
        """Whether they lie where they lay."""
        return self.chosen(addresses) == self.addresses

    def alive(self) -> bool:
        """Whether the memory of all of them is still theirs."""
        return not any(storage.expired() for storage in self.storages)


NOTHING = Seen(-1, chooser(()), (), None, Watch(()), ())
"""What was seen where there are no weights to watch."""


def look(
    inputs: Sequence[torch.Tensor], addresses: Sequence[int], positions: Sequence[int], changed: bool = False
) -> Seen:
    """What the inputs at `positions` look like now; `addresses` are all inputs' `data_ptr()`s.

    changed: they looked otherwise before.

    Raises InputError for a weight whose storage has been shrunk or freed under it.
    """
    chosen = chooser(positions)
    weights, at = chosen(inputs), chosen(addresses)
    epoch, versions = _Epoch.value, _versions(weights) if torch.accelerator.is_available() else None
    ranges = [(address, _extent(w)) for address, w in zip(at, weights, strict=True)]
    watch = Watch(ranges, _SETTLING if changed else 0, torch.get_num_threads())
    storages = tuple(StorageWeakRef(w.untyped_storage()) for w in weights)
    return Seen(epoch, chosen, at, versions, watch, storages)


def _versions(weights: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """Version counters; inference tensors have none."""
    try:
        return tuple([w._version for w in weights])
    except RuntimeError:
        return tuple([0 if w.is_inference() else w._version for w in weights])


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
