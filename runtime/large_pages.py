"""Memory in large pages, for what calls read from end to end: weights, and what was computed from them.

In pages of 4 KB a core looks an address up for every 64 cache lines, and hardware does not look ahead beyond them: two
cores that stream weights read a third more a second from pages of 2 MB. A system that has none to give is asked in
vain: memory is then what it was, nothing but slower.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np

PAGE = 2 << 20
"""Bytes of a large page, where x86 and ARM have pages of 4 KB."""
_COLLAPSE = 25
"""`MADV_COLLAPSE` of Linux 6.1, which Python's mmap does not name."""


def allocate(size: int) -> np.ndarray:
    """That many bytes of zeros at the start of a page, in large pages where they fill one. Raises MemoryError."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if size < PAGE or advice is None or _forbidden():
        memory = np.zeros(size + mmap.PAGESIZE, np.uint8)
        start = -memory.ctypes.data % mmap.PAGESIZE
        return memory[start : start + size]
    try:
        pages = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size} bytes of memory: {error}") from None
    with contextlib.suppress(OSError):  # a kernel without them
        pages.madvise(advice)
    memory = np.frombuffer(pages, np.uint8)
    start = -memory.ctypes.data % PAGE
    return memory[start : start + size]


def places(sizes: Iterable[int], alignment: int = 64) -> tuple[list[int], int]:
    """Where parts of these sizes begin in one block, each at a multiple of `alignment`, and the size of the block."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // alignment) * alignment
    return starts, end


def gather(ranges: Iterable[tuple[int, int]]) -> None:
    """Move memory that is in use into large pages, as far as the system lets it; `ranges` are addresses and bytes.

    Large pages are taken where the ranges, however small each is, fill at least a half of one. Contents and addresses
    stay what they are. It takes some 0.3 s for each GB, once.
    """
    madvise = _madvise()
    if madvise is None or _forbidden():
        return
    for start, end in _blocks(ranges):
        if madvise(start, end - start, _COLLAPSE) != 0:
            # The first page that cannot be moved ends the call: one at an end of the block may be another mapping's.
            for page in range(start, end, PAGE):
                madvise(page, PAGE, _COLLAPSE)  # an advice: where it fails, nothing has changed


def _blocks(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The large pages of which ranges fill at least a half (overlaps count twice, equal ranges once); those that adjoin
    in one."""
    filled: Counter[int] = Counter()
    for address, size in {*ranges}:
        end = address + size
        for page in range(address // PAGE, -(-end // PAGE)):
            filled[page] += min(end, (page + 1) * PAGE) - max(address, page * PAGE)
    found: list[tuple[int, int]] = []
    for page in sorted(page for page, size in filled.items() if 2 * size >= PAGE):
        if found and page * PAGE == found[-1][1]:
            found[-1] = found[-1][0], (page + 1) * PAGE
        else:
            found.append((page * PAGE, (page + 1) * PAGE))
    return found


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The system's call, on Linux."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return lambda address, size, advice: int(call(address, size, advice))


@cache
def _forbidden() -> bool:
    """Whether this machine's owner has switched large pages off."""
    try:
        return "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return False
