"""Files: read where others may have prepared them (regular ones only, no more bytes than agreed, never waiting), and
written so that they last."""

from __future__ import annotations

import os
import stat
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


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "of an unknown kind")
