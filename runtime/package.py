"""Packages: a compiled model in one file (or folder) that needs neither PyTorch nor a compiler where it runs.

    model.effcc             a zip archive, or a folder, of
        manifest.json           what is in it and which machine it is for (`effcc.runtime.manifest`)
        library.so              the code; its own thread pool, nothing but libc and libm
        weights.safetensors     weights, packed and folded ones as computed ahead of time
        <name>.h                the interface for C and C++

Loading executes the library, as any compiled program does, and nothing else: no pickles. Every file is checked
against its SHA-256, the format's version and the CPU's features before that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from effcc.errors import InputError, PackageError, ToolchainError
from effcc.ir.dims import evaluate
from effcc.runtime.arrays import aligned, allocate, arena_for, enter
from effcc.runtime.library import Library
from effcc.runtime.manifest import LIBRARY, MANIFEST, WEIGHTS, Manifest, read_manifest
from effcc.target import physical_cores

_EXPECTED = f"expected a package that `effcc compile` or effcc.export wrote (a zip archive or folder with {MANIFEST})"


class Package:
    """A compiled model, loaded. Several threads may call one package at a time, unless the model keeps state.

    Arguments are given by position, or by the names in `inputs`: NumPy arrays or torch tensors on the CPU, of the types
    that `inputs` says. Results are of the kind that the first argument is: one where the model returns one tensor, else
    a tuple in the order of `outputs`.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Load the package at `path`; `threads` (all physical cores by default) run each call.

        Raises PackageError for a file that is no package, is damaged, of another version, or for another machine;
        InputError for a number of threads that is none.
        """
        if threads is not None and threads < 1:
            raise InputError(f"threads: expected a whole number of at least 1, got {threads}")
        self.path = Path(path)
        self.threads = threads or physical_cores()
        with _opened(self.path) as folder:
            self.manifest = _checked_manifest(self.path, folder)
            self.manifest.require_runnable()
            try:
                library = Library(folder / LIBRARY)
                self._run = library.entry_point(self.manifest.run)
                self._prepare = library.entry_point(self.manifest.prepare) if self.manifest.prepare else None
            except ToolchainError as error:
                raise PackageError(f"{self.path}: {error}") from error
            stored = _read_weights(self.path, folder / WEIGHTS)
        self._buffers = {b.name: b for b in self.manifest.buffers}
        self._table = [b.name for b in self.manifest.buffers]
        self._bindings = _bindings(self.manifest)
        self._kept = self._keep(stored)
        self._arenas: list[np.ndarray] = []
        if self._prepare is not None and self.manifest.prepare_at == "load":
            self._enter(self._prepare, self._kept, {})

    @property
    def inputs(self) -> dict[str, str]:
        """The type of every input, by name, in order: `{"x": "f32[s0,64]"}`."""
        return {n: str(self._buffers[n].type) for n in self.manifest.inputs}

    @property
    def outputs(self) -> dict[str, str]:
        """The type of every output, by name, in order."""
        return {n: str(self._buffers[n].type) for n in self.manifest.outputs}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model.

        Raises InputError naming the argument where one is missing or too many, or has the wrong dtype, rank or size.
        """
        given = self._given(args, kwargs)
        results = self.run({name: _to_numpy(name, value) for name, value in given.items()})
        first = next(iter(given.values()), None)
        back = _to_torch if _is_torch(first) else lambda array: array
        values = tuple(back(results[n]) for n in self.manifest.outputs)
        return values[0] if self.manifest.single else values

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name, from the inputs by name."""
        missing = [n for n in self.manifest.inputs if n not in arrays]
        unknown = [n for n in arrays if n not in self.manifest.inputs]
        if missing or unknown:
            wrong = f"{missing[0]!r} is missing" if missing else f"got {unknown[0]!r}, which is none of them"
            raise InputError(f"{self.path.name}: expected the inputs {', '.join(self.manifest.inputs)}; {wrong}")
        sizes = self._sizes(arrays)
        placed = {n: self._fitted(n, arrays[n], sizes) for n in self.manifest.inputs}
        fresh = {b.name: allocate(b.type, sizes) for b in self.manifest.buffers if b.role == "output"}
        tensors = {**self._kept, **placed, **fresh}
        if self._prepare is not None and self.manifest.prepare_at == "call":
            tensors |= {b.name: allocate(b.type, {}) for b in self.manifest.buffers if b.role == "prepared"}
            self._enter(self._prepare, tensors, sizes)
        self._enter(self._run, tensors, sizes)
        for name in self.manifest.written:
            if name in placed and placed[name] is not arrays[name]:
                arrays[name][...] = placed[name]
        return {n: arrays[n] if n in placed else tensors[n] for n in self.manifest.outputs}

    # Loading --------------------------------------------------------------------------------------------------------

    def _keep(self, stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Memory for everything that outlives a call, laid out as the code expects."""
        kept = {}
        for buffer in self.manifest.buffers:
            if buffer.role in ("weight", "state") and buffer.name not in stored:
                raise PackageError(f"{self.path}: {WEIGHTS} lacks {buffer.name!r}")
            if buffer.role not in ("weight", "state", "prepared"):
                continue
            made = allocate(buffer.type, {})
            if buffer.name in stored:
                found = stored[buffer.name]
                if not buffer.type.is_contiguous and found.ndim == 1 and found.dtype == made.dtype:
                    found = allocate(buffer.type, {}, np.ascontiguousarray(found))
                if found.dtype != made.dtype or found.shape != made.shape:
                    got = f"{found.dtype}{list(found.shape)}"
                    raise PackageError(f"{self.path}: {WEIGHTS}: expected {buffer.name}: {buffer.type}, got {got}")
                made[...] = found
            kept[buffer.name] = made
        return kept

    # Calling --------------------------------------------------------------------------------------------------------

    def _given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        names = self.manifest.inputs
        if len(args) > len(names):
            raise InputError(f"{self.path.name}: expected {len(names)} inputs ({', '.join(names)}), got {len(args)}")
        given = dict(zip(names, args, strict=False))
        twice = [n for n in kwargs if n in given]
        if twice:
            raise InputError(f"{self.path.name}: got {twice[0]!r} by position and by name")
        return {**given, **kwargs}

    def _sizes(self, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        found: dict[str, int] = {}
        for size, (name, axis) in self._bindings.items():
            if arrays[name].ndim != self._buffers[name].type.rank:
                raise InputError(self._complaint(name, arrays[name]))
            found[size] = arrays[name].shape[axis]
            low, high = self.manifest.sizes[size]
            if not (low <= found[size] and (high is None or found[size] <= high)):
                limits = f"{low}..{'' if high is None else high}"
                raise InputError(f"{self._complaint(name, arrays[name])}: {size} is in {limits}")
        return found

    def _fitted(self, name: str, array: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
        """An input, checked; copied where its elements do not lie as the code expects."""
        buffer = self._buffers[name]
        shape = tuple(evaluate(d, sizes) for d in buffer.type.shape)
        if array.dtype != buffer.type.dtype.numpy or array.shape != shape:
            raise InputError(self._complaint(name, array))
        strides = [evaluate(s, sizes) * array.itemsize for s in buffer.type.layout]
        fits = all(n == 1 or a == b for n, a, b in zip(shape, array.strides, strides, strict=True))
        aligned = array.ctypes.data % array.itemsize == 0
        usable = array.flags.writeable or name not in self.manifest.written
        if (fits and aligned and usable) or array.size == 0:
            return array
        made = allocate(buffer.type, sizes)
        made[...] = array
        return made

    def _complaint(self, name: str, array: np.ndarray) -> str:
        position = self.manifest.inputs.index(name)
        expected, got = self._buffers[name].type, f"{array.dtype}{list(array.shape)}"
        return f"{self.path.name}: input {position} ({name}): expected {expected}, got {got}"

    def _enter(self, entry: Any, tensors: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> None:
        names = list(self.manifest.sizes)
        needed = arena_for(self.manifest.arena_bytes, sizes, names)
        arena = self._arenas.pop() if self._arenas else aligned(needed)
        if arena.nbytes < needed:
            arena = aligned(needed)
        try:
            enter(entry, self._table, tensors, names, sizes, arena, self.threads)
        finally:
            self._arenas.append(arena)


@contextlib.contextmanager
def _opened(path: Path) -> Any:
    """The package's files in a folder: where they are, or unpacked for as long as loading takes."""
    if path.is_dir():
        yield path
        return
    if not path.exists():
        raise PackageError(f"{path}: {_EXPECTED}; there is no such file")
    unpacked = Path(tempfile.mkdtemp(prefix="effcc-package-"))
    try:
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if Path(member.filename).name != member.filename:
                        raise PackageError(f"{path}: {_EXPECTED}, got an archive that holds {member.filename!r}")
                archive.extractall(unpacked)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            start = path.read_bytes()[:8]
            raise PackageError(
                f"{path}: {_EXPECTED}, got {path.stat().st_size} bytes that begin {start!r}: {error}"
            ) from error
        yield unpacked
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)  # what is loaded stays mapped


def _checked_manifest(path: Path, folder: Path) -> Manifest:
    """The manifest, with every file's checksum verified."""
    if not (folder / MANIFEST).is_file():
        held = ", ".join(sorted(f.name for f in folder.iterdir())[:6]) or "nothing"
        raise PackageError(f"{path}: {_EXPECTED}; it holds {held}")
    try:
        document = json.loads((folder / MANIFEST).read_text())
    except ValueError as error:
        raise PackageError(f"{path}: {MANIFEST} is damaged: {error}") from error
    try:
        manifest = read_manifest(document)
    except PackageError as error:
        raise PackageError(f"{path}: {error}") from None
    for name in (LIBRARY, WEIGHTS):
        if name not in manifest.sha256:
            raise PackageError(f"{path}: {MANIFEST} has no checksum of {name}")
    for name, expected in manifest.sha256.items():
        try:
            found = hashlib.sha256((folder / Path(name).name).read_bytes()).hexdigest()
        except OSError as error:
            raise PackageError(f"{path}: {name} is missing or cannot be read: {error}") from error
        if found != expected:
            raise PackageError(f"{path}: {name} is damaged: expected SHA-256 {expected}, got {found}")
    return manifest


def _read_weights(path: Path, file: Path) -> dict[str, np.ndarray]:
    try:
        found: dict[str, np.ndarray] = safetensors.numpy.load_file(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise PackageError(f"{path}: {WEIGHTS} cannot be read: {error}") from error
    return found


def _bindings(manifest: Manifest) -> dict[str, tuple[str, int]]:
    """For each size symbol, an input and the axis that has this size."""
    types = {b.name: b.type for b in manifest.buffers}
    found: dict[str, tuple[str, int]] = {}
    for name in manifest.inputs:
        for axis, size in enumerate(types[name].shape):
            if not isinstance(size, int) and size.is_Symbol:
                found.setdefault(size.name, (name, axis))
    missing = [s for s in manifest.sizes if s not in found]
    if missing:
        raise PackageError(f"{MANIFEST}: the size {missing[0]!r} stands alone in no input's type")
    return found


def _is_torch(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "data_ptr")


def _to_numpy(name: str, value: Any) -> np.ndarray:
    if _is_torch(value):
        import torch

        tensor = value.detach()
        if not tensor.is_cpu:
            raise InputError(f"input {name}: expected a tensor on the CPU, got one on {tensor.device}")
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()
    if not isinstance(value, np.ndarray):
        raise InputError(f"input {name}: expected a NumPy array or a torch tensor, got {type(value).__name__}")
    return value


def _to_torch(array: np.ndarray) -> Any:
    import torch

    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
