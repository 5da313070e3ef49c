"""A watch sees every change of the bytes it is over, and nothing else."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effcc.errors import ToolchainError, UnknownNameError
from effcc.runtime import watch as watching
from effcc.runtime.watch import METHODS, Watch, method
from effcc.runtime.watch_library import Ranges
from effcc.runtime.written import CHUNK, WrittenPages, why_not

PAGE = mmap.PAGESIZE

needs_pages = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(params=METHODS)
def each_method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "pages" and why_not():
        pytest.skip(why_not())
    monkeypatch.setenv("EFFCC_WATCH", request.param)
    yield request.param


def over(*arrays: Any, **options: Any) -> Watch:
    return Watch([(a.ctypes.data, a.nbytes) for a in arrays], **options)


def zeros(size: int) -> Any:
    """That many bytes, not at the beginning of a page."""
    return np.zeros(size + 40, np.uint8)[40:]


@pytest.mark.parametrize("size", [1, 3, 127, 128, 2047, 2048, 2049, 5000, 40 * PAGE + 17, 9 << 20])
def test_any_flipped_bit_is_seen_and_then_it_is_the_new_state(each_method: str, size: int) -> None:
    data, draw = zeros(size), np.random.default_rng(size)
    for at in {0, size - 1, size // 2, *draw.integers(size, size=12).tolist()}:
        watch = over(data)
        assert watch.unchanged() and watch.unchanged()
        data[at] ^= 1 << int(draw.integers(8))
        assert not watch.unchanged()
        assert over(data).unchanged()


def test_bytes_around_and_the_same_bytes_again_are_no_change(each_method: str) -> None:
    data = np.arange(64 * PAGE, dtype=np.uint8)
    watch = over(data[1000:-1000])
    data[:1000], data[-1000:] = 1, 2
    assert watch.unchanged()
    data[5 * PAGE : 6 * PAGE] = data[5 * PAGE : 6 * PAGE].copy()
    assert watch.unchanged() and watch.unchanged()
    data[5 * PAGE + 1] ^= 1
    assert not watch.unchanged()


def test_moved_and_exchanged_values_are_seen(each_method: str) -> None:
    draw = np.random.default_rng(0)
    data = draw.standard_normal(100_000).astype(np.float32)
    for write in (
        np.ndarray.sort,
        draw.shuffle,
        lambda d: d.__imul__(-1),
        lambda d: d.__setitem__([3, 77], d[[77, 3]]),
    ):
        watch = over(data)
        write(data)
        assert not watch.unchanged()


@needs_pages
def test_watches_over_the_same_pages_do_not_take_writes_from_each_other() -> None:
    data = zeros(32 * PAGE)
    several = [over(data), over(data[PAGE:]), over(data[: 20 * PAGE]), over(data, data[5:])]
    data[10 * PAGE] = 1
    assert [w.unchanged() for w in several] == [False] * 4
    assert [w.unchanged() for w in several] == [False] * 4
    data[10 * PAGE] = 0
    assert [w.unchanged() for w in several] == [True] * 4
    assert over(data).unchanged()
    data[11 * PAGE] = 1
    late = over(data)
    assert [w.unchanged() for w in several] == [False] * 4 and late.unchanged()


@needs_pages
def test_a_write_between_two_looks_counts_even_if_undone() -> None:
    data = zeros(32 * PAGE)
    watch = over(data)
    assert watch.untouched()
    data[9 * PAGE] = 1
    data[9 * PAGE] = 0
    assert not watch.untouched()
    assert watch.unchanged()


@needs_pages
def test_a_write_that_another_watch_found_first_is_seen_without_asking_the_kernel_again() -> None:
    data = zeros(32 * PAGE)
    first, second = over(data), over(data)
    assert first.unchanged() and second.unchanged()
    data[9 * PAGE] = 1
    assert not first.unchanged()
    record = second._state.pages
    assert record is not None and second._state.turn is not None and second._state.turn.unchanged()
    assert not second.unchanged()
    data[9 * PAGE] = 0
    assert second.unchanged() and first.unchanged()
    before = record.clearings
    assert all(w.unchanged() for w in (first, second, first, second)) and record.clearings == before


@needs_pages
def test_pieces_of_pages_where_other_things_are_written_are_compared_in_the_end() -> None:
    data = np.zeros(40 * PAGE, np.uint8)
    start = -data.ctypes.data % PAGE
    watch = over(data[start + 100 : start + 32 * PAGE + 100])
    whole = {(data.ctypes.data + start + PAGE, 31 * PAGE)}
    ends = {(data.ctypes.data + start + 100, PAGE - 100), (data.ctypes.data + start + 32 * PAGE, 100)}
    assert set(watch._state.inside.pairs) == whole | ends
    for value in range(1, 5):
        data[start + 99] = data[start + 32 * PAGE + 100] = value
        assert watch.untouched() and watch.unchanged()
    assert set(watch._state.inside.pairs) == whole and set(watch._state.compared.pairs) == ends
    for at in (100, PAGE - 1, PAGE, 32 * PAGE - 1, 32 * PAGE, 32 * PAGE + 99):
        data[start + at] ^= 1
        assert not watch.unchanged()
        data[start + at] ^= 1
        assert watch.unchanged()


@needs_pages
def test_what_is_written_beside_a_piece_of_nine_pages_is_not_taken_for_a_write_to_its_neighbours() -> None:
    """Seven pages are its own, and it shares the first and the last: once all others in 8 MB counted as written."""
    data = np.zeros(80 * PAGE, np.uint8)
    start = -data.ctypes.data % PAGE
    if (data.ctypes.data + start) % CHUNK > CHUNK - 40 * PAGE:  # all of it in one chunk
        start += 40 * PAGE
    large, beside = data[start : start + 16 * PAGE], data[start + 17 * PAGE - 100 : start + 24 * PAGE + 100]
    watch = over(large, beside)
    assert (beside.ctypes.data, beside.nbytes) in watch._state.inside.pairs
    data[start + 16 * PAGE + 10] = 1
    assert watch.untouched() and watch.unchanged()
    large[0] = 1
    assert not watch.untouched() and not watch.unchanged()


@needs_pages
def test_shared_memory_is_compared_and_private_memory_tracked(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(32 * PAGE))
    with (tmp_path / "file").open("r+b") as file:
        private = mmap.mmap(-1, 32 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        shared = mmap.mmap(-1, 32 * PAGE)
        of_file = mmap.mmap(file.fileno(), 32 * PAGE, flags=mmap.MAP_PRIVATE)
        file_shared = mmap.mmap(file.fileno(), 32 * PAGE)
        read_only = mmap.mmap(file.fileno(), 32 * PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    maps = [np.frombuffer(m, np.uint8) for m in (private, shared, of_file, file_shared, read_only)]
    assert [over(m).tracks for m in maps] == [True, False, True, False, False]
    watches = [over(m) for m in maps]
    (tmp_path / "file").open("r+b").write(b"\1" * 32 * PAGE)
    shared[7] = 1
    # The private mapping of the file had its pages copied, and shows what it showed.
    assert [w.unchanged() for w in watches] == [True, False, True, False, not maps[4][0]]
    assert maps[2].sum() == 0


@needs_pages
def test_pages_that_go_or_are_mapped_anew_are_seen() -> None:
    libc = ctypes.CDLL(None)
    for size in (1, 32, 1536):
        memory = mmap.mmap(-1, 1600 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        data = np.frombuffer(memory, np.uint8)
        data[:] = 1
        watch = over(data)
        assert watch.unchanged()
        memory.madvise(mmap.MADV_DONTNEED, 16 * PAGE, size * PAGE)
        assert not watch.unchanged()
        watch = over(data)
        libc.mremap.restype = ctypes.c_void_p
        spare = mmap.mmap(-1, 32 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        source, target = np.frombuffer(spare, np.uint8).ctypes.data, data.ctypes.data + 600 * PAGE
        np.frombuffer(spare, np.uint8)[:] = 9
        how = 1 | 2 | 4  # it may move, to the target, and leaves the source mapped, which `spare` still owns
        moved = libc.mremap(
            ctypes.c_void_p(source), ctypes.c_size_t(PAGE), ctypes.c_size_t(PAGE), how, ctypes.c_void_p(target)
        )
        assert moved == target and data[600 * PAGE] == 9
        assert not watch.unchanged()


@needs_pages
def test_a_fork_watches_for_itself() -> None:
    data = zeros(64 * PAGE)
    watch = over(data)
    assert watch.unchanged()
    child = os.fork()
    if not child:
        good = watch.unchanged() and watch.unchanged() and watch.tracks
        data[20 * PAGE] = 1
        good = good and not watch.unchanged() and over(data).unchanged()
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert watch.unchanged()
    data[21 * PAGE] = 1
    assert not watch.unchanged()


@needs_pages
def test_what_changed_is_compared_until_it_settles() -> None:
    data = zeros(64 * PAGE)
    watch = over(data, settling=2)
    assert not watch.tracks
    assert watch.unchanged() and watch.unchanged() and watch.tracks
    data[30 * PAGE] = 1
    assert not watch.unchanged()


def test_threads_that_ask_all_see_a_write(each_method: str) -> None:
    data = zeros(64 * PAGE)
    with ThreadPoolExecutor(8) as pool:
        for value in range(1, 30):
            watches = [over(data), over(data[PAGE // 2 :])]
            data[40 * PAGE] = value
            assert not any(pool.map(Watch.unchanged, watches * 4))


@needs_pages
def test_a_record_that_does_not_tell_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = WrittenPages._fetch
    monkeypatch.setattr(WrittenPages, "_fetch", lambda self, ranges: fetch(self, ranges) and [])
    with pytest.raises(ToolchainError, match="record of written pages is not right about a store"):
        WrittenPages()


def test_the_method_is_one_of_two_and_pages_are_not_promised_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EFFCC_WATCH", "pgaes")
    with pytest.raises(UnknownNameError, match="did you mean 'pages'"):
        method()
    monkeypatch.setattr(watching, "why_not", lambda: "Linux is too old here")
    monkeypatch.setenv("EFFCC_WATCH", "pages")
    with pytest.raises(ToolchainError, match="Linux is too old here"):
        method()
    monkeypatch.delenv("EFFCC_WATCH")
    assert method() == ("checksum", "Linux is too old here")


def test_digests_are_the_same_in_every_way_of_computing_them() -> None:
    data = np.random.default_rng(1).integers(256, size=3 << 20, dtype=np.uint8)
    ranges = Ranges([(data.ctypes.data + i, 99_001) for i in range(20)])
    one = ranges.digests(1)
    assert one == ranges.digests(2) == b"".join(Ranges([pair]).digests(1) for pair in ranges.pairs)
    assert len({one[i : i + 16] for i in range(0, len(one), 16)}) == 20


def test_importing_compiles_nothing() -> None:
    code = (
        "import effcc.runtime.weights, effcc.runtime.watch_library as l; print(l.watch_library.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
