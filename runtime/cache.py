"""The compile cache: shared libraries under the digest of everything that decides what they contain, the objects that
they are linked from (`effcc.runtime.objects`), and the programs that they belong to (`effcc.remembered`).

An entry is a folder `entries/<key>/` with the library, its source, and `manifest.json`, which holds the library's
SHA-256 and size. It is written aside in `staging/`, flushed to disk and renamed, so that an entry is whole or absent,
whatever is killed when; it leaves the same way. A lock per entry (`locks/<key>`) lets several processes that want one
library compile it once. On every load the digest is checked; what does not match is removed and built again. A library
is loaded, and looked at, before it becomes an entry. Loading touches the manifest, whose time then says when the entry
was last used; past the size limit the least recently used entries go. A cache is looked through for them while it is
nearly full, and once a minute: looking takes as long as the cache has entries, of which a build adds a few.

The folder is the user's cache folder, or `EFFCC_CACHE_DIR`; the limit is 2 GiB, or `EFFCC_CACHE_LIMIT` (`500MB`).
As libraries in it are executed, a folder that other users own, can write to or can exchange is refused
(`effcc.runtime.trust`). One that cannot be written to is read: what it lacks is compiled for this process alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock
import platformdirs

from effcc.errors import CacheError, PackageError, ToolchainError
from effcc.runtime.cache_files import Locks, discard, read_private
from effcc.runtime.cache_keys import FORMAT
from effcc.runtime.checked_files import CheckedFiles, lock_of
from effcc.runtime.elf import require_loadable
from effcc.runtime.files import flush
from effcc.runtime.library import Library
from effcc.runtime.objects import COMPILERS, PATIENCE, Build, Making, Recipe
from effcc.runtime.toolchain import (
    Compiler,
    compile_library,
    compile_timeout,
    find_compiler,
    lean_link_flags,
    link_library,
    object_flags,
)
from effcc.runtime.trust import make_private, require_private, require_private_part
from effcc.target import GIB, Target

DEFAULT_LIMIT = 2 * GIB
LOOK_EVERY = 60.0
"""Seconds for which a process that builds need not see what others have added to a cache with room."""
_PARTS = ("entries", "objects", "programs", "staging", "locks")
_ADVICE = "set EFFCC_CACHE_DIR to a folder of your own"
_EXPORTED = re.compile(r'^extern "C" \w+ (\w+)\(', re.MULTILINE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


Kind = Literal["library", "object", "program"]


@dataclass
class _Room:
    """Bytes that a cache had left when this process looked through it, those that were added here since, and when."""

    left: int
    added: int
    looked: float

    @property
    def is_known(self) -> bool:
        """Whether what was added surely fits: others may have added as much."""
        return 2 * self.added < self.left and time.monotonic() - self.looked < LOOK_EVERY


_ROOMS: dict[tuple[Path, int], _Room] = {}
"""By a cache's folder and limit."""


@dataclass(frozen=True)
class Entry:
    """One library, object or program of the cache: its key, its folder or file, bytes on disk, and when it was last
    used (in seconds since 1970)."""

    key: str
    kind: Kind
    path: Path
    size: int
    last_used: float

    @property
    def file(self) -> Path:
        """The file of the library, object or program."""
        return self.path / "library.so" if self.kind == "library" else self.path


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
        self._locks = Locks(folder / "locks")
        self.objects, self.programs = (
            CheckedFiles(folder, part, self._locks, self.writable, _ADVICE) for part in ("objects", "programs")
        )

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
        kernels: Sequence[str] = (),
        making: Making | None = None,
    ) -> Library:
        """The library that `source` compiles to for `target`, from the cache or compiled now, loaded into the process.

        kernels: texts whose objects are linked into it; each is compiled apart, and once for all programs that have it.
        making: where some of them are under way (`making()`), for the same target, compiler and timeout.

        Raises ToolchainError if there is no compiler, it fails, or it takes longer than `timeout` seconds
        (`compile_timeout()` by default), and CacheError if the folder cannot be written to or the disk is full; the
        cache is then as it was before.
        """
        build = Build(
            source, tuple(kernels), compiler or find_compiler(), target, openmp, contract,
            compile_timeout() if timeout is None else timeout,
        )  # fmt: skip
        library = self._stored(build)
        if library is not None:
            return library
        if making is not None:
            return self._linked(build, making)
        with Making(self.objects, build.recipe) as alone:
            return self._linked(build, alone)

    def making(self, target: Target) -> Making:
        """For beginning with kernels of a library before all of them are known."""
        return Making(self.objects, Recipe(find_compiler(), target, compile_timeout()))

    def _linked(self, build: Build, making: Making) -> Library:
        """A library that the cache does not have."""
        with self._explained():
            objects = making.library(build) if build.kernels else ()
            if not self.writable:
                return self._apart(build, objects)
            with self._locks.held(build.key, build.timeout + PATIENCE):
                library = self._stored(build)  # another process was faster
                if library is not None:
                    return library
                try:
                    library = self._built(build, objects)
                except ToolchainError:
                    making.forget()
                    raise
        self._make_room(build.key, objects)
        return library

    def _make_room(self, built: str, objects: Sequence[bytes]) -> None:
        """Prune, after a library has been built of objects, unless there is room."""
        room = _ROOMS.get((self.folder, self.limit))
        if room is not None:
            with contextlib.suppress(OSError):  # pruned by another process: it takes no room
                room.added += os.stat(self._entry_folder(built) / "library.so").st_size + sum(map(len, objects))
        if room is None or not room.is_known:
            self.prune(keep=built)

    def has(self, source: str, target: Target, *, openmp: bool = False, contract: bool = False) -> bool:
        """Whether `load` with these arguments would find an intact entry."""
        build = Build(source, (), find_compiler(), target, openmp, contract, compile_timeout())
        return self._is_intact(build.key)

    def entries(self) -> list[Entry]:
        """What the cache holds, the most recently used first."""
        found = []
        for folder in _inside(self.folder / "entries"):
            with contextlib.suppress(OSError):  # pruned just now, or closed to us
                files = list(os.scandir(folder)) if folder.is_dir(follow_symlinks=False) else []
                size = sum(file.stat(follow_symlinks=False).st_size for file in files)
                used = [f.stat(follow_symlinks=False).st_mtime for f in files if f.name == "manifest.json"]
                found.append(Entry(folder.name, "library", Path(folder), size, used[0] if used else 0.0))
        for kind in ("object", "program"):
            for file in _inside(self.folder / f"{kind}s"):
                with contextlib.suppress(OSError):
                    about = file.stat(follow_symlinks=False)
                    found.append(Entry(file.name, kind, Path(file), about.st_size, about.st_mtime))
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
            if entry.key != keep and self._remove(entry):
                removed.append(entry)
                total -= entry.size
        _ROOMS[self.folder, self.limit] = _Room(self.limit - total, 0, time.monotonic())
        return removed

    def clear(self) -> list[Entry]:
        """Remove every entry that no other process is loading at the moment, and the schedules that tuning remembers
        (`effcc.tuning`); returns the entries removed."""
        removed = self.prune(limit=-1)
        discard(self.folder / "tuned")
        return removed

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

    def _is_intact(self, key: str) -> bool:
        """Whether an entry holds a library with the digest that its manifest says, and is ours alone."""
        folder = self._entry_folder(key)
        try:
            require_private_part(folder, _ADVICE)
            inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                manifest = json.loads(read_private(inside, "manifest.json"))
                content = read_private(inside, "library.so")
            finally:
                os.close(inside)
        except (OSError, ValueError, RecursionError, CacheError):
            return False
        return isinstance(manifest, dict) and manifest.get("sha256") == hashlib.sha256(content).hexdigest()

    def _stored(self, build: Build) -> Library | None:
        """The library of an intact entry, loaded and marked as used just now; None where there is none, or it does not
        load."""
        if not self._is_intact(build.key):
            return None
        folder = self._entry_folder(build.key)
        try:
            library = self._opened(folder / "library.so", build.source)
        except ToolchainError:
            return None
        if self.writable:
            with contextlib.suppress(OSError):
                os.utime(folder / "manifest.json")
        return library

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

    def _built(self, build: Build, objects: Sequence[bytes]) -> Library:
        """Make in a folder aside, load, and rename into place; the caller holds the entry's lock."""
        key = build.key
        for leftover in (self.folder / "staging").glob(f"{key}.*"):
            discard(leftover)
        staged = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=self.folder / "staging"))
        try:
            file = _make(build, objects, staged / "library.so")
            library = self._opened(file, build.source)
            (staged / "source.cpp").write_text("\n".join((*build.kernels, build.source)))
            manifest = {
                "format": FORMAT,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "compiler": build.compiler.version,
                "flags": list(build.flags),
                "created": time.time(),
            }
            (staged / "manifest.json").write_text(json.dumps(manifest, indent=1))
            for part in staged.iterdir():
                part.chmod(0o600)  # the umask may let others write
                flush(part)
            flush(staged)
            self._withdraw(self._entry_folder(key))
            os.replace(staged, self._entry_folder(key))
            flush(self.folder / "entries")
        finally:
            discard(staged)
        library.path = self._entry_folder(key) / "library.so"
        return library

    def _apart(self, build: Build, objects: Sequence[bytes]) -> Library:
        """A library that this process alone has: it is made in a temporary folder, which goes once it is loaded."""
        with tempfile.TemporaryDirectory(prefix="effcc-") as folder:
            return self._opened(_make(build, objects, Path(folder) / "library.so"), build.source)

    def _remove(self, entry: Entry) -> bool:
        with self._locks.held_if_free(entry.key if entry.kind == "library" else lock_of(entry.key)) as free:
            if free:
                self._withdraw(entry.path)
            return free

    def _withdraw(self, path: Path) -> None:
        """Remove an entry whose lock the caller holds: aside first, as whoever is killed while it empties a folder
        would leave a part of an entry."""
        with contextlib.suppress(OSError):
            aside = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=self.folder / "staging"))
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)  # a folder that is closed cannot be moved
            with contextlib.suppress(OSError):
                os.replace(path, aside / "entry")
            discard(aside)
        discard(path)  # nothing is there, unless it could not be moved

    def _sweep_staging(self) -> None:
        """Remove what writers left that were killed: a live writer holds its entry's lock."""
        for staged in (self.folder / "staging").iterdir():
            key = staged.name.partition(".")[0]
            with self._locks.held_if_free(key) as free:
                if free:
                    discard(staged)


def _make(build: Build, objects: Sequence[bytes], place: Path) -> Path:
    with COMPILERS:
        options = lean_link_flags(build.compiler, openmp=build.openmp)
        if not build.kernels:
            flags = (*object_flags(build.target, openmp=build.openmp, contract=build.contract), *options)
            return compile_library(build.source, place, flags, compiler=build.compiler, timeout=build.timeout)
        return link_library(objects, place, options, compiler=build.compiler, timeout=build.timeout)


def _inside(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; nothing where there is none."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
        yield from found


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
