"""Packages: a compiled model in one file (or folder) that needs neither PyTorch nor a compiler where it runs.

    model.effcc             a zip archive, or a folder, of
        manifest.json           what is in it and which machine it is for (`effcc.runtime.manifest`)
        library.so              the code; its own thread pool, nothing but libc and libm
        weights.safetensors     weights, packed and folded ones as computed ahead of time
        <name>.h                the interface for C and C++
        SHA256SUMS              the digest of each of them; SHA256SUMS.sig: who vouches for that, if anyone does

Loading executes the library, as any compiled program does, and nothing else: no pickles, no expressions. Before that
every file is checked against its digest, the format's version and the CPU's features (`effcc.runtime.members`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from effcc.errors import InputError, PackageError, ToolchainError
from effcc.runtime import large_pages
from effcc.runtime.arguments import is_torch, require_apart, thread_count, to_array, to_torch, whole_number
from effcc.runtime.arrays import aligned, enter
from effcc.runtime.elf import require_loadable
from effcc.runtime.library import Library
from effcc.runtime.manifest import KEPT, LIBRARY, WEIGHTS, Manifest, PackagedBuffer, Placed
from effcc.runtime.members import read_members
from effcc.runtime.nesting import flatten, prepare_results
from effcc.runtime.size_trees import evaluate, show, symbols_of
from effcc.runtime.stored_tensors import read_tensors
from effcc.target import physical_cores

NO_NUMBERS: Mapping[str, int] = MappingProxyType({})
_KEPT_SIZES = 256  # for how many assignments of the sizes it is remembered where tensors lie


@dataclass(frozen=True)
class _Call:
    """What the sizes of a call decide: where inputs and outputs lie, and the bytes of scratch memory."""

    placed: Mapping[str, Placed]
    arena_bytes: int


class Package:
    """A compiled model, loaded. Several threads may call one package at a time, unless the model keeps state.

    Arguments are given as the model takes them, nested likewise and by its own names, or one tensor after the other in
    the order (or by the names) of `inputs`: NumPy arrays or torch tensors on the CPU, of the types that `inputs` says.
    Results come as the model returns them, nested likewise, as what the first tensor given is; they carry no gradients.

    A package is closed when nothing refers to it any more, by `close()`, or at the end of a `with` block.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        verify: str | os.PathLike[str] | None = None,
    ) -> None:
        """Load the package at `path`; `threads` (all physical cores by default) run each call.

        verify: a PEM file with the Ed25519 public key that must have signed the package.

        Raises PackageError for a file that is no package, is damaged, of another version, for another machine, or not
        signed as `verify` says; InputError for a number of threads that is none, or a file that holds no key.
        """
        self.threads = physical_cores() if threads is None else thread_count(threads)
        self.path = Path(path)
        self.manifest, self._kept, code = examined(self.path, verify)
        try:
            library = _loaded(code)
            self._run = library.entry_point(self.manifest.run)
            self._prepare = library.entry_point(self.manifest.prepare) if self.manifest.prepare else None
        except ToolchainError as error:
            raise PackageError(f"{self.path}: {error}") from error
        self._table = [b.name for b in self.manifest.buffers]
        self._size_names = [s.name for s in self.manifest.sizes]
        self._bindings = _bindings(self.manifest)
        self._numbers = [n.name for n in self.manifest.numbers]
        self._results = prepare_results(self.manifest.returns)
        self._calls: dict[tuple[int, ...], _Call] = {}
        self._arenas: list[np.ndarray] = []
        self._open = True
        if self._prepare is not None and self.manifest.prepare_at == "load":
            least = {s.name: s.least for s in self.manifest.sizes}
            self._enter(self._prepare, self._kept, {}, evaluate(self.manifest.arena_bytes, least))

    def close(self) -> None:
        """Let go of the code and the memory. No call may be running, and none can be made afterwards."""
        self._open = False
        self._run = self._prepare = None
        self._kept, self._arenas = {}, []

    def __enter__(self) -> Package:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def inputs(self) -> dict[str, str]:
        """The type of every input, by name, in order: `{"x": "f32[s0,64]"}`."""
        return {n: str(self.manifest.by_name[n]) for n in self.manifest.inputs}

    @property
    def outputs(self) -> dict[str, str]:
        """The type of every output, by name, in order."""
        return {n: str(self.manifest.by_name[n]) for n in self.manifest.outputs}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Raises InputError naming the argument where one is missing or too many, nests otherwise, or has the wrong dtype,
        rank or size; PackageError where memory for the call is short.
        """
        given = self._given(args, kwargs)
        arrays = {}
        for name, value in given.items():
            if name not in self._numbers:
                place = f"{self.manifest.inputs.index(name)} ({name})"
                arrays[name] = to_array(place, value, written=name in self.manifest.written)
        results, sizes = self._called(arrays, {n: given[n] for n in self._numbers if n in given})
        first = next((given[n] for n in self.manifest.inputs if n in given), None)
        outputs = [results[n] for n in self.manifest.outputs]
        return self._results([to_torch(a) for a in outputs] if is_torch(first) else outputs, sizes)

    def run(self, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, int] = NO_NUMBERS) -> dict[str, np.ndarray]:
        """The outputs by name, from the inputs by name and, where the model takes them, the numbers by name."""
        return self._called(arrays, numbers)[0]

    # Calling --------------------------------------------------------------------------------------------------------

    def _called(
        self, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """The outputs by name, and the sizes of the call."""
        if not self._open:
            raise InputError(f"{self.path.name}: the package is closed; load it again")
        manifest = self.manifest
        expected = [*manifest.inputs, *self._numbers]
        missing = [n for n in expected if n not in arrays and n not in numbers]
        unknown = [*(n for n in arrays if n not in manifest.inputs), *(n for n in numbers if n not in self._numbers)]
        if missing or unknown:
            wrong = f"{missing[0]!r} is missing" if missing else f"got {unknown[0]!r}, which is none of them"
            raise InputError(f"{self.path.name}: expected the inputs {', '.join(expected)}; {wrong}")
        sizes = self._sizes(arrays, numbers)
        call = self._call(sizes)
        written = [n for n in manifest.written if n in arrays]
        try:
            placed = {n: self._fitted(n, arrays[n], call.placed[n]) for n in manifest.inputs}
            if written:
                require_apart(written, arrays)
            fresh = {n: empty(place) for n, place in call.placed.items() if n not in placed}
            tensors = {**self._kept, **placed, **fresh}
            if self._prepare is not None and manifest.prepare_at == "call":
                tensors |= {b.name: empty(b.at({})) for b in manifest.buffers if b.role == "prepared"}
                self._enter(self._prepare, tensors, sizes, call.arena_bytes)
            self._enter(self._run, tensors, sizes, call.arena_bytes)
        except MemoryError as error:
            raise PackageError(f"{self.path.name}: memory is short for a call at these sizes: {error}") from None
        for name in written:
            if placed[name] is not arrays[name]:
                arrays[name][...] = placed[name]
        return {n: arrays[n] if n in placed else tensors[n] for n in manifest.outputs}, sizes

    def _given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs by name, from arguments as the model takes them, or one tensor after the other."""
        names = [*self.manifest.inputs, *self._numbers]
        flat = all(isinstance(value, np.ndarray) or is_torch(value) for value in (*args, *kwargs.values()))
        if flat and len(args) + len(kwargs) == len(names) and set(names[len(args) :]) == set(kwargs):
            return {**dict(zip(names, args, strict=False)), **kwargs}
        takes = self.manifest.takes
        given: dict[str, Any] = dict(zip((p.name for p in takes), args, strict=False))
        twice = [n for n in kwargs if n in given]
        if twice:
            raise InputError(f"{self.path.name}: got {twice[0]!r} by position and by name")
        given |= kwargs
        known = {p.name for p in takes}
        if len(args) > len(takes) or not set(given) <= known:
            raise InputError(self._expected(args, kwargs))
        found: dict[str, Any] = {}
        for parameter in takes:
            if parameter.name in given:
                for k, _, value in flatten(parameter.value, given[parameter.name], parameter.name):
                    found[names[k]] = value
        return found

    def _expected(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """What a call takes, where it got something else altogether."""
        names, parameters = [*self.manifest.inputs, *self._numbers], [p.name for p in self.manifest.takes]
        unknown = [n for n in kwargs if n not in names and n not in parameters]
        got = f"{unknown[0]!r}, which is none of them" if unknown else str(len(args) + len(kwargs))
        missing = [n for n in names[len(args) :] if n not in kwargs]
        if unknown and missing:
            got += f"; {missing[0]!r} is missing"
        as_taken = "" if parameters == names else f", or the arguments {', '.join(parameters)}"
        return f"{self.path.name}: expected {len(names)} inputs ({', '.join(names)}){as_taken}, got {got}"

    def _sizes(self, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]) -> dict[str, int]:
        for name in self.manifest.inputs:
            if arrays[name].ndim != len(self.manifest.by_name[name].shape):
                raise InputError(self._complaint(name, arrays[name]))
        told = self._told(numbers) if numbers else {}
        found: dict[str, int] = {}
        for size in self.manifest.sizes:
            if size.name in told:
                name, value = told[size.name]
            else:
                name, axis = self._bindings[size.name]
                value = arrays[name].shape[axis]
            found[size.name] = value
            if value < size.least or (size.most is not None and value > size.most):
                limits = f"{size.least}..{'' if size.most is None else size.most}"
                given = self._complaint(name, arrays[name]) if name in arrays else f"{name} = {numbers[name]}"
                raise InputError(f"{given}: {size.name} is in {limits}")
        return found

    def _told(self, numbers: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
        """What numbers among the arguments tell: by size, the number's name and the size."""
        found: dict[str, tuple[str, int]] = {}
        for number in self.manifest.numbers:
            value = whole_number(f"{self.path.name}: argument {number.name}", numbers[number.name])
            if len(number.sizes) == 1:
                found[number.sizes[0]] = (number.name, value)
            else:
                above, below = number.sizes
                found |= {above: (number.name, max(value, 0)), below: (number.name, max(-value, 0))}
        return found

    def _call(self, sizes: Mapping[str, int]) -> _Call:
        key = tuple(sizes.values())
        found = self._calls.get(key)
        if found is None:
            self._require_conditions(sizes)
            buffers = [b for b in self.manifest.buffers if b.role in ("input", "output")]
            found = _Call({b.name: b.at(sizes) for b in buffers}, evaluate(self.manifest.arena_bytes, sizes))
            if found.arena_bytes < 0:
                raise PackageError(f"{self.path.name}: the scratch memory at these sizes is {found.arena_bytes} bytes")
            if len(self._calls) >= _KEPT_SIZES:
                self._calls.clear()
            self._calls[key] = found
        return found

    def _require_conditions(self, sizes: Mapping[str, int]) -> None:
        """Raise InputError at sizes that the model was not captured for."""
        for condition in self.manifest.conditions:
            if evaluate(condition, sizes) != 1:
                given = ", ".join(f"{name} = {sizes[name]}" for name in sorted(symbols_of(condition)))
                raise InputError(
                    f"{self.path.name}: the model was captured for sizes where {show(condition)} is 1, got {given}; "
                    f"the inputs are {', '.join(f'{n}: {text}' for n, text in self.inputs.items())}"
                )

    def _fitted(self, name: str, array: np.ndarray, place: Placed) -> np.ndarray:
        """An input, checked; copied where its elements do not lie as the code expects."""
        if array.dtype != place.dtype or array.shape != place.shape:
            raise InputError(self._complaint(name, array))
        fits = all(n == 1 or a == b for n, a, b in zip(place.shape, array.strides, place.strides, strict=True))
        if (fits and array.ctypes.data % array.itemsize == 0) or array.size == 0:
            return array
        made = empty(place)
        made[...] = array
        return made

    def _complaint(self, name: str, array: np.ndarray) -> str:
        position = self.manifest.inputs.index(name)
        expected, got = self.manifest.by_name[name], f"{array.dtype}{list(array.shape)}"
        return f"{self.path.name}: input {position} ({name}): expected {expected}, got {got}"

    def _enter(self, entry: Any, tensors: Mapping[str, np.ndarray], sizes: Mapping[str, int], arena_bytes: int) -> None:
        arena = self._arenas.pop() if self._arenas else aligned(arena_bytes)
        if arena.nbytes < arena_bytes:
            arena = aligned(arena_bytes)
        try:
            enter(entry, self._table, tensors, self._size_names, sizes, arena, self.threads)
        finally:
            self._arenas.append(arena)


# Loading --------------------------------------------------------------------------------------------------------------


def examined(path: Path, key: str | os.PathLike[str] | None = None) -> tuple[Manifest, dict[str, np.ndarray], bytes]:
    """All of loading that runs no code of the package: its manifest, what outlives a call, and its library.

    Raises PackageError, as Package does.
    """
    members = read_members(path, key)
    try:
        require_loadable(members.library, members.manifest.platform)
        kept = _kept(members.manifest, read_tensors(members.weights, WEIGHTS))
    except PackageError as error:
        raise PackageError(f"{path}: {error}") from error
    return members.manifest, kept, members.library


def empty(place: Placed) -> np.ndarray:
    """An array in new memory, laid out as the code expects."""
    if not place.bytes:
        return np.empty(place.shape, place.dtype)
    return np.ndarray(place.shape, place.dtype, aligned(place.bytes), strides=place.strides)


def _kept(manifest: Manifest, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Memory for everything that outlives a call, laid out as the code expects. Raises PackageError."""
    buffers = [b for b in manifest.buffers if b.role in KEPT]
    expected = {b.name for b in buffers if b.role != "prepared" or manifest.prepare is None}
    if set(stored) != expected:
        missing, unknown = sorted(expected - set(stored)), sorted(set(stored) - expected)
        raise PackageError(
            f"{WEIGHTS} lacks {missing[0]!r}" if missing else f"{WEIGHTS} has {unknown[0]!r}, which nothing reads"
        )
    try:
        places = {b.name: b.at({}) for b in buffers}
        needed = sum(p.bytes for p in places.values())
        if needed > _memory():
            raise PackageError(f"its weights take {needed} bytes; this machine has {_memory()}")
        starts, size = large_pages.places(p.bytes for p in places.values())
        memory = large_pages.allocate(size)
        found = {}
        for buffer, start in zip(buffers, starts, strict=True):
            place = places[buffer.name]
            held = np.ndarray(place.shape, place.dtype, memory, start, place.strides) if place.bytes else empty(place)
            found[buffer.name] = held
            if buffer.name in stored:
                _fill(found[buffer.name], places[buffer.name], stored[buffer.name], buffer)
    except (InputError, MemoryError) as error:
        raise PackageError(f"the weights cannot be held: {error}") from None
    return found


def _fill(made: np.ndarray, place: Placed, stored: np.ndarray, buffer: PackagedBuffer) -> None:
    flat = buffer.strides is not None and made.size > 0
    shape = (place.bytes // made.itemsize,) if flat else made.shape
    if stored.dtype != made.dtype or stored.shape != shape:
        got = f"{stored.dtype}{list(stored.shape)}"
        raise PackageError(f"{WEIGHTS}: expected {buffer.name}: {buffer}, got {got}")
    made[...] = np.ndarray(place.shape, place.dtype, stored, strides=place.strides) if flat else stored


def _memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


_FOLDER = "effcc-package-"
_LEFT_AFTER = 3600.0
"""Seconds after which nobody is loading a library any more that was written for it."""


def _loaded(code: bytes) -> Library:
    """The library in this process; no file of it stays, nor of processes that were killed while they loaded one."""
    _remove_left()
    folder = tempfile.mkdtemp(prefix=_FOLDER)
    try:
        file = Path(folder, LIBRARY)
        file.write_bytes(code)
        return Library(file)
    except OSError as error:
        raise PackageError(f"cannot write {LIBRARY} to load it: {error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what is loaded stays mapped


def _remove_left() -> None:
    """Remove this user's folders that killed processes left."""
    before = time.time() - _LEFT_AFTER
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as found:
        for entry in found:
            if entry.name.startswith(_FOLDER) and entry.is_dir(follow_symlinks=False):
                about = entry.stat(follow_symlinks=False)
                if about.st_uid == os.getuid() and about.st_mtime < before:
                    shutil.rmtree(entry.path, ignore_errors=True)


def _bindings(manifest: Manifest) -> dict[str, tuple[str, int]]:
    """For each size symbol, an input and the axis that has this size."""
    found: dict[str, tuple[str, int]] = {}
    for name in manifest.inputs:
        for axis, size in enumerate(manifest.by_name[name].shape):
            if isinstance(size, str):
                found.setdefault(size, (name, axis))
    return found
