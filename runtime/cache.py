"""The compile cache: shared libraries under the digest of everything that decides what they contain.

An entry is a folder `entries/<key>/` with the library, its source, and `manifest.json`, which holds the library's
SHA-256 and size. It is written aside in `staging/`, flushed to disk and renamed, so that an entry is whole or absent,
whatever is killed when. A lock per entry (`locks/<key>`) lets several processes that want one library compile it once.
On every load the digest is checked; what does not match is removed and built again. A library is loaded, and looked at,
before it becomes an entry. Loading touches the manifest, whose time then says when the entry was last used; past the
size limit the least recently used entries go.

The folder is the user's cache folder, or `EFFCC_CACHE_DIR`; the limit is 2 GiB, or `EFFCC_CACHE_LIMIT` (`500MB`).
As libraries in it are executed, a folder that other users own, can write to or can exchange is refused
(`effcc.runtime.trust`). One that cannot be written to is read: what it lacks is compiled for this process alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
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

from effcc.errors import CacheError, PackageError, ToolchainError
from effcc.runtime.elf import require_loadable
from effcc.runtime.files import flush
from effcc.runtime.library import Library
from effcc.runtime.toolchain import Compiler, compile_flags, compile_library, compile_timeout, find_compiler
from effcc.runtime.trust import is_private_file, make_private, require_private, require_private_part
from effcc.target import GIB, Target

DEFAULT_LIMIT = 2 * GIB
_FORMAT = 1  # of the entries; a change makes older entries unreachable
_SOURCE_SUFFIXES = (".py", ".h", ".cpp", ".lark", ".rules")
_PARTS = ("entries", "staging", "locks")
_ADVICE = "set EFFCC_CACHE_DIR to a folder of your own"
_PATIENCE = 60.0
"""Seconds that an entry's lock may be held beyond the time that its compiler has."""
_EXPORTED = re.compile(r'^extern "C" \w+ (\w+)\(', re.MULTILINE)
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

        Raises CacheError if the folder cannot be made, or if other users own it, can write to it or exchange it.
        """
        self.folder = folder
        self.limit = limit
        try:
            make_private(folder)
            require_private(folder, _ADVICE)
            self.writable = os.access(folder, os.W_OK | os.X_OK)
            for part in _PARTS:
                if self.writable and not os.path.lexists(folder / part):
                    (folder / part).mkdir(mode=0o700, exist_ok=True)
                if os.path.lexists(folder / part):
                    require_private_part(folder / part, _ADVICE)
        except OSError as error:
            raise CacheError(f"cannot use the cache folder {folder}: {error}; {_ADVICE}") from error

    @staticmethod
    def default() -> CompileCache:
        """The user's cache, with the limit that the environment sets."""
        limit = cache_limit()
        try:
            return CompileCache(cache_folder(), limit)
        except CacheError as error:
            if os.environ.get("EFFCC_CACHE_DIR") or not isinstance(error.__cause__, OSError):
                raise
            return CompileCache(_temporary_folder(), limit)  # there is no home, or it cannot be written to

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
        timeout = compile_timeout() if timeout is None else timeout
        if not self.writable:
            return self._stored(key, source) or self._apart(source, compiler, flags, timeout)
        with self._explained(), self._lock(key, timeout + _PATIENCE):
            library = self._stored(key, source)
            found = library is not None
            if library is None:
                library = self._build(key, source, compiler, flags, timeout)
            with contextlib.suppress(OSError):
                os.utime(self._entry_folder(key) / "manifest.json")
        if not found:
            self.prune(keep=key)
        return library

    def has(self, source: str, target: Target, *, openmp: bool = False, contract: bool = False) -> bool:
        """Whether `load` with these arguments would find an intact entry."""
        flags = compile_flags(target, openmp=openmp, contract=contract)
        return self._is_intact(entry_key(source, find_compiler(), flags, target.features))

    def entries(self) -> list[Entry]:
        """What the cache holds, the most recently used first."""
        found = []
        if not (self.folder / "entries").is_dir():
            return []
        for folder in (self.folder / "entries").iterdir():
            with contextlib.suppress(OSError):  # pruned just now, or closed to us
                own = os.lstat(folder)
                files = list(os.scandir(folder)) if stat.S_ISDIR(own.st_mode) else []
                size = sum(file.stat(follow_symlinks=False).st_size for file in files)
                used = [f.stat(follow_symlinks=False).st_mtime for f in files if f.name == "manifest.json"]
                found.append(Entry(folder.name, folder, size, used[0] if used else 0.0))
        return sorted(found, key=lambda entry: (-entry.last_used, entry.key))

    def prune(self, limit: int | None = None, keep: str = "") -> list[Entry]:
        """Remove least recently used entries until at most `limit` bytes (the cache's own by default) remain.

        Entries that another process is loading at the moment, and the entry `keep`, stay. What killed writers left
        behind goes too. Returns what was removed.
        """
        limit = self.limit if limit is None else limit
        if not self.writable:
            raise CacheError(f"the cache folder {self.folder} cannot be written to; {_ADVICE}")
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
        except filelock.Timeout as error:
            raise CacheError(
                f"another process has held {error.lock_file} for as long as compiling may take; end it, or {_ADVICE}"
            ) from error
        except OSError as error:
            advice = "make room there, or set EFFCC_CACHE_DIR to another folder"
            raise CacheError(f"cannot write to the cache folder {self.folder}: {error}; {advice}") from error

    def _lock_file(self, key: str) -> Path:
        file = self.folder / "locks" / key
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(file).st_mode):
                _discard(file)
        return file

    @contextlib.contextmanager
    def _lock(self, key: str, patience: float) -> Iterator[None]:
        with filelock.FileLock(self._lock_file(key), timeout=patience):
            yield

    @contextlib.contextmanager
    def _lock_if_free(self, key: str) -> Iterator[bool]:
        lock = filelock.FileLock(self._lock_file(key), timeout=0)
        try:
            lock.acquire()
        except (filelock.Timeout, PermissionError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _is_intact(self, key: str) -> bool:
        """Whether an entry holds a library with the digest that its manifest says, and is ours alone."""
        folder = self._entry_folder(key)
        try:
            require_private_part(folder, _ADVICE)
            inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                manifest = json.loads(_read(inside, "manifest.json"))
                content = _read(inside, "library.so")
            finally:
                os.close(inside)
        except (OSError, ValueError, RecursionError, CacheError):
            return False
        return isinstance(manifest, dict) and manifest.get("sha256") == hashlib.sha256(content).hexdigest()

    def _stored(self, key: str, source: str) -> Library | None:
        """The library of an intact entry, loaded; None where there is none, or it does not load."""
        if not self._is_intact(key):
            return None
        try:
            return self._opened(self._entry_folder(key) / "library.so", source)
        except ToolchainError:
            return None

    def _opened(self, file: Path, source: str) -> Library:
        """A library, loaded, that exports what its source says. Raises ToolchainError where it is not such a one."""
        try:
            require_loadable(file.read_bytes(), f"{sys.platform}-{platform.machine()}")
        except PackageError as error:
            raise ToolchainError(f"the compiler reported success and wrote a library that is none: {error}") from None
        try:
            library = Library(file)
        except ToolchainError as error:
            if os.statvfs(file).f_flag & getattr(os, "ST_NOEXEC", 0):
                raise CacheError(
                    f"the cache folder {self.folder} is on a file system from which nothing may be executed (noexec); "
                    f"{_ADVICE} elsewhere"
                ) from error
            raise
        for name in _EXPORTED.findall(source):
            library.function(name)
        return library

    def _build(self, key: str, source: str, compiler: Compiler, flags: Sequence[str], timeout: float) -> Library:
        """Compile in a folder aside, load, and rename into place; the caller holds the entry's lock."""
        for leftover in (self.folder / "staging").glob(f"{key}.*"):
            _discard(leftover)
        staged = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=self.folder / "staging"))
        try:
            file = compile_library(source, staged / "library.so", flags, compiler=compiler, timeout=timeout)
            library = self._opened(file, source)
            (staged / "source.cpp").write_text(source)
            manifest = {
                "format": _FORMAT,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "compiler": compiler.version,
                "flags": list(flags),
                "created": time.time(),
            }
            (staged / "manifest.json").write_text(json.dumps(manifest, indent=1))
            for part in staged.iterdir():
                part.chmod(0o600)  # the umask may let others write
                flush(part)
            flush(staged)
            _discard(self._entry_folder(key))
            os.replace(staged, self._entry_folder(key))
            flush(self.folder / "entries")
        finally:
            _discard(staged)
        library.path = self._entry_folder(key) / "library.so"
        return library

    def _apart(self, source: str, compiler: Compiler, flags: Sequence[str], timeout: float) -> Library:
        """A library that this process alone has: it is compiled in a temporary folder, which goes once it is loaded."""
        with self._explained(), tempfile.TemporaryDirectory(prefix="effcc-") as folder:
            file = compile_library(source, Path(folder) / "library.so", flags, compiler=compiler, timeout=timeout)
            return self._opened(file, source)

    def _remove(self, key: str) -> bool:
        with self._lock_if_free(key) as free:
            if free:
                _discard(self._entry_folder(key))
            return free

    def _sweep_staging(self) -> None:
        """Remove what writers left that were killed: a live writer holds its entry's lock."""
        for staged in (self.folder / "staging").iterdir():
            key = staged.name.partition(".")[0]
            with self._lock_if_free(key) as free:
                if free:
                    _discard(staged)


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
    """`EFFCC_CACHE_DIR` if set, else the user's cache folder of this system, or a temporary one where there is none."""
    named = os.environ.get("EFFCC_CACHE_DIR", "")
    if named:
        try:
            return Path(named).expanduser().absolute()
        except RuntimeError as error:  # ~ of a user that does not exist
            raise CacheError(f"EFFCC_CACHE_DIR is {named!r}: {error}; {_ADVICE}") from error
    found = platformdirs.user_cache_path("effcc")
    return found if found.is_absolute() else _temporary_folder()


def _temporary_folder() -> Path:
    """This user's folder among the temporary ones."""
    return Path(tempfile.gettempdir(), f"effcc-{os.getuid()}").absolute()


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
    whole, _, fraction = found.group(1).partition(".")
    unit = _UNITS[found.group(2)]
    return int(whole[:30]) * unit + int(fraction[:9].ljust(9, "0")) * unit // 10**9


def _read(folder: int, name: str) -> bytes:
    """A file in an open folder. Raises OSError for what is no regular file, or that others could have written."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not is_private_file(os.fstat(descriptor)):
            raise PermissionError(f"{name} is no regular file of this user's alone")
        return file.read()


def _discard(path: Path) -> None:
    """Remove a folder, or whatever stands in its place."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            path.chmod(0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
