"""The headers of kernels are compiled once a process, and kernels become what they would be without."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from effcc.errors import ToolchainError
from effcc.runtime import toolchain
from effcc.runtime.precompiled import TEXT, Precompiled
from effcc.runtime.toolchain import compile_object, find_compiler, object_flags
from effcc.target import detect

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create") or find_compiler().family != "gcc", reason="headers are precompiled by g++ on Linux"
)
KERNEL = TEXT + "namespace effcc { void run(const f32* x, f32* y) { store(y, reduce_max(load<f32v>(x)) + f32v{}); } }\n"


def digests(folder: Path, count: int) -> set[str]:
    made = (compile_object(KERNEL, object_flags(detect(), level=1), folder) for _ in range(count))
    return {hashlib.sha256(object).hexdigest() for object in made}


def test_objects_are_the_same_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = Precompiled()
    monkeypatch.setattr(toolchain, "_HEADERS", headers)
    assert len(digests(tmp_path, 8)) == 1
    (file,) = headers._files.values()
    assert os.fstat(file).st_size > 100_000
    assert list(tmp_path.iterdir()) == []


def test_headers_that_the_compiler_does_not_take_are_read_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = Precompiled()
    monkeypatch.setattr(toolchain, "_HEADERS", headers)
    expected = digests(tmp_path, 7)
    (file,) = headers._files.values()
    os.truncate(file, 1000)
    os.pwrite(file, b"damage" * 50, 0)
    assert digests(tmp_path, 1) == expected


def test_a_compiler_that_cannot_make_them_is_asked_once(tmp_path: Path) -> None:
    headers, calls = Precompiled(), []

    def make() -> bytes:
        calls.append(1)
        raise ToolchainError("no")

    assert [headers.flags("key", KERNEL, tmp_path, make) for _ in range(20)] == [()] * 20
    assert len(calls) == 1


def test_what_includes_something_else_first_has_none(tmp_path: Path) -> None:
    headers = Precompiled()
    assert all(headers.flags("key", "int x;\n" + TEXT, tmp_path, bytes) == () for _ in range(20))
