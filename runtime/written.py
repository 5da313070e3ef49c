"""Which pages of memory were written since one last asked, as Linux records it for a process (6.7 or later).

The kernel protects the pages that are tracked and lets a write through at once, after noting it: no signal, no handler,
and writes by the kernel itself (`read` into the memory) are noted too. Asking costs a look at a page table, 0.7 us and
1 to 2 ns a page of 4 KB. The first write to a page after one asked costs a few microseconds.

Who watches asks first whether any page was written at all, which changes nothing (`WrittenPages.turn`), and if so,
which: that protects the pages again, and is credited to all. `clearings` counts up before pages are protected again, so
that who finds nothing written, and then the number that it knows, has missed nothing.

What the record does not hold are writes that do not come by this process's own page tables: those by other mappings of
the same memory (shared memory, files), and those of devices into pinned pages. So only private memory is tracked; pages
that show a file are copied first, as a write to them would, since the file may change.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from effcc.errors import ToolchainError
from effcc.runtime.fork import Lock
from effcc.runtime.watch_library import NO_RANGES, Ranges, Turn, look, watch_library

CHUNK = 8 << 20
"""Bytes of address space that count as written together, where it is not known better."""
FEWEST_PAGES = 8
"""Ranges with fewer whole pages of their own often share the first and the last one with other things: not all of their
chunk is credited with what is written there, but each page."""

Kind = Literal["private", "file", "other"]


@dataclass(frozen=True)
class Mark:
    """How often each of some ranges, and anything at all, had been found written when one asked, and `clearings`."""

    total: int
    counts: tuple[int, ...]
    clearings: int = 0


@dataclass(frozen=True)
class Answer:
    """What may have been written since an earlier mark: the ranges' positions; lost: some can no longer be told."""

    mark: Mark
    suspects: tuple[int, ...] = ()
    lost: bool = False


class WrittenPages:
    """This process's record of written pages. Asking clears it, so that what one finds is credited to all who watch.

    Ranges are whole pages, each within one chunk of the address space. Threads may call at the same time.
    """

    def __init__(self) -> None:
        """Open the record, and try what is expected of it on a few pages.

        Raises ToolchainError where there is none: another system, an older kernel, or one that forbids it (as the
        sandboxes of some containers do).
        """
        self.clearings = 0
        self._native = watch_library()
        self._lock = Lock()
        self._found: Counter[int] = Counter()
        self._pages: defaultdict[int, Counter[int]] = defaultdict(Counter)  # those credited alone, by chunk
        self._total = 0
        files = (ctypes.c_int * 2)()
        own = ctypes.c_uint64()
        failed = self._native["open_written"](files, ctypes.byref(own))
        if failed:
            raise ToolchainError(f"Linux keeps no record of written pages here (userfaultfd: {os.strerror(failed)})")
        self._uffd, self._map = files
        self._own = own.value
        try:
            self._try()
        except ToolchainError:
            self.close()
            raise

    def close(self) -> None:
        """Close the record's files in this process."""
        os.close(self._uffd)
        os.close(self._map)

    def track(self, ranges: Ranges) -> list[bool]:
        """Begin to track the ranges; which of them can be. A write after what one reads of them now will be seen."""
        kinds = _kinds(ranges.pairs)
        tracked = [self._register(*pair, kind) for pair, kind in zip(ranges.pairs, kinds, strict=True)]
        known = Ranges([pair for pair, good in zip(ranges.pairs, tracked, strict=True) if good])
        with self._lock:
            states = iter(self._fetch(known) or [0] * len(known))
        return [good and next(states) >= 0 for good in tracked]

    def mark(self, ranges: Ranges) -> Mark:
        """How often the ranges were found written up to now."""
        with self._lock:
            return self._mark(ranges)

    def written_since(self, ranges: Ranges, mark: Mark) -> Answer:
        """What was written since the mark; a range is a suspect also where another in its chunk was written."""
        return self.look(ranges, mark, NO_RANGES, 1)[1]

    def look(self, ranges: Ranges, mark: Mark, compared: Ranges, threads: int) -> tuple[bytes, Answer]:
        """The digests of the ranges `compared`, on `threads` threads, and at the same time `written_since`."""
        with self._lock:
            self.clearings += 1
            digests, states = look(compared, threads, ranges, self._map, self._own)
            self._credited(ranges, states)
            return digests, self._answer(ranges, mark, states)

    def turn(self, ranges: Ranges, compared: Ranges, expected: bytes) -> Turn:
        """What asks in one turn whether none of the ranges was written since they were last protected, and digests are
        those expected."""
        joint = Ranges([(begin, end - begin) for begin, end in joined(ranges.pairs)])
        return Turn(compared, expected, joint, self._map, self._own)

    def settled(self, ranges: Ranges, mark: Mark, turn: Turn) -> Answer | None:
        """What was written since the mark as far as others found it; None where `turn` finds more."""
        with self._lock:
            return self._answer(ranges, mark, []) if turn.unchanged() else None

    def _answer(self, ranges: Ranges, mark: Mark, states: list[int]) -> Answer:
        if not states and self._total == mark.total:
            return Answer(mark if mark.clearings == self.clearings else replace(mark, clearings=self.clearings))
        new = self._mark(ranges)
        suspects = tuple(i for i, (a, b) in enumerate(zip(new.counts, mark.counts, strict=True)) if a != b)
        return Answer(new, suspects, any(state < 0 for state in states))

    def _mark(self, ranges: Ranges) -> Mark:
        return Mark(self._total, tuple(self._count(*pair) for pair in ranges.pairs), self.clearings)

    def _count(self, address: int, size: int) -> int:
        """How often the range was found written, or its chunk."""
        chunk, end = address // CHUNK, address + size
        alone = self._pages.get(chunk)
        pages = sum(n for page, n in alone.items() if address <= page < end) if alone else 0
        return self._found[chunk] + pages

    def _fetch(self, ranges: Ranges) -> list[int]:
        """For each range 0, 1 if it was written, less if that was lost; all of it credited. Empty if all are 0."""
        self.clearings += 1
        return self._credited(ranges, look(NO_RANGES, 1, ranges, self._map, self._own)[1])

    def _credited(self, ranges: Ranges, states: list[int]) -> list[int]:
        for (address, size), state in zip(ranges.pairs, states, strict=False):
            if state and size < (FEWEST_PAGES + 2) * mmap.PAGESIZE:
                self._pages[address // CHUNK].update(range(address, address + size, mmap.PAGESIZE))
            elif state:
                self._found[address // CHUNK] += 1
            self._total += bool(state)
        return states

    def _register(self, address: int, size: int, kind: Kind) -> bool:
        if kind == "other" or (kind == "file" and self._native["own_pages"](address, size)):
            return False
        return not self._native["register_written"](self._uffd, address, size)

    def _try(self) -> None:
        """Write to some memory in the ways that matter, and see whether the record tells.

        Raises ToolchainError naming what goes unseen.
        """
        page, huge = mmap.PAGESIZE, 2 << 20
        with mmap.mmap(-1, 3 * huge, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory, open("/dev/zero") as zeros:
            first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            start = -(-first // huge) * huge
            offset = start - first
            memory[offset : offset + page] = b"\1" * page
            memory[offset + huge : offset + huge + page] = b"\1" * page
            small, large = Ranges([(start, page)]), Ranges([(start + huge, huge)])
            if not (all(self.track(small)) and all(self.track(large)) and large.digests(1)):
                raise ToolchainError("Linux does not track writes to private memory here")
            self._fetch(large)  # pages that were never touched before count as written
            ways = {
                "nothing": (small, lambda: None),
                "a store": (small, lambda: memory.__setitem__(offset, 2)),
                "a second store": (small, lambda: memory.__setitem__(offset, 3)),
                "a read from a file": (small, lambda: os.readv(zeros.fileno(), [memoryview(memory)[offset:][:1]])),
                "a dropped page": (small, lambda: memory.madvise(mmap.MADV_DONTNEED, offset, page)),
                "a dropped range": (large, lambda: memory.madvise(mmap.MADV_DONTNEED, offset + huge, huge)),
            }  # fmt: skip
            for way, (ranges, write) in ways.items():
                write()
                told = [not self.turn(ranges, NO_RANGES, b"").unchanged(), self._fetch(ranges) == [1]]
                if told != [way != "nothing"] * 2:
                    raise ToolchainError(f"Linux's record of written pages is not right about {way} here")
                ranges.digests(1)
                self._fetch(ranges)


def written_pages() -> WrittenPages | None:
    """The record of this process, or None where there is none: `why_not` says why."""
    found = _opened(os.getpid())
    return found if isinstance(found, WrittenPages) else None


def why_not() -> str:
    """Why this process has no record of written pages; empty if it has."""
    found = _opened(os.getpid())
    return found if isinstance(found, str) else ""


@cache
def _opened(pid: int) -> WrittenPages | str:
    try:
        return WrittenPages()
    except ToolchainError as error:
        return str(error)


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Begin and end of what the ranges cover together, in order, without overlap."""
    found: list[tuple[int, int]] = []
    for begin, size in sorted(r for r in ranges if r[1]):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], begin + size))
        else:
            found.append((begin, begin + size))
    return found


def _kinds(pairs: Sequence[tuple[int, int]]) -> list[Kind]:
    """How the memory of each range is mapped: private to this process, private but showing a file, or otherwise."""
    areas = [_Area.parse(line) for line in Path("/proc/self/maps").read_text().splitlines()]
    begins = [area.begin for area in areas]
    kinds: list[Kind] = []
    for address, size in pairs:
        first = bisect.bisect_right(begins, address) - 1
        at, found = address, set[Kind]()
        for area in areas[max(first, 0) :]:
            if at >= address + size or not area.begin <= at < area.end:
                break
            at = area.end
            found.add(area.kind)
        if at < address + size or "other" in found:
            kinds.append("other")
        else:
            kinds.append("file" if "file" in found else "private")
    return kinds


@dataclass(frozen=True)
class _Area:
    """A line of /proc/self/maps."""

    begin: int
    end: int
    kind: Kind

    @staticmethod
    def parse(line: str) -> _Area:
        span, permissions, _, _, inode, *path = line.split(maxsplit=5)
        begin, end = (int(n, 16) for n in span.split("-"))
        kind: Kind = "private" if inode == "0" else "file"
        if permissions[3] != "p" or permissions[0] != "r" or (path and path[0].startswith(("/dev/", "/anon_huge"))):
            kind = "other"
        return _Area(begin, end, kind)
