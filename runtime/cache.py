"""The compile cache: shared libraries under the digest of everything that decides what they contain.

An entry is a folder `entries/<key>/` with the library, its source, and `manifest.json`, which holds the library's
SHA-256 and size. It is written aside in `staging/`, flushed to disk and renamed, so that an entry is whole or absent,
whatever is killed when. A lock per entry (`locks/<key>`) lets several processes that want one library compile it once.
On every load the digest is checked; what does not match is removed and built again. Loading touches the manifest, whose
time then says when the entry was last used; past the size limit the least recently used entries go.

The folder is the user's cache folder, or `EFFCC_CACHE_DIR`; the limit is 2 GiB, or `EFFCC_CACHE_LIMIT` (`500MB`).
As libraries in it are executed, a folder that other users own or can write to is refused.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs

from effcc.errors import CacheError
from effcc.runtime.library import Library
from effcc.runtime.toolchain import Compiler, compile_flags, compile_library, compile_timeout, find_compiler
from effcc.target import GIB, Target

DEFAULT_LIMIT = 2 * GIB
_FORMAT = 1  # of the entries; a change makes older entries unreachable
_SOURCE_SUFFIXES = (".py", ".h", ".cpp", ".lark", ".rules")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Entry:
    """One library of the cache: its key, its folder, bytes on disk, and when it was last used (seconds since 1970)."""

    key: str
    folder: Path
    size: int
    last_used: float

    @property
    def library(self) -> Path:
        """The shared library."""
        return self.folder / "library.so"


class CompileCache:
    """The libraries under one folder; safe for many processes and threads at once.

    >>> cache = CompileCache.default()
    >>> library = cache.load('extern "C" int answer() { return 42; }', Target.detect())
    >>> library.function("answer")()
    42
    """

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        """Use `folder`, which is made if need be, and keep it under `limit` bytes.

        Raises CacheError if the folder cannot be made, or if other users own it or can write to it.
        """
        self.folder = folder
        self.limit = limit
        _make_private(folder)
        for part in ("entries", "staging", "locks"):
            (folder / part).mkdir(mode=0o700, exist_ok=True)

    @staticmethod
    def default() -> CompileCache:
        """The user's cache, with the limit that the environment sets."""
        return CompileCache(cache_folder(), cache_limit())

    def load(
        self,
        source: str,
        target: Target,
        *,
        openmp: bool = False,
        contract: bool = False,
        compiler: Compiler | None = None,
        timeout: float | None = None,
    ) -> Library:
        """The library that `source` compiles to for `target`, from the cache or compiled now, loaded into the process.

        Raises ToolchainError if there is no compiler, it fails, or it takes longer than `timeout` seconds
        (`compile_timeout()` by default), and CacheError if the folder cannot be written to or the disk is full; the
        cache is then as it was before.
        """
        compiler = compiler or find_compiler()
        flags = compile_flags(target, openmp=openmp, contract=contract)
        key = entry_key(source, compiler, flags, target.features)
        with self._explained(), self._lock(key):
            missing = not self._is_intact(key)
            if missing:
                self._build(key, source, compiler, flags, compile_timeout() if timeout is None else timeout)
            os.utime(self._entry_folder(key) / "manifest.json")
            library = Library(self._entry_folder(key) / "library.so")
        if missing:
            self.prune(keep=key)
        return library

    def has(self, source: str, target: Target, *, openmp: bool = False, contract: bool = False) -> bool:
        """Whether `load` with these arguments would find an intact entry."""
        flags = compile_flags(target, openmp=openmp, contract=contract)
        return self._is_intact(entry_key(source, find_compiler(), flags, target.features))

    def entries(self) -> list[Entry]:
        """What the cache holds, the most recently used first."""
        found = []
        for folder in (self.folder / "entries").iterdir():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # pruned just now, or not ours
                size = sum(file.stat().st_size for file in folder.iterdir())
                manifest = folder / "manifest.json"
                last_used = manifest.stat().st_mtime if manifest.exists() else 0.0
                found.append(Entry(folder.name, folder, size, last_used))
        return sorted(found, key=lambda entry: (-entry.last_used, entry.key))

    def prune(self, limit: int | None = None, keep: str = "") -> list[Entry]:
        """Remove least recently used entries until at most `limit` bytes (the cache's own by default) remain.

        Entries that another process is loading at the moment, and the entry `keep`, stay. What killed writers left
        behind goes too. Returns what was removed.
        """
        limit = self.limit if limit is None else limit
        self._sweep_staging()
        entries = self.entries()
        total = sum(entry.size for entry in entries)
        removed = []
        for entry in reversed(entries):
            if total <= limit:
                break
            if entry.key != keep and self._remove(entry.key):
                removed.append(entry)
                total -= entry.size
        return removed

    def clear(self) -> list[Entry]:
        """Remove every entry that no other process is loading at the moment; returns what was removed."""
        return self.prune(limit=-1)

    def _entry_folder(self, key: str) -> Path:
        return self.folder / "entries" / key

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say of an error of the file system that it is the cache's, and what to do."""
        try:
            yield
        except OSError as error:
            advice = "make room there, or set EFFCC_CACHE_DIR to another folder"
            raise CacheError(f"cannot write to the cache folder {self.folder}: {error}; {advice}") from error

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        with filelock.FileLock(self.folder / "locks" / key):
            yield

    @contextlib.contextmanager
    def _lock_if_free(self, key: str) -> Iterator[bool]:
        lock = filelock.FileLock(self.folder / "locks" / key, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _is_intact(self, key: str) -> bool:
        folder = self._entry_folder(key)
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            content = (folder / "library.so").read_bytes()
        except (OSError, ValueError):
            return False
        return isinstance(manifest, dict) and manifest.get("sha256") == hashlib.sha256(content).hexdigest()

    def _build(self, key: str, source: str, compiler: Compiler, flags: Sequence[str], timeout: float) -> None:
        """Compile in a folder aside and rename it into place; the caller holds the entry's lock."""
        for leftover in (self.folder / "staging").glob(f"{key}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        staged = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=self.folder / "staging"))
        try:
            library = compile_library(source, staged / "library.so", flags, compiler=compiler, timeout=timeout)
            (staged / "source.cpp").write_text(source)
            manifest = {
                "format": _FORMAT,
                "sha256": hashlib.sha256(library.read_bytes()).hexdigest(),
                "compiler": compiler.version,
                "flags": list(flags),
                "created": time.time(),
            }
            (staged / "manifest.json").write_text(json.dumps(manifest, indent=1))
            for file in staged.iterdir():
                _flush(file)
            _flush(staged)
            shutil.rmtree(self._entry_folder(key), ignore_errors=True)
            os.replace(staged, self._entry_folder(key))
            _flush(self.folder / "entries")
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _remove(self, key: str) -> bool:
        with self._lock_if_free(key) as free:
            if free:
                shutil.rmtree(self._entry_folder(key), ignore_errors=True)
            return free

    def _sweep_staging(self) -> None:
        """Remove what writers left that were killed: a live writer holds its entry's lock."""
        for staged in (self.folder / "staging").iterdir():
            key = staged.name.partition(".")[0]
            with self._lock_if_free(key) as free:
                if free:
                    shutil.rmtree(staged, ignore_errors=True)


def entry_key(source: str, compiler: Compiler, flags: Sequence[str], features: Sequence[str]) -> str:
    """The digest of everything that decides what a library contains, as 40 hexadecimal digits."""
    parts = {
        "format": _FORMAT,
        "source": source,
        "compiler": [*compiler.command, compiler.version],
        "flags": list(flags),
        "features": list(features),
        "effcc": sources_digest(),
        "torch": torch_version(),
        "platform": sys.platform,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


@functools.cache
def sources_digest() -> str:
    """The digest of effcc's own sources, headers, grammars and rules as they are on disk."""
    package = Path(__file__).absolute().parent.parent
    digest = hashlib.sha256()
    for folder, _, names in sorted(os.walk(package, followlinks=True)):
        for name in sorted(names):
            if name.endswith(_SOURCE_SUFFIXES):
                file = Path(folder, name)
                digest.update(f"{file.relative_to(package)}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def torch_version() -> str:
    """The installed torch's version, read without importing it; empty where there is none."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def cache_folder() -> Path:
    """`EFFCC_CACHE_DIR` if set, else the user's cache folder of this system."""
    named = os.environ.get("EFFCC_CACHE_DIR", "")
    return Path(named).expanduser().absolute() if named else platformdirs.user_cache_path("effcc")


def cache_limit() -> int:
    """The size limit in bytes: `EFFCC_CACHE_LIMIT` (`1500000`, `500MB`, `2GiB`), else 2 GiB.

    Raises CacheError where the variable holds no size.
    """
    text = os.environ.get("EFFCC_CACHE_LIMIT", "")
    try:
        return parse_size(text) if text else DEFAULT_LIMIT
    except CacheError as error:
        raise CacheError(f"EFFCC_CACHE_LIMIT: {error}") from None


def parse_size(text: str) -> int:
    """Bytes in `1500000`, `500MB` or `2GiB` (units are powers of 1024). Raises CacheError on anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?\s*", text.upper())
    if not found:
        raise CacheError(f"a size is a number of bytes with an optional unit, such as 500MB or 2GiB; got {text!r}")
    return int(float(found.group(1)) * _UNITS[found.group(2)])


def _make_private(folder: Path) -> None:
    """Make the folder for this user only; refuse one that another user could put a library into."""
    advice = "set EFFCC_CACHE_DIR to a folder of your own"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise CacheError(f"cannot use the cache folder {folder}: {error}; {advice}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CacheError(f"the cache folder {folder} cannot be written to; {advice}")
    if found.st_uid != os.getuid():
        raise CacheError(f"the cache folder {folder} belongs to another user (uid {found.st_uid}); {advice}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CacheError(f"other users can write to the cache folder {folder}: run `chmod go-w {folder}`, or {advice}")
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise CacheError(f"any user can replace the cache folder {folder}: {parent} is writable by all; {advice}")


def _flush(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
