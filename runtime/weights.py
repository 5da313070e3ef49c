"""Knowing when weights changed, so that what was computed from them is computed again.

A weight counts as changed when its address, its version counter or a sample of its bytes differs. Fused optimizers and
writes through `.data` do not move the version counter: an optimizer hook and the sample are for them. A write through
`.data` of a few elements can slip through the sample; `effcc.invalidate(model)` is for that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

SAMPLES = 8
"""Elements of a weight that are looked at at each call, spread over it: more would cost as much as small models."""

SAMPLER = """
// Mixes %(samples)d words of each of n arrays, evenly spread, into one number.
extern "C" unsigned long long effcc_sample(void** arrays, const long long* bytes, long long n) {
  unsigned long long mixed = 1469598103934665603ull;
  for (long long a = 0; a < n; ++a) {
    const unsigned char* begin = static_cast<const unsigned char*>(arrays[a]);
    const long long words = bytes[a] / 4;
    const long long step = words / %(samples)d > 0 ? words / %(samples)d : 1;
    for (long long w = 0; w < words; w += step) {
      unsigned value;
      __builtin_memcpy(&value, begin + 4 * w, 4);
      mixed = (mixed ^ value) * 1099511628211ull;
    }
  }
  return mixed;
}
"""


class _Epoch:
    """Counts what may have changed any weight without a trace: optimizer steps, and calls of `invalidate`."""

    value = 0


def advance(*_: Any) -> None:
    """Make every prepared weight suspect."""
    _Epoch.value += 1


@cache
def watch_optimizers() -> None:
    """Register, once, a hook that runs after every optimizer step in this process."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(advance)


@cache
def _sampler() -> Any:
    from effcc.runtime.cache import CompileCache
    from effcc.target import generic

    library = CompileCache.default().load(SAMPLER % {"samples": SAMPLES}, generic("scalar"))
    arguments = [ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_longlong), ctypes.c_longlong]
    return library.function("effcc_sample", arguments, ctypes.c_ulonglong)


@dataclass(frozen=True)
class Seen:
    """What a list of weights looked like: addresses, version counters, extents in bytes, and a sample of the values."""

    epoch: int
    addresses: list[int]
    versions: list[int]
    pointers: Any
    extents: Any
    sample: int
    storages: tuple[StorageWeakRef, ...]

    def holds(self, weights: Sequence[torch.Tensor], addresses: list[int]) -> bool:
        """Whether these are the same weights, with the values they had then as far as can be told cheaply.

        addresses: `data_ptr()` of each.
        """
        if self.epoch != _Epoch.value or self.addresses != addresses or self.versions != _versions(weights):
            return False
        return bool(_sampler()(self.pointers, self.extents, len(addresses)) == self.sample)

    def alive(self) -> bool:
        """Whether the memory of all of them is still theirs."""
        return not any(storage.expired() for storage in self.storages)


NOTHING = Seen(-1, [], [], None, None, 0, ())
"""What was seen where there are no weights to watch."""


def look(weights: Sequence[torch.Tensor], addresses: list[int]) -> Seen:
    """What the weights look like now; `addresses` are their `data_ptr()`s."""
    n = len(weights)
    pointers = (ctypes.c_void_p * n)(*addresses)
    extents = (ctypes.c_longlong * n)(*map(_extent, weights))
    sample = int(_sampler()(pointers, extents, n))
    storages = tuple(StorageWeakRef(w.untyped_storage()) for w in weights)
    return Seen(_Epoch.value, list(addresses), _versions(weights), pointers, extents, sample, storages)


def _versions(weights: Sequence[torch.Tensor]) -> list[int]:
    """Version counters; inference tensors have none, and count as never changed."""
    try:
        return [w._version for w in weights]
    except RuntimeError:
        return [0 if w.is_inference() else w._version for w in weights]


def _extent(weight: torch.Tensor) -> int:
    """Bytes from the first to past the last element."""
    if weight.numel() == 0:
        return 0
    last = sum((n - 1) * s for n, s in zip(weight.shape, weight.stride(), strict=True))
    return (last + 1) * weight.element_size()
