"""Zip archives that lie: each function makes one from a package's genuine files."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping

from effcc.runtime.manifest import LIBRARY, MANIFEST, WEIGHTS

Files = dict[str, bytes]


def write_archive(files: Mapping[str, bytes], kinds: Mapping[str, int] | None = None) -> bytes:
    """An archive as packages are: weights stored, everything else compressed, unless `kinds` says otherwise."""
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w") as archive:
        warnings.simplefilter("ignore")  # names that come twice
        for name, content in files.items():
            kind = zipfile.ZIP_STORED if name == WEIGHTS else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name), content, (kinds or {}).get(name, kind))
    return made.getvalue()


def _with(**more: bytes) -> Callable[[Files, random.Random], bytes]:
    return lambda files, _: write_archive({**files, **more})


def _named(name: str) -> Callable[[Files, random.Random], bytes]:
    return lambda files, _: write_archive({**files, name: b"x"})


def _renamed(old: str, new: str) -> Callable[[Files, random.Random], bytes]:
    return lambda files, _: write_archive({new if n == old else n: c for n, c in files.items()})


def _kinds(**kinds: int) -> Callable[[Files, random.Random], bytes]:
    return lambda files, _: write_archive(files, {LIBRARY: kinds.get("library", 8), WEIGHTS: kinds.get("weights", 0)})


def _twice(name: str) -> Callable[[Files, random.Random], bytes]:
    def make(files: Files, rng: random.Random) -> bytes:
        made = io.BytesIO(write_archive(files))
        with warnings.catch_warnings(), zipfile.ZipFile(made, "a") as archive:
            warnings.simplefilter("ignore")
            archive.writestr(zipfile.ZipInfo(name), b"another")
        return made.getvalue()

    return make


def _entry(name: str, change: Callable[[zipfile.ZipInfo], None]) -> Callable[[Files, random.Random], bytes]:
    """The archive whose directory says something else of one file."""

    def make(files: Files, rng: random.Random) -> bytes:
        made = io.BytesIO(write_archive(files))
        with zipfile.ZipFile(made, "a") as archive:
            change(archive.getinfo(name))
            archive._didModify = True  # type: ignore[attr-defined] # write the directory again
        return made.getvalue()

    return make


def _patched(name: str, offset: int, format: str, value: int) -> Callable[[Files, random.Random], bytes]:
    """The archive with a field of a file's directory entry overwritten (offsets of APPNOTE 4.3.12)."""

    def make(files: Files, rng: random.Random) -> bytes:
        data = bytearray(write_archive(files))
        place = data.rfind(name.encode(), data.find(b"PK\x01\x02")) - 46
        struct.pack_into(format, data, place + offset, value)
        return bytes(data)

    return make


def _end(offset: int, format: str, value: int) -> Callable[[Files, random.Random], bytes]:
    """The archive with a field of its end record overwritten (offsets of APPNOTE 4.3.16)."""

    def make(files: Files, rng: random.Random) -> bytes:
        data = bytearray(write_archive(files))
        struct.pack_into(format, data, data.rfind(b"PK\x05\x06") + offset, value)
        return bytes(data)

    return make


def _bomb(name: str, size: int) -> Callable[[Files, random.Random], bytes]:
    def make(files: Files, rng: random.Random) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in files.items():
                if member != name:
                    archive.writestr(member, content)
            with archive.open(name, "w", force_zip64=True) as file:
                for _ in range(size >> 20):
                    file.write(bytes(1 << 20))
        return made.getvalue()

    return make


def _many(files: Files, rng: random.Random) -> bytes:
    return write_archive({**files, **{f"file{k}": b"" for k in range(5000)}})


def _zip64_directory(files: Files, rng: random.Random) -> bytes:
    """A zip64 end record whose directory has more bytes than any machine."""
    data = write_archive(files)
    end = data.rfind(b"PK\x05\x06")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2**40, 2**40, 2**62, rng.choice([0, 2**62]))
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    return data[:end] + record + locator + data[end:]


def _link(info: zipfile.ZipInfo) -> None:
    info.external_attr = 0o120777 << 16


def _fifo(info: zipfile.ZipInfo) -> None:
    info.external_attr = 0o010666 << 16


def _set(**fields: int) -> Callable[[zipfile.ZipInfo], None]:
    def change(info: zipfile.ZipInfo) -> None:
        for field, value in fields.items():
            setattr(info, field, value)

    return change


ARCHIVES: dict[str, Callable[[Files, random.Random], bytes]] = {
    "as it is": lambda files, _: write_archive(files),
    "a file nobody listed": _named("more.txt"),
    "a path upwards": _named("../more.txt"),
    "an absolute path": _named("/tmp/more.txt"),
    "a path inwards": _named("inner/more.txt"),
    "a drive": _named("C:\\more.txt"),
    "a folder": _named("inner/"),
    "no name": _named(""),
    "a long name": _named("x" * 60_000),
    "a name of dots": _named(".."),
    "a name with a line": _named("a\nb"),
    "a name beyond ASCII": _named("mänifest.json"),
    "another case": _renamed(MANIFEST, "MANIFEST.JSON"),
    "no manifest": _renamed(MANIFEST, "manifest.txt"),
    "no library": _renamed(LIBRARY, "library.dll"),
    "no sums": _renamed("SHA256SUMS", "sums"),
    "a manifest twice": _twice(MANIFEST),
    "a library twice": _twice(LIBRARY),
    "sums twice": _twice("SHA256SUMS"),
    "a signature that is none": _named("SHA256SUMS.sig"),
    "weights compressed": _kinds(weights=8),
    "library by bzip2": _kinds(library=12),
    "library by lzma": _kinds(library=14),
    "a link": _entry(LIBRARY, _link),
    "a FIFO": _entry(MANIFEST, _fifo),
    "encrypted": _entry(MANIFEST, _set(flag_bits=1)),
    "strongly encrypted": _entry(MANIFEST, _set(flag_bits=0x41)),
    "patched data": _entry(MANIFEST, _set(flag_bits=0x20)),
    "an unknown method": _patched(MANIFEST, 10, "<H", 77),
    "stored and not": _patched(LIBRARY, 10, "<H", 0),
    "deflated and not": _patched(WEIGHTS, 10, "<H", 8),
    "a wrong checksum": _patched(MANIFEST, 16, "<L", 1),
    "a wrong size": _patched(MANIFEST, 24, "<L", 7),
    "no size": _patched(MANIFEST, 24, "<L", 0),
    "a size of 4 GiB": _patched(MANIFEST, 24, "<L", 0xFFFFFFFF),
    "weights of 4 GiB": _patched(WEIGHTS, 24, "<L", 0xFFFFFFFE),
    "weights that take 4 GiB": _patched(WEIGHTS, 20, "<L", 0xFFFFFFFE),
    "a wrong place": _patched(LIBRARY, 42, "<L", 0),
    "a place beyond": _patched(LIBRARY, 42, "<L", 0x7FFFFFFF),
    "a name longer than it is": _patched(LIBRARY, 28, "<H", 0xFFFF),
    "an extra field longer than it is": _patched(LIBRARY, 30, "<H", 0xFFFF),
    "a comment longer than it is": _patched(LIBRARY, 32, "<H", 0xFFFF),
    "a version to come": _patched(LIBRARY, 6, "<H", 0xFFFF),
    "a bomb as the manifest": _bomb(MANIFEST, 64 << 20),
    "a bomb as the library": _bomb(LIBRARY, 64 << 20),
    "a bomb as the weights": _bomb(WEIGHTS, 64 << 20),
    "a bomb as the sums": _bomb("SHA256SUMS", 64 << 20),
    "thousands of files": _many,
    "no files said": _end(10, "<H", 0),
    "a directory of 4 GiB": _end(12, "<L", 0xFFFFFFFF),
    "a directory elsewhere": _end(16, "<L", 0xFFFFFFF0),
    "a directory at 0": _end(16, "<L", 0),
    "a comment cut": _end(20, "<H", 500),
    "a directory without end": _zip64_directory,
    "no files": lambda files, _: write_archive({}),
    "an archive in an archive": lambda files, _: write_archive({"model.effcc": write_archive(files)}),
    "something before it": lambda files, _: b"#!/bin/sh\n" + write_archive(files),
    "something behind it": lambda files, _: write_archive(files) + b"more",
    "twice": lambda files, _: write_archive(files) * 2,
}
