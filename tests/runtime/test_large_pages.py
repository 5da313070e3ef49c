"""Memory in large pages holds what it held, at the addresses it had, and is large where the system has such pages."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from effcc.runtime import large_pages
from effcc.runtime.large_pages import PAGE

LARGE = hasattr(mmap, "MADV_HUGEPAGE") and not large_pages._forbidden()
needs_large_pages = pytest.mark.skipif(not LARGE, reason="this system has no large pages")


def in_large_pages(address: int, size: int) -> int:
    """Bytes of large pages in the mappings that a range touches."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            start, end = (int(x, 16) for x in first.split("-"))
            inside = start < address + size and address < end
        elif inside and first == "AnonHugePages:":
            found += int(rest[0]) << 10
    return found


@pytest.mark.parametrize("size", [1, 4096, PAGE - 1, PAGE, 3 * PAGE + 5])
def test_allocated_memory_has_the_size_asked_for_and_begins_at_a_page(size: int) -> None:
    memory = large_pages.allocate(size)
    assert memory.nbytes == size
    assert not memory.any()
    assert memory.ctypes.data % (PAGE if size >= PAGE and LARGE else mmap.PAGESIZE) == 0
    memory[:] = 7
    assert int(memory.sum()) == 7 * size


@needs_large_pages
def test_allocated_memory_is_in_large_pages() -> None:
    memory = large_pages.allocate(8 * PAGE)
    memory[:] = 1
    assert in_large_pages(memory.ctypes.data, memory.nbytes) >= 4 * PAGE


def test_parts_of_a_block_are_aligned_and_apart() -> None:
    assert large_pages.places([1, 64, 0, 65]) == ([0, 64, 128, 128], 256)
    assert large_pages.places([]) == ([], 0)


def test_pages_that_ranges_fill_by_half_count_however_small_these_are_and_those_that_adjoin_are_one() -> None:
    eighths = [(7 * PAGE + i * PAGE // 8, PAGE // 8) for i in range(4)]
    ranges = [(PAGE // 2, PAGE), (3 * PAGE - 1, 2), (5 * PAGE, PAGE // 2 - 1), (9 * PAGE, 0), (12 * PAGE, 2 * PAGE)]
    assert large_pages._blocks(ranges + eighths) == [(0, 2 * PAGE), (7 * PAGE, 8 * PAGE), (12 * PAGE, 14 * PAGE)]
    assert large_pages._blocks(eighths[:3] * 2) == []


@needs_large_pages
def test_memory_in_use_moves_and_keeps_what_it_holds() -> None:
    memory = np.arange(4 * PAGE, dtype=np.int64)
    kept = memory.copy()
    address = memory.ctypes.data
    large_pages.gather([(address, memory.nbytes)])
    assert memory.ctypes.data == address
    np.testing.assert_array_equal(memory, kept)


def test_what_cannot_move_is_left_alone() -> None:
    with mmap.mmap(-1, 2 * PAGE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS) as shared:
        view = np.frombuffer(shared, np.uint8)
        view[:] = 3
        large_pages.gather([(view.ctypes.data, view.nbytes), (1 << 40, 10)])
        assert int(view.min()) == 3
        del view


@needs_large_pages
def test_a_page_that_cannot_move_does_not_keep_those_after_it() -> None:
    pages = mmap.mmap(-1, 6 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory = np.frombuffer(pages, np.uint8)
    start = -memory.ctypes.data % PAGE
    memory[:] = 1  # in small pages
    pages.madvise(mmap.MADV_NOHUGEPAGE, start, PAGE)
    address, size = memory.ctypes.data + start, 4 * PAGE
    large_pages.gather([(address, size)])
    assert in_large_pages(address, size) >= 2 * PAGE
    assert int(memory.min()) == 1


@needs_large_pages
def test_weights_that_are_read_where_they_are_come_to_lie_in_large_pages_and_may_still_change() -> None:
    torch.compiler.reset()  # a program that another test's model left has settled weights at that one's addresses
    model = torch.nn.Linear(4096, 4096).eval()  # 64 MB are a mapping of their own, and no piece of the heap
    address, size = model.weight.data_ptr(), model.weight.nbytes
    x = torch.randn(1, 4096)
    with torch.no_grad():
        compiled = torch.compile(model, backend="effcc")
        torch.testing.assert_close(compiled(x), model(x))
        assert model.weight.data_ptr() == address
        assert in_large_pages(address, size) >= 30 * PAGE
        model.weight.data.mul_(2)
        torch.testing.assert_close(compiled(x), model(x))
