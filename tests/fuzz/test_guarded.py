"""What the runtime allocates in deployed programs ends where memory does."""

from __future__ import annotations

import ctypes

from effcc.fuzz.guarded import guarded
from effcc.fuzz.isolation import forked
from effcc.runtime import arrays
from effcc.runtime.arena import ArenaPool


def _write(address: int) -> bool:
    ctypes.c_uint8.from_address(address).value = 1
    return True


def test_a_byte_beyond_scratch_memory_cannot_be_written() -> None:
    with guarded():
        scratch, arena = arrays.aligned(640), ArenaPool().take(128)
    ends = scratch.ctypes.data + 640, arena.data_ptr() + 128
    assert all(end % 4096 == 0 for end in ends)
    for end in ends:
        assert forked(lambda end=end: _write(end - 1)) is True  # type: ignore[misc]
        assert isinstance(forked(lambda end=end: _write(end)), str)  # type: ignore[misc]
