"""Files of the compile cache: locks, reading what nobody else could have written, removing whatever stands there."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from effcc.runtime.trust import is_private_file


@dataclass(frozen=True)
class Locks:
    """Locks by name, in a folder; they keep apart threads and processes."""

    folder: Path

    @contextlib.contextmanager
    def held(self, name: str, patience: float) -> Iterator[None]:
        """Hold a lock. Raises filelock.Timeout if others hold it for longer than `patience` seconds."""
        with filelock.FileLock(self._file(name), timeout=patience):
            yield

    @contextlib.contextmanager
    def held_if_free(self, name: str) -> Iterator[bool]:
        """Hold a lock if nobody else does; tells whether."""
        lock = filelock.FileLock(self._file(name), timeout=0)
        try:
            lock.acquire()
        except (filelock.Timeout, PermissionError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _file(self, name: str) -> Path:
        file = self.folder / name
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(file).st_mode):
                discard(file)
        return file


def read_private(folder: int, name: str) -> bytes:
    """A file in an open folder. Raises OSError for what is no regular file, or that others could have written."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not is_private_file(os.fstat(descriptor)):
            raise PermissionError(f"{name} is no regular file of this user's alone")
        return file.read()


def discard(path: Path) -> None:
    """Remove a folder, or whatever stands in its place."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            path.chmod(0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
