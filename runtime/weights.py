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

SAMPLES = 16

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
class _Seen:
    epoch: int
    marks: tuple[tuple[int, int], ...]
    sample: int


class WeightWatch:
    """Remembers a list of weight tensors as last seen."""

    def __init__(self) -> None:
        watch_optimizers()
        self._seen: _Seen | None = None
        self._pointers: Any = None
        self._sizes: Any = None

    def unchanged(self, weights: Sequence[torch.Tensor]) -> bool:
        """Whether these are the weights remembered, with the values they had then as far as can be told cheaply."""
        seen = self._seen
        if seen is None or seen.epoch != _Epoch.value or seen.marks != _marks(weights):
            return False
        return bool(_sampler()(self._pointers, self._sizes, len(weights)) == seen.sample)

    def remember(self, weights: Sequence[torch.Tensor]) -> None:
        """Take the weights as they are now."""
        n = len(weights)
        self._pointers = (ctypes.c_void_p * n)(*(w.data_ptr() for w in weights))
        self._sizes = (ctypes.c_longlong * n)(*(w.untyped_storage().nbytes() - w.storage_offset() * w.element_size() for w in weights))
        sample = int(_sampler()(self._pointers, self._sizes, n))
        self._seen = _Seen(_Epoch.value, _marks(weights), sample)

    def forget(self) -> None:
        self._seen = None


def _marks(weights: Sequence[torch.Tensor]) -> tuple[tuple[int, int], ...]:
    return tuple((w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights)
