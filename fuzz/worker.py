"""A process that runs compiled code for the fuzzer: where that crashes or hangs, only this process is lost.

Reads pickled requests (a library, and jobs for it) from standard input and writes one answer per job, its length and
its pickle, to standard output. Every buffer lies between two zones of bytes 0xFF, and begins as 0xFF itself where
nothing is given, so that reading what nobody wrote gives NaN or -1, and writing past an end shows.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from dataclasses import dataclass

import numpy as np

ZONE = 512  # bytes on each side
ALIGNMENT = 64
LENGTH = 8  # bytes before each answer that say how long it is


@dataclass(frozen=True)
class Job:
    """One program: its entry points in order, each buffer as its bytes or how many it has, and the arena's size."""

    entries: tuple[str, ...]
    buffers: tuple[bytes | int, ...]
    arena: int
    threads: int


@dataclass(frozen=True)
class Answer:
    """The buffers after the run, or what went wrong."""

    buffers: tuple[bytes, ...]
    problem: str = ""


class _Guarded:
    """Aligned bytes between two zones."""

    def __init__(self, content: bytes | int) -> None:
        self.size = content if isinstance(content, int) else len(content)
        padded = -(-self.size // ALIGNMENT) * ALIGNMENT
        raw = np.full(padded + 2 * ZONE + ALIGNMENT, 0xFF, np.uint8)
        self.start = ZONE + (-(raw.ctypes.data + ZONE)) % ALIGNMENT
        self.raw = raw
        if not isinstance(content, int):
            raw[self.start : self.start + self.size] = np.frombuffer(content, np.uint8)
        self.address = raw.ctypes.data + self.start

    def content(self) -> bytes:
        return self.raw[self.start : self.start + self.size].tobytes()

    def damage(self) -> str:
        """Where the zones were written, relative to the buffer; empty where they are whole."""
        outside = np.nonzero(self.raw != 0xFF)[0] - self.start
        hit = outside[(outside < 0) | (outside >= self.size)]
        return f"byte {int(hit[0])} of {self.size} written" if hit.size else ""


def run_job(library: ctypes.CDLL, job: Job) -> Answer:
    """Run a job's entry points on guarded buffers."""
    buffers = [_Guarded(b) for b in job.buffers]
    arena = _Guarded(job.arena)
    table = (ctypes.c_void_p * max(len(buffers), 1))(*(b.address for b in buffers))
    sizes = (ctypes.c_int64 * 1)()
    for name in job.entries:
        entry = getattr(library, name)
        entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        code = entry(table, sizes, arena.address, job.threads)
        if code:
            return Answer((), f"{name} returned {code}")
    for number, guarded in enumerate([*buffers, arena]):
        damage = guarded.damage()
        if damage:
            return Answer((), f"{'arena' if guarded is arena else f'buffer {number}'}: {damage}")
    return Answer(tuple(b.content() for b in buffers))


def main() -> None:
    """Answer requests until the input ends."""
    libraries: dict[str, ctypes.CDLL] = {}
    while True:
        try:
            path, jobs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        library = libraries.setdefault(path, ctypes.CDLL(path))
        for job in jobs:
            answer = pickle.dumps(run_job(library, job))
            sys.stdout.buffer.write(len(answer).to_bytes(LENGTH, "little") + answer)
            sys.stdout.buffer.flush()
