"""Scratch memory and results that end at a page which nobody may touch, for programs that run as users run them.

Beyond what the runtime allocates lies other memory of the process, mostly: what is read or written there goes unseen,
or crashes later, somewhere else.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import effcc.runtime.arena
import effcc.runtime.arrays
import effcc.runtime.package
from effcc.fuzz.worker import mapped, unmap

_LINE = 64


@contextmanager
def guarded() -> Iterator[None]:
    """What the runtime allocates meanwhile ends, up to a cache line, where memory does."""
    with ExitStack() as stack:
        for module in (effcc.runtime.arrays, effcc.runtime.package):
            stack.enter_context(patch.object(module, "aligned", _bytes))
        stack.enter_context(patch.object(effcc.runtime.arena, "allocate", lambda size: torch.from_numpy(_bytes(size))))
        yield


def _bytes(size: int) -> np.ndarray[Any, Any]:
    held = -(-size // _LINE) * _LINE
    whole, begin = mapped(held)
    weakref.finalize(whole, unmap, begin, whole.size)
    whole[:] = 0xFF
    last = whole.size - held
    return whole[last : last + size]
