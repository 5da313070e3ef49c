"""Files of one part of the compile cache, each under the digest of what decides its content: objects, programs.

A file is `<part>/<key>`: a line with the SHA-256 of the rest, and the rest. It is written aside and renamed, and
checked whenever it is read: one that is damaged, or that others could have written, counts as absent. It is not flushed
to disk, as libraries are: what a power cut leaves of it is seen by its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from effcc.errors import CacheError
from effcc.runtime.cache_files import Locks, discard, read_private
from effcc.runtime.trust import require_private_part

_LOCK_DIGITS = 3


@dataclass(frozen=True)
class CheckedFiles:
    """The files of the part `part` ("objects") of a cache folder."""

    folder: Path
    part: str
    locks: Locks
    writable: bool
    advice: str

    def stored(self, key: str) -> bytes | None:
        """The content of a file that is whole and ours, marked as used just now; None where there is none."""
        folder = self.folder / self.part
        try:
            require_private_part(folder, self.advice)
            inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                head, _, content = read_private(inside, key).partition(b"\n")
            finally:
                os.close(inside)
        except (OSError, CacheError):
            return None
        if head != self._head(content):
            return None
        if self.writable:
            with contextlib.suppress(OSError):
                os.utime(folder / key)
        return content

    def store(self, key: str, content: bytes, staged: Path) -> None:
        """Put a file into the cache, by way of a folder aside."""
        file = staged / "content"
        file.write_bytes(self._head(content) + b"\n" + content)
        file.chmod(0o600)  # the umask may let others write
        place = self.folder / self.part / key
        if place.is_dir():
            discard(place)
        os.replace(file, place)

    @contextlib.contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        """A folder aside for making a file, whose lock the caller holds: it is gone at the end."""
        staged = Path(tempfile.mkdtemp(prefix=f"{lock_of(key)}.", dir=self.folder / "staging"))
        try:
            yield staged
        finally:
            discard(staged)

    def keep(self, key: str, content: bytes) -> None:
        """Put a file into the cache, unless others are putting one there or the cache cannot be written to."""
        if not self.writable:
            return
        with self.locks.held_if_free(lock_of(key)) as free:
            if free:
                with self.staged(key) as staged:
                    self.store(key, content, staged)

    def forget(self, keys: Iterable[str]) -> None:
        """Remove files."""
        for key in keys:
            discard(self.folder / self.part / key)

    def _head(self, content: bytes) -> bytes:
        return f"effcc {self.part} {hashlib.sha256(content).hexdigest()}".encode()


def lock_of(key: str) -> str:
    """The name of a file's lock, which it shares with others: there are thousands, and each is held seldom."""
    return f"object-{key[:_LOCK_DIGITS]}"
