"""Compilers that misbehave, for the tests of the toolchain and the cache."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from effcc.runtime.cache import CompileCache
from effcc.runtime.toolchain import find_compiler


@pytest.fixture
def cache(tmp_path: Path) -> CompileCache:
    """An empty cache."""
    return CompileCache(tmp_path / "cache")


@pytest.fixture
def fake_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes CXX a shell script: it answers --version itself, and runs `body` for anything else.

    In `body`, "$CXX_REAL" is the machine's own compiler and "$2" the library it should write.
    """

    real = find_compiler().command[0]

    def make(body: str) -> Path:
        script = tmp_path / "fake-cxx"
        script.write_text(
            f'#!/bin/sh\nif [ "$1" = --version ]; then echo "fake-cxx 1.0"; exit 0; fi\nCXX_REAL={real}\n{body}\n'
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(script))
        return script

    return make
