"""Files: read where others may have prepared them (regular ones only, no more bytes than agreed, never waiting), and
written so that they are whole or absent, and last."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from effcc.errors import PackageError


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a file for reading, without waiting where it is a FIFO. follow: whether it may be a symbolic link.

    Raises PackageError where there is none, it cannot be read, or it is no regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise PackageError(f"{path.name} is missing: there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        if not follow and path.is_symlink():
            raise PackageError(f"{path.name} is a symbolic link; expected a regular file") from None
        raise PackageError(f"{path.name} cannot be read: {error}") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise PackageError(f"{path.name} is {_kind(mode)}; expected a regular file")
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, most: int, *, follow: bool = True) -> bytes:
    """The content of a regular file of at most so many bytes. Raises PackageError as `open_regular` does."""
    with open_regular(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise PackageError(f"{path.name} has {size} bytes; expected at most {most}")
        try:
            content = file.read(most + 1)
        except (OSError, MemoryError) as error:
            raise PackageError(f"{path.name} cannot be read: {error or 'memory is short'}") from None
    if len(content) > most:
        raise PackageError(f"{path.name} has more than {most} bytes")
    return content


def flush(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to disk: a rename then outlives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def aside(path: Path, *, folder: bool = False, mode: int | None = None) -> Iterator[Path]:
    """An empty file, or folder, beside `path`: to be written, and renamed to it. What stands there at the end goes.

    mode: its permissions, as the umask leaves them; default: this user's alone. What writers of `path` left that were
    killed goes first: a live one holds a lock on what it writes.
    """
    _sweep(path)
    while True:
        staged = path.absolute().with_name(f"{_prefix(path)}{secrets.token_hex(6)}.aside")
        if folder:
            staged.mkdir(0o700 if mode is None else mode)
            descriptor = os.open(staged, os.O_RDONLY | os.O_DIRECTORY)
        else:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(staged, flags, 0o600 if mode is None else mode)
        with contextlib.suppress(OSError):  # a file system without locks: nobody sweeps there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _names(staged, descriptor):
            break
        os.close(descriptor)  # another writer swept it before it was locked
    try:
        yield staged
    finally:
        _remove(staged)
        os.close(descriptor)


def write_whole(path: Path, text: str) -> Path:
    """Write a text to a file that others may read, whole or not at all; its path. Raises OSError."""
    with aside(path, mode=0o666) as staged:
        staged.write_text(text, encoding="utf-8")
        os.replace(staged, path)
    return path


def umask() -> int:
    """Which permissions new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _prefix(path: Path) -> str:
    return f".{path.name[:50]}."  # names have 255 bytes at most


def _sweep(path: Path) -> None:
    """Remove what killed writers of a path left."""
    left = re.compile(re.escape(_prefix(path)) + r"[0-9a-f]{12}\.aside")
    with contextlib.suppress(OSError):
        for name in os.listdir(path.absolute().parent):
            if left.fullmatch(name):
                _remove_if_dead(path.absolute().with_name(name))


def _remove_if_dead(staged: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(staged, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(staged)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _names(path: Path, descriptor: int) -> bool:
    """Whether a path still names an open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "of an unknown kind")
