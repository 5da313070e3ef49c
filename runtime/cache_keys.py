"""What an entry of the compile cache is known by: the digest of everything that decides what it contains."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from effcc.runtime.toolchain import Compiler

FORMAT = 1
"""Of the entries; a change makes older ones unreachable."""

_SOURCE_SUFFIXES = (".py", ".h", ".cpp", ".lark", ".rules")


def entry_key(source: str, compiler: Compiler, flags: Sequence[str], features: Sequence[str]) -> str:
    """The digest of everything that decides what an entry contains, as 40 hexadecimal digits."""
    parts = {
        "format": FORMAT,
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
