"""Writing a package: everything aside first, then one rename, so that a package is whole or absent."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from effcc.errors import PackageError
from effcc.runtime.c_header import c_header, identifier
from effcc.runtime.manifest import LIBRARY, MANIFEST, WEIGHTS, Manifest

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # equal packages are equal files


def write_package(
    path: Path, manifest: Manifest, library: bytes, weights: Mapping[str, np.ndarray], arena: str
) -> Path:
    """Write a package to `path`: a folder if the path has no suffix, else a zip archive; returns `path`.

    manifest: without checksums. weights: by name, in memory order where they are not row-major (then flat). arena:
    scratch bytes as a C expression.

    Raises PackageError if it cannot be written, or if `path` is a folder that is no package; nothing is then left
    there.
    """
    name = identifier(path.stem)
    packed = safetensors.numpy.save({n: np.asarray(w, order="C") for n, w in weights.items()})
    files = {
        LIBRARY: library,
        WEIGHTS: packed,
        f"{name}.h": c_header(manifest, name, arena, _places(packed)).encode(),
    }
    sums = {n: hashlib.sha256(content).hexdigest() for n, content in files.items()}
    document = dataclasses.replace(manifest, name=name, sha256=sums).as_json()
    files[MANIFEST] = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
    try:
        if path.suffix:
            _write_archive(path, files)
        else:
            _write_folder(path, files)
    except OSError as error:
        raise PackageError(f"cannot write the package {path}: {error}") from error
    return path


def require_writable(path: Path) -> None:
    """Raises PackageError where a package could not be written, before anything is compiled for it."""
    if not path.absolute().parent.is_dir():
        raise PackageError(f"cannot write the package {path}: there is no folder {path.absolute().parent}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise PackageError(f"cannot write the package {path}: the folder {path.absolute().parent} is not writable")
    if path.suffix and path.is_dir():
        raise PackageError(f"cannot write the package {path}: it is a folder")
    if path.suffix not in ("", ".effcc") and path.is_file() and path.stat().st_size and not is_package(path):
        raise PackageError(f"cannot write the package {path}: it exists and is no package; remove it first")
    if not path.suffix and path.exists() and not is_package(path):
        raise PackageError(f"cannot write the package {path}: it exists and is no package (it has no {MANIFEST})")


def is_package(path: Path) -> bool:
    """Whether a path is a folder or an archive with a manifest."""
    if path.is_dir():
        return (path / MANIFEST).is_file()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return MANIFEST in archive.namelist()


def _places(packed: bytes) -> dict[str, int]:
    """Where in a safetensors file each tensor begins: behind 8 bytes of length and a JSON header of that length."""
    length = int.from_bytes(packed[:8], "little")
    header = json.loads(packed[8 : 8 + length])
    return {n: 8 + length + entry["data_offsets"][0] for n, entry in header.items() if n != "__metadata__"}


def _write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    descriptor, staged = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for name, content in files.items():
                    kind = zipfile.ZIP_STORED if name == WEIGHTS else zipfile.ZIP_DEFLATED
                    archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), content, kind)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(staged, 0o666 & ~_umask())
        os.replace(staged, path)
    finally:
        Path(staged).unlink(missing_ok=True)


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    staged = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
    try:
        for name, content in files.items():
            (staged / name).write_bytes(content)
        os.chmod(staged, 0o777 & ~_umask())
        require_writable(path)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(staged, path)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
