"""A process that runs compiled code for the fuzzer: where that hangs, only this process is lost.

Reads pickled requests (a library, and jobs for it) from standard input and writes one answer per job, its length and
its pickle, to standard output. Every buffer begins as bytes 0xFF where nothing is given, so that reading what nobody
wrote gives NaN or -1. It ends where a page ends behind which there is none, so that reading or writing past its end
is a crash, behind a zone of bytes 0xFF, so that writing before its start shows; or the other way round. The arena,
whose code may count on an aligned start, ends less than an alignment before the end of its pages.

Each job runs in a fork of the process, which is all that a crash ends. Under a sanitizer (the first argument is then
`exact`) the process itself runs it, whose last words are the sanitizer's, on allocations of exactly their size.
"""

from __future__ import annotations

import ctypes
import mmap
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from effcc.fuzz.isolation import forked

ZONE = 512  # bytes before a buffer, at least
PAGE = mmap.PAGESIZE
ALIGNMENT = 64
LENGTH = 8  # bytes before each answer that say how long it is


@dataclass(frozen=True)
class Again:
    """A second call of a program: its entry points, buffers (None: as the first call left it), arena and sizes."""

    entries: tuple[str, ...]
    buffers: tuple[bytes | int | None, ...]
    arena: int
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Job:
    """One program: its entry points in order, each buffer as its bytes or how many it has, and the arena's size.

    sizes: the values of the size symbols. kept: buffers that nobody may write. rehearsed: if there are any, everything
    runs twice, first with these weights as 0xFF (NaN): what is prepared from weights must follow when they change.
    again: what is called once more in the end. front: buffers begin where a page does, rather than end there.
    teams: other numbers of threads, with which everything must be the same bit by bit.
    """

    entries: tuple[str, ...]
    buffers: tuple[bytes | int, ...]
    arena: int
    threads: int
    sizes: tuple[int, ...] = ()
    kept: frozenset[int] = frozenset()
    rehearsed: frozenset[int] = frozenset()
    prepared: frozenset[int] = frozenset()
    again: Again | None = None
    front: bool = False
    teams: tuple[int, ...] = ()


_REFUSED = " returned "  # what a program's checks refuse, as they do numbers made of weights that are not there yet


@dataclass(frozen=True)
class Answer:
    """The buffers after the run and, where there was a second call, after that; or what went wrong."""

    buffers: tuple[bytes, ...]
    problem: str = ""
    again: tuple[bytes, ...] = ()


class _Memory:
    """Bytes at the end of their pages, behind a zone, or in `front` of one; an allocation of their own if `exact`."""

    def __init__(self, size: int, exact: bool, front: bool, aligned: bool = False) -> None:
        self.size = size
        self.exact = exact
        if exact:
            self.raw, begin = _allocated(size)
            self.start = 0
        else:
            self.raw, begin = mapped(ZONE + size + ALIGNMENT)
            last = self.raw.size - size
            self.start = 0 if front else last // ALIGNMENT * ALIGNMENT if aligned else last
        self.raw[:] = 0xFF
        self.address = begin + self.start

    def fill(self, content: bytes | int) -> None:
        """Take what is given; 0xFF where nothing is."""
        held = 0xFF if isinstance(content, int) else np.frombuffer(content, np.uint8)
        self.raw[self.start : self.start + self.size] = held

    def content(self) -> bytes:
        return self.raw[self.start : self.start + self.size].tobytes()

    def free(self) -> None:
        begin = self.address - self.start
        if self.exact:
            _LIBC.free(begin)
        else:
            unmap(begin, self.raw.size)

    def damage(self) -> str:
        """Where the zones were written, relative to the buffer; empty where they are whole."""
        outside = np.nonzero(self.raw != 0xFF)[0] - self.start
        hit = outside[(outside < 0) | (outside >= self.size)]
        return f"byte {int(hit[0])} of {self.size} written" if hit.size else ""


_LIBC = ctypes.CDLL(None)
_LIBC.free.argtypes = [ctypes.c_void_p]
_LIBC.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_NO_ACCESS = 0
_NO_MEMORY = ctypes.c_void_p(-1).value


def _allocated(size: int) -> tuple[np.ndarray, int]:
    """Bytes at an aligned address, with the address; the caller frees it."""
    address = ctypes.c_void_p()
    if _LIBC.posix_memalign(ctypes.byref(address), ALIGNMENT, max(size, 1)) or address.value is None:
        raise MemoryError(f"{size} bytes for a buffer")
    bytes_there = (ctypes.c_uint8 * size).from_address(address.value)
    return np.ctypeslib.as_array(bytes_there) if size else np.empty(0, np.uint8), address.value


def mapped(size: int) -> tuple[np.ndarray, int]:
    """Whole pages of at least `size` bytes between two that nobody may touch, and their address; all are unmapped."""
    held = -(-size // PAGE) * PAGE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    begin = _LIBC.mmap(None, held + 2 * PAGE, _NO_ACCESS, flags, -1, 0)
    if begin == _NO_MEMORY or _LIBC.mprotect(begin + PAGE, held, mmap.PROT_READ | mmap.PROT_WRITE):
        raise MemoryError(f"{size} bytes for a buffer")
    return np.ctypeslib.as_array((ctypes.c_uint8 * held).from_address(begin + PAGE)), begin + PAGE


def unmap(begin: int, size: int) -> None:
    """Give back what `mapped` gave: pages of so many bytes from this address on."""
    _LIBC.munmap(begin - PAGE, size + 2 * PAGE)


def run_job(library: ctypes.CDLL, job: Job, exact: bool = False) -> Answer:
    """Run a job's entry points on memory of their own."""
    buffers = [_Memory(_length(b), exact, job.front) for b in job.buffers]
    arena = _Memory(job.arena, exact, job.front, aligned=True)
    try:
        for rehearsal in (True, False) if job.rehearsed else (False,):
            _fill(job, buffers, arena, rehearsal)
            problem = _called(library, job, job.entries, job.sizes, buffers, arena)
            if problem and not (rehearsal and _REFUSED in problem):
                return Answer((), problem)
        found = tuple(b.content() for b in buffers)
        for threads in job.teams:
            _fill(job, buffers, arena, False)
            problem = _called(library, replace(job, threads=threads), job.entries, job.sizes, buffers, arena)
            problem = problem or _unlike(buffers, found)
            if problem:
                return Answer((), f"with {threads} threads after {job.threads}: {problem}")
        if job.again is None:
            return Answer(found)
        problem, again = _run_again(library, job, job.again, buffers, exact)
        return Answer(found, problem, again)
    finally:
        for memory in (*buffers, arena):
            memory.free()


def _unlike(buffers: Sequence[_Memory], found: Sequence[bytes]) -> str:
    """The first buffer that holds something else; empty where none does."""
    other = [k for k, (b, held) in enumerate(zip(buffers, found, strict=True)) if b.content() != held]
    return f"buffer {other[0]} differs" if other else ""


def _run_again(
    library: ctypes.CDLL, job: Job, again: Again, before: Sequence[_Memory], exact: bool
) -> tuple[str, tuple[bytes, ...]]:
    """The second call: what went wrong, and the buffers after it."""
    fresh = [None if b is None else _Memory(_length(b), exact, job.front) for b in again.buffers]
    arena = _Memory(again.arena, exact, job.front, aligned=True)
    try:
        for memory, given in zip(fresh, again.buffers, strict=True):
            if memory is not None and given is not None:
                memory.fill(given)
        buffers = [old if new is None else new for old, new in zip(before, fresh, strict=True)]
        problem = _called(library, job, again.entries, again.sizes, buffers, arena)
        return problem and f"in a second call: {problem}", tuple(b.content() for b in buffers)
    finally:
        for memory in (*(m for m in fresh if m is not None), arena):
            memory.free()


def _length(given: bytes | int) -> int:
    return given if isinstance(given, int) else len(given)


def _fill(job: Job, buffers: Sequence[_Memory], arena: _Memory, rehearsal: bool) -> None:
    """What every buffer holds before a run; what was prepared in a rehearsal stays, and is to be prepared anew."""
    for number, (memory, given) in enumerate(zip(buffers, job.buffers, strict=True)):
        if rehearsal or number not in job.prepared:
            memory.fill(memory.size if rehearsal and number in job.rehearsed else given)
    arena.fill(arena.size)


def _called(
    library: ctypes.CDLL,
    job: Job,
    entries: Sequence[str],
    sizes: Sequence[int],
    buffers: Sequence[_Memory],
    arena: _Memory,
) -> str:
    """Call the entry points; what was written that must not be."""
    before = {k: buffers[k].content() for k in job.kept}
    table = (ctypes.c_void_p * max(len(buffers), 1))(*(b.address for b in buffers))
    numbers = (ctypes.c_int64 * max(len(sizes), 1))(*sizes)
    refused = ""
    for name in entries:
        entry = getattr(library, name)
        entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
        code = entry(table, numbers, arena.address, job.threads, None)
        if code:
            refused = f"{name}{_REFUSED}{code}"
            break
    for number, memory in enumerate([*buffers, arena]):
        damage = memory.damage()
        if damage:
            return f"{'arena' if memory is arena else f'buffer {number}'}: {damage}"
    changed = [k for k, content in before.items() if buffers[k].content() != content]
    return f"buffer {min(changed)}, an input that is only read, was changed" if changed else refused


def _isolated(library: ctypes.CDLL, job: Job) -> Answer:
    """A job's answer, from a process of its own: the next job need not wait until this one has started anew."""
    found = forked(lambda: run_job(library, job))
    return Answer((), found) if isinstance(found, str) else found


def main() -> None:
    """Answer requests until the input ends."""
    libraries: dict[str, ctypes.CDLL] = {}
    exact = sys.argv[1:] == ["exact"]
    while True:
        try:
            path, jobs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        library = libraries.setdefault(path, ctypes.CDLL(path))
        for job in jobs:
            answer = pickle.dumps(run_job(library, job, exact) if exact else _isolated(library, job))
            sys.stdout.buffer.write(len(answer).to_bytes(LENGTH, "little") + answer)
            sys.stdout.buffer.flush()
