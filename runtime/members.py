"""The files of a package, from a zip archive or a folder, as bytes whose digests are checked.

    manifest.json, library.so, weights.safetensors, <name>.h     see `effcc.runtime.manifest`
    SHA256SUMS                                                   a line for each of them, as `sha256sum -c` reads it
    SHA256SUMS.sig                                               optional: see `effcc.runtime.signature`

Nothing of a file is interpreted before its digest agrees, nor before the signature does where one is asked for. Nothing
is extracted: an archive holds exactly the files that `SHA256SUMS` lists, and of each no more is read than its directory
and the manifest say. In a folder other files may stand; they are not looked at.

The library ends in a *seal*, which is made of the digests of its own code, of the manifest and of the weights: they
were made together. Digests and seal detect damage and mixed-up files, not people, who can compute both; signatures
detect people.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from effcc.errors import PackageError
from effcc.runtime.files import open_regular, read_file
from effcc.runtime.manifest import LIBRARY, MANIFEST, WEIGHTS, Manifest, read_manifest
from effcc.runtime.signature import LENGTH, KeyFile, verify

SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"

_EXPECTED = f"expected a package that `effcc compile` or effcc.export wrote (a zip archive or folder with {SUMS})"
_END_LENGTH = 22
_MOST = {SUMS: 4096, SIGNATURE: LENGTH, MANIFEST: 64 << 20}
_MOST_OTHER = 64 << 20
_MOST_MEMBERS = 16
_MOST_RATIO = 200
_CHUNK = 1 << 20
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})")
_SEAL = b"\neffcc-seal:"
_SEAL_LENGTH = len(_SEAL) + 64


@dataclass(frozen=True)
class Members:
    """What a package consists of: the manifest, and the other files that loading needs, checked."""

    manifest: Manifest
    library: bytes
    weights: bytes


def read_members(path: Path, key: KeyFile | None = None) -> Members:
    """The checked files of the package at `path`. key: the public key that must have signed it; None: whether it is
    signed does not matter.

    Raises PackageError for what is no package, is damaged, holds what it should not, is for another machine, or is not
    signed with that key.
    """
    with _opened(path) as files:
        sums_text = files.read(SUMS, _MOST[SUMS])
        if key is not None:
            verify(key, sums_text, files.read(SIGNATURE, LENGTH) if files.has(SIGNATURE) else None)
        sums = read_sums(sums_text)
        files.require_only({*sums, SUMS, SIGNATURE})
        content = files.read(MANIFEST, _MOST[MANIFEST])
        _require_digest(MANIFEST, content, sums)
        manifest = read_manifest(content)
        manifest.require_runnable()
        found = {}
        for name in sums:
            if name != MANIFEST:
                found[name] = files.read(name, manifest.files.get(name, _MOST_OTHER))  # type: ignore[call-overload]
                _require_digest(name, found[name], sums)
        for name, size in manifest.files.items():
            if len(found[name]) != size:
                raise PackageError(f"{name} has {len(found[name])} bytes; {MANIFEST} says {size}")
        _require_seal(found[LIBRARY], sums)
    return Members(manifest, found[LIBRARY], found[WEIGHTS])


def digest(content: bytes) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(content).hexdigest()


def sums_of(files: Mapping[str, bytes]) -> bytes:
    """The text of `SHA256SUMS`."""
    return "".join(f"{digest(content)}  {name}\n" for name, content in sorted(files.items())).encode()


def read_sums(content: bytes) -> dict[str, str]:
    """The digest of each file, by name. Raises PackageError for a text that is not exactly what `sums_of` writes."""
    found: dict[str, str] = {}
    lines = content.decode("ascii", "replace").split("\n")
    for number, line in enumerate(lines[:-1], 1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in found or match[2] in (SUMS, SIGNATURE):
            raise PackageError(f"{SUMS} is damaged: line {number} is {line[:200]!a}")
        found[match[2]] = match[1]
    missing = [name for name in (LIBRARY, MANIFEST, WEIGHTS) if name not in found]
    if lines[-1] or missing or len(found) > _MOST_MEMBERS:
        raise PackageError(
            f"{SUMS} is damaged: " + (f"it has no line for {missing[0]}" if missing else "it has no end")
        )
    return found


def sealed(code: bytes, files: Mapping[str, bytes]) -> bytes:
    """A library with its seal. Loaders of libraries do not look behind what an ELF file's headers name."""
    return code + _SEAL + _seal(code, {name: digest(files[name]) for name in (MANIFEST, WEIGHTS)})


def seal_bytes() -> int:
    """How many bytes `sealed` adds."""
    return _SEAL_LENGTH


def _seal(code: bytes, sums: Mapping[str, str]) -> bytes:
    parts = [digest(code), sums[MANIFEST], sums[WEIGHTS]]
    return digest("\n".join(parts).encode()).encode()


def _require_seal(library: bytes, sums: Mapping[str, str]) -> None:
    code, seal = library[:-_SEAL_LENGTH], library[-_SEAL_LENGTH:]
    if seal != _SEAL + _seal(code, sums):
        raise PackageError(f"{LIBRARY} was not made together with this {MANIFEST} and {WEIGHTS}: its seal differs")


def _require_digest(name: str, content: bytes, sums: Mapping[str, str]) -> None:
    found = digest(content)
    if found != sums[name]:
        raise PackageError(f"{name} is damaged: expected SHA-256 {sums[name]}, got {found}")


# Where files are ------------------------------------------------------------------------------------------------------


class _Files(Protocol):
    def has(self, name: str) -> bool: ...

    def read(self, name: str, most: int) -> bytes:
        """The whole file, of at most so many bytes."""

    def require_only(self, names: set[str]) -> None:
        """Raises PackageError where there are others."""


@contextmanager
def _opened(path: Path) -> Iterator[_Files]:
    """The files at `path`; errors name the path and say what was expected."""
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise PackageError(f"{str(path)!a}: {_EXPECTED}; {error}") from None
    if not exists:
        raise PackageError(f"{path}: {_EXPECTED}; there is no such file")
    try:
        if is_folder:
            yield _Folder(path)
            return
        with open_regular(path) as file:
            _require_end(file)
            bounded = _Bounded(file)
            try:
                archive = zipfile.ZipFile(bounded)
                bounded.most = None
            except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError, MemoryError) as error:
                raise PackageError(f"{_EXPECTED}; {error}") from None
            with archive:
                yield _Archive(archive)
    except PackageError as error:
        raise PackageError(f"{path}: {error}") from None


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        return (self.path / name).is_symlink() or (self.path / name).exists()

    def read(self, name: str, most: int) -> bytes:
        return read_file(self.path / name, most, follow=False)

    def require_only(self, names: set[str]) -> None:
        """A folder may hold other files."""


def _require_end(file: BinaryIO) -> None:
    """Raises PackageError where a file does not end as an archive without a comment does."""
    start = file.read(8)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _END_LENGTH, 0))
    end = file.read(_END_LENGTH)
    if len(end) < _END_LENGTH or end[:4] != b"PK\x05\x06" or end[-2:] != b"\0\0":
        raise PackageError(f"{_EXPECTED}, got {size} bytes that begin {start!r} and do not end as one")


class _Bounded:
    """A file of which no more than `most` bytes are read at a time: `zipfile` reads a directory as long as it says."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.most: int | None = _CHUNK
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close

    def read(self, size: int = -1) -> bytes:
        if self.most is None:
            return self.file.read(size)
        content = self.file.read(self.most + 1 if size < 0 else min(size, self.most + 1))
        if len(content) > self.most:
            raise zipfile.BadZipFile(f"a directory of more than {self.most} bytes")
        return content


class _Archive:
    """A zip archive. What its central directory says is checked first: `zipfile` believes it."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.members: dict[str, zipfile.ZipInfo] = {}
        if len(archive.infolist()) > _MOST_MEMBERS:
            raise PackageError(f"an archive of {len(archive.infolist())} files; expected at most {_MOST_MEMBERS}")
        if min((m.header_offset for m in archive.infolist()), default=0) != 0:
            raise PackageError("an archive that has something before its first file")
        for member in archive.infolist():
            self._check(member)
            self.members[member.filename] = member
        end: int = archive.start_dir
        for member in sorted(archive.infolist(), key=lambda m: m.header_offset, reverse=True):
            if (
                member.header_offset < 0
                or member.header_offset + 30 + len(member.filename) + member.compress_size > end
            ):
                raise PackageError(f"an archive whose file {member.filename!r} overlaps what stands behind it")
            end = member.header_offset

    def _check(self, member: zipfile.ZipInfo) -> None:
        name = member.filename
        kind = member.external_attr >> 16 & 0o170000
        problem = None
        if not _LINE.fullmatch("0" * 64 + "  " + name) or member.orig_filename != name:
            problem = "whose name is none of a package's files"
        elif name in self.members:
            problem = "that comes twice"
        elif member.flag_bits & 0x1:
            problem = "that is encrypted"
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problem = f"compressed by method {member.compress_type}; expected 0 or 8"
        elif kind not in (0, 0o100000):
            problem = "that is no regular file"
        elif member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            problem = f"of {member.file_size} bytes that takes {member.compress_size}"
        elif member.file_size > _MOST_RATIO * member.compress_size + _CHUNK:
            problem = f"of {member.file_size} bytes that takes {member.compress_size}: a zip bomb"
        elif name == WEIGHTS and member.compress_type != zipfile.ZIP_STORED:
            problem = "that is compressed; expected it stored"
        if problem:
            raise PackageError(f"an archive with a file {name[:200]!a} {problem}")

    def has(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str, most: int) -> bytes:
        member = self.members.get(name)
        if member is None:
            held = ", ".join(sorted(self.members)[:6]) or "nothing"
            raise PackageError(f"{name} is missing; the archive holds {held}")
        if member.file_size > most:
            raise PackageError(f"{name} has {member.file_size} bytes; expected at most {most}")
        try:
            with self.archive.open(member) as file:
                content = file.read(member.file_size)
                rest = file.read(1)
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            EOFError,
            NotImplementedError,
            RuntimeError,
            ValueError,
        ) as error:
            raise PackageError(f"{name} is damaged: {error}") from None
        except MemoryError:
            raise PackageError(f"{name} has {member.file_size} bytes: memory is short") from None
        if rest or len(content) != member.file_size:
            raise PackageError(
                f"{name} is damaged: it does not have the {member.file_size} bytes of its directory entry"
            )
        return content

    def require_only(self, names: set[str]) -> None:
        unlisted = sorted(set(self.members) - names)
        if unlisted:
            raise PackageError(f"an archive with a file {unlisted[0]!r}, which {SUMS} does not list")
