"""Objects of kernels: compiled side by side, each once for all programs that have it.

An object is a file `objects/<key>` of the compile cache (`effcc.runtime.checked_files`).
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import queue
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from effcc.errors import noting
from effcc.runtime.cache_keys import entry_key
from effcc.runtime.checked_files import CheckedFiles, lock_of
from effcc.runtime.commands import Interrupt
from effcc.runtime.fork import Slots
from effcc.runtime.toolchain import Compiler, compile_flags, compile_object, object_flags
from effcc.target import Target

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds that a lock may be held beyond the time that the compiler has."""
_ENTRY_LEVEL = 1
"""How far entry points are optimized: they call kernels, and all programs wait for their compilation at the end."""
_THREADS = '#include "effcc/threads.h"\n'
"""The text of how threads start and wait, which all programs share; it is compiled as entry points are."""
_THREADS_APART = "-DEFFCC_THREADS_APART"


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


COMPILERS = Slots(usable_cores())
"""How many compilers run at a time, for all threads of this process together."""


@dataclass(frozen=True)
class Recipe:
    """How kernels are compiled: everything that decides what an object contains, but its text. openmp, level: see
    `object_flags`."""

    compiler: Compiler
    target: Target
    timeout: float
    contract: bool = False
    openmp: bool = False
    level: int = 3

    @functools.cached_property
    def flags(self) -> tuple[str, ...]:
        return object_flags(self.target, openmp=self.openmp, contract=self.contract, level=self.level)

    def key(self, text: str) -> str:
        """What the object of `text` is known by."""
        return entry_key(text, self.compiler, self.flags, self.target.features)


@dataclass(frozen=True)
class Build:
    """What a library is made of: the texts of kernels that are compiled apart, if any, and the source that they are
    linked with; openmp: whether its threads are OpenMP's; contract: whether products and sums may be fused; timeout:
    seconds that a call of the compiler may take."""

    source: str
    kernels: tuple[str, ...]
    compiler: Compiler
    target: Target
    openmp: bool
    contract: bool
    timeout: float

    @functools.cached_property
    def flags(self) -> tuple[str, ...]:
        """Those of the library, as if it were compiled in one go."""
        return compile_flags(self.target, openmp=self.openmp, contract=self.contract)

    @functools.cached_property
    def key(self) -> str:
        """What the library is known by."""
        return entry_key("\0".join((self.source, *self.kernels)), self.compiler, self.flags, self.target.features)

    @property
    def recipe(self) -> Recipe:
        """Of its kernels."""
        return Recipe(self.compiler, self.target, self.timeout, self.contract)

    @property
    def entry_recipe(self) -> Recipe:
        """Of its source."""
        return replace(self.recipe, openmp=self.openmp, level=_ENTRY_LEVEL)


_Unit = tuple[Recipe, str]
"""A text, and how it is compiled."""


class Making:
    """Kernels on their way to objects, in threads that wait for compilers; of those that wait, the longest is next, as
    one that begins last is waited for alone. Use it as a context manager: what still runs when it is left, by an error
    or because nobody asked for the objects, is ended."""

    def __init__(self, store: CheckedFiles, recipe: Recipe) -> None:
        self._store, self._recipe = store, recipe
        self._interrupt = Interrupt()
        self._workers = ThreadPoolExecutor(usable_cores(), thread_name_prefix="effcc-compiler")
        self._made: dict[_Unit, Future[bytes]] = {}
        self._waiting: queue.PriorityQueue[tuple[int, int, _Unit]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._wanted = False

    def __enter__(self) -> Making:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None or not self._wanted:
            for future in self._made.values():
                future.cancel()
            self._interrupt.now()
        self._workers.shutdown()

    def add(self, text: str, recipe: Recipe | None = None) -> None:
        """Begin with a kernel, or with what is compiled by another recipe, unless it is there or under way."""
        unit = recipe or self._recipe, text
        if unit not in self._made:
            self._made[unit] = Future()
            self._waiting.put((-len(text), next(self._order), unit))
            self._workers.submit(self._work)

    def objects(self, texts: Sequence[str], recipe: Recipe | None = None) -> list[bytes]:
        """The objects of kernels, when all are done. Raises ToolchainError for the first that the compiler refuses,
        whose text is among the error's facts as `unit`."""
        self._wanted = True
        for text in texts:
            self.add(text, recipe)
        found = []
        for text in texts:
            with noting(unit=text):
                found.append(self._made[recipe or self._recipe, text].result())
        return found

    def library(self, build: Build) -> list[bytes]:
        """The objects of a library: its kernels', that of its source, which nobody else has, and that of how its
        threads wait."""
        for text in build.kernels:
            self.add(text)
        shared = [_THREADS] if _THREADS in build.source else []
        for text in shared:
            self.add(text, build.entry_recipe)
        with COMPILERS, tempfile.TemporaryDirectory(prefix="effcc-") as folder:
            source = self._compile(build.source, (*build.entry_recipe.flags, _THREADS_APART), Path(folder))
        return [*self.objects(build.kernels), source, *self.objects(shared, build.entry_recipe)]

    def forget(self) -> None:
        """Remove from the cache what was taken from it or made: it does not link."""
        self._store.forget(recipe.key(text) for recipe, text in self._made)

    def _work(self) -> None:
        """Make the object of the longest text that waits: there is one for each call."""
        _, _, unit = self._waiting.get_nowait()
        made = self._made[unit]
        if made.set_running_or_notify_cancel():
            try:
                made.set_result(self._object(*unit))
            except BaseException as error:
                made.set_exception(error)  # raised for whoever asks for the object, as by any executor

    def _object(self, recipe: Recipe, text: str) -> bytes:
        store = self._store
        key = recipe.key(text)
        known = store.stored(key)
        if known is not None:
            return known
        with COMPILERS:
            if not store.writable:
                with tempfile.TemporaryDirectory(prefix="effcc-") as folder:
                    return self._compile(text, recipe.flags, Path(folder))
            with store.locks.held(lock_of(key), recipe.timeout + PATIENCE):
                known = store.stored(key)
                if known is not None:
                    return known
                with store.staged(key) as staged:
                    made = self._compile(text, recipe.flags, staged)
                    store.store(key, made, staged)
                    return made

    def _compile(self, text: str, flags: Sequence[str], folder: Path) -> bytes:
        compiler, timeout = self._recipe.compiler, self._recipe.timeout
        begin = time.perf_counter()
        made = compile_object(text, flags, folder, compiler=compiler, timeout=timeout, interrupt=self._interrupt)
        log.debug("compiled %d letters of C++ in %.2f s", len(text), time.perf_counter() - begin)
        return made
