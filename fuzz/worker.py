"""A process that runs compiled code for the fuzzer: where that crashes or hangs, only this process is lost.

Reads pickled requests (a library, and jobs for it) from standard input and writes one answer per job, its length and
its pickle, to standard output. Every buffer lies between two zones of bytes 0xFF, and begins as 0xFF itself where
nothing is given, so that reading what nobody wrote gives NaN or -1, and writing past an end shows.

Under a sanitizer (the first argument is then `exact`) buffers are allocations of exactly their size instead, so that
reading past an end shows too.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ZONE = 512  # bytes on each side
ALIGNMENT = 64
LENGTH = 8  # bytes before each answer that say how long it is


@dataclass(frozen=True)
class Job:
    """One program: its entry points in order, each buffer as its bytes or how many it has, and the arena's size.

    sizes: the values of the size symbols. kept: buffers that nobody may write. rehearsed: if there are any, everything
    runs twice, first with these weights as 0xFF (NaN): what is prepared from weights must follow when they change.
    continued: entry points to call once more in the end, on inputs as the first call left them.
    """

    entries: tuple[str, ...]
    buffers: tuple[bytes | int, ...]
    arena: int
    threads: int
    sizes: tuple[int, ...] = ()
    kept: frozenset[int] = frozenset()
    rehearsed: frozenset[int] = frozenset()
    prepared: frozenset[int] = frozenset()
    continued: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The buffers after the run and, where it was continued, after that; or what went wrong."""

    buffers: tuple[bytes, ...]
    problem: str = ""
    continued: tuple[bytes, ...] = ()


class _Memory:
    """Aligned bytes: between two zones, or an allocation of their own if `exact`."""

    def __init__(self, size: int, exact: bool) -> None:
        self.size = size
        before = 0 if exact else ZONE
        padded = -(-size // ALIGNMENT) * ALIGNMENT
        self.raw, self.address = _allocated(size if exact else padded + 2 * ZONE)
        self.raw[:] = 0xFF
        self.start = before
        self.address += before

    def fill(self, content: bytes | int) -> None:
        """Take what is given; 0xFF where nothing is."""
        held = 0xFF if isinstance(content, int) else np.frombuffer(content, np.uint8)
        self.raw[self.start : self.start + self.size] = held

    def content(self) -> bytes:
        return self.raw[self.start : self.start + self.size].tobytes()

    def damage(self) -> str:
        """Where the zones were written, relative to the buffer; empty where they are whole."""
        outside = np.nonzero(self.raw != 0xFF)[0] - self.start
        hit = outside[(outside < 0) | (outside >= self.size)]
        return f"byte {int(hit[0])} of {self.size} written" if hit.size else ""


_LIBC = ctypes.CDLL(None)
_LIBC.free.argtypes = [ctypes.c_void_p]
_LIBC.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]


def _allocated(size: int) -> tuple[np.ndarray, int]:
    """Bytes at an aligned address, with the address; the caller frees it."""
    address = ctypes.c_void_p()
    if _LIBC.posix_memalign(ctypes.byref(address), ALIGNMENT, max(size, 1)) or address.value is None:
        raise MemoryError(f"{size} bytes for a buffer")
    bytes_there = (ctypes.c_uint8 * size).from_address(address.value)
    return np.ctypeslib.as_array(bytes_there) if size else np.empty(0, np.uint8), address.value


def run_job(library: ctypes.CDLL, job: Job, exact: bool = False) -> Answer:
    """Run a job's entry points on memory of their own."""
    sizes = [b if isinstance(b, int) else len(b) for b in job.buffers]
    buffers = [_Memory(n, exact) for n in sizes]
    arena = _Memory(job.arena, exact)
    problem = ""
    try:
        for rehearsal in (True, False) if job.rehearsed else (False,):
            _fill(job, buffers, arena, rehearsal)
            problem = _called(library, job, job.entries, buffers, arena)
            if problem:
                return Answer((), problem)
        found = tuple(b.content() for b in buffers)
        if job.continued:
            arena.fill(arena.size)
            problem = _called(library, job, job.continued, buffers, arena)
        return Answer(found, problem, tuple(b.content() for b in buffers) if job.continued else ())
    finally:
        for memory in (*buffers, arena):
            _LIBC.free(memory.address - memory.start)


def _fill(job: Job, buffers: Sequence[_Memory], arena: _Memory, rehearsal: bool) -> None:
    """What every buffer holds before a run; what was prepared in a rehearsal stays, and is to be prepared anew."""
    for number, (memory, given) in enumerate(zip(buffers, job.buffers, strict=True)):
        if rehearsal or number not in job.prepared:
            memory.fill(memory.size if rehearsal and number in job.rehearsed else given)
    arena.fill(arena.size)


def _called(library: ctypes.CDLL, job: Job, entries: Sequence[str], buffers: Sequence[_Memory], arena: _Memory) -> str:
    """Call the entry points; what was written that must not be."""
    before = {k: buffers[k].content() for k in job.kept}
    table = (ctypes.c_void_p * max(len(buffers), 1))(*(b.address for b in buffers))
    sizes = (ctypes.c_int64 * max(len(job.sizes), 1))(*job.sizes)
    for name in entries:
        entry = getattr(library, name)
        entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        code = entry(table, sizes, arena.address, job.threads)
        if code:
            return f"{name} returned {code}"
    for number, memory in enumerate([*buffers, arena]):
        damage = memory.damage()
        if damage:
            return f"{'arena' if memory is arena else f'buffer {number}'}: {damage}"
    changed = [k for k, content in before.items() if buffers[k].content() != content]
    return f"buffer {min(changed)}, an input that is only read, was changed" if changed else ""


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
            answer = pickle.dumps(run_job(library, job, exact))
            sys.stdout.buffer.write(len(answer).to_bytes(LENGTH, "little") + answer)
            sys.stdout.buffer.flush()
