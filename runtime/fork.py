"""Processes that were forked while OpenMP had threads: its pool does not survive, and waiting for it would never end.

A library that was loaded before the fork knows by itself (`effcc/threads.h`). One that is loaded in the child cannot,
so how many threads run a call is asked here.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

_orphaned = False
"""Whether this process is the fork of one whose threads it does not have."""


def usable_threads(wanted: int) -> int:
    """How many threads an OpenMP region may ask for in this process: all that are wanted, or one."""
    return 1 if _orphaned else wanted


def _look() -> None:
    global _orphaned
    _orphaned = _orphaned or _is_fork_of_threads()


def _is_fork_of_threads() -> bool:
    """Whether the parent runs the program that this process began as a copy of, and has threads of its own.

    Where a program lies in memory is drawn when it starts, so that only a fork lies where its parent does. What cannot
    be read counts as no: a parent that has ended or belongs to somebody else.
    """
    parent = Path(f"/proc/{os.getppid()}")
    try:
        is_fork = Path("/proc/self/auxv").read_bytes() == (parent / "auxv").read_bytes()
        return is_fork and len(os.listdir(parent / "task")) > 1
    except OSError:
        return False


class Lock:
    """A lock that a forked child finds open: whichever thread held it, the child does not have it."""

    def __init__(self) -> None:
        self._inner = threading.Lock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._inner.acquire()

    def __exit__(self, *_: object) -> None:
        self._inner.release()

    def open(self) -> None:
        """Open it, whoever holds it."""
        self._inner = threading.Lock()


class Slots:
    """So many threads at a time, the others wait. A forked child finds all slots free."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.open()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._inner.acquire()

    def __exit__(self, *_: object) -> None:
        self._inner.release()

    def open(self) -> None:
        """Free all of them, whoever holds one."""
        self._inner = threading.Semaphore(self._count)


_LOCKS: weakref.WeakSet[Lock | Slots] = weakref.WeakSet()


def _begin_child() -> None:
    _look()
    for lock in list(_LOCKS):
        lock.open()


_look()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)
