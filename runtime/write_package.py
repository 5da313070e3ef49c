"""Writing a package: everything aside first, then one rename, so that a package is whole or absent, and the one that
stood there before stays until then."""

from __future__ import annotations

import ctypes
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.numpy

from effcc.errors import PackageError
from effcc.runtime.c_header import c_header
from effcc.runtime.files import aside, flush, umask
from effcc.runtime.manifest import LIBRARY, MANIFEST, WEIGHTS, Manifest
from effcc.runtime.members import SIGNATURE, SUMS, seal_bytes, sealed, sums_of
from effcc.runtime.signature import sign
from effcc.runtime.stored_tensors import tensor_places

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # equal packages are equal files


def write_package(
    path: Path,
    manifest: Manifest,
    library: bytes,
    weights: Mapping[str, np.ndarray],
    key: Ed25519PrivateKey | None = None,
) -> Path:
    """Write a package to `path`: a folder if the path has no suffix, else a zip archive; returns `path`.

    manifest: with `files` still to be filled in. weights: by name, in memory order where they are not row-major (then
    flat). key: what to sign with, if anything.

    Raises PackageError if it cannot be written, or if `path` is a folder that is no package; what stood there is then
    as it was.
    """
    packed = safetensors.numpy.save({n: np.asarray(w, order="C") for n, w in weights.items()})
    sizes = {LIBRARY: len(library) + seal_bytes(), WEIGHTS: len(packed)}
    document = manifest.model_copy(update={"files": sizes})
    files = {MANIFEST: document.as_bytes(), WEIGHTS: packed}
    files[LIBRARY] = sealed(library, files)
    places = tensor_places(packed, WEIGHTS)
    files[f"{manifest.name}.h"] = c_header(document, places, files[LIBRARY], packed).encode()
    sums = sums_of(files)
    files[SUMS] = sums
    if key is not None:
        files[SIGNATURE] = sign(key, sums)
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
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return (path / MANIFEST).is_file()
        if not stat.S_ISREG(mode) or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def _write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    with aside(path) as staged:
        with zipfile.ZipFile(staged, "w") as archive:
            for name, content in files.items():
                kind = zipfile.ZIP_STORED if name == WEIGHTS else zipfile.ZIP_DEFLATED
                archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), content, kind)
        flush(staged)
        os.chmod(staged, 0o666 & ~umask())
        os.replace(staged, path)
        flush(path.absolute().parent)


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    with aside(path, folder=True) as staged:
        for name, content in files.items():
            (staged / name).write_bytes(content)
            flush(staged / name)
        os.chmod(staged, 0o777 & ~umask())
        flush(staged)
        require_writable(path)
        if path.exists():
            _exchange(staged, path)
        else:
            os.replace(staged, path)
        flush(path.absolute().parent)


def _exchange(one: Path, other: Path) -> None:
    """Let two folders take each other's place: at once where the system can, else with a moment between."""
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return
    between = one.with_name(one.name + ".old")
    os.replace(other, between)
    os.replace(one, other)
    os.replace(between, one)
