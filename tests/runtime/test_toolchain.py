"""The compiler is found, called with flags that keep eager's floating point, and never leaves half a library."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from effcc.errors import ToolchainError
from effcc.runtime.library import Library
from effcc.runtime.toolchain import Compiler, compile_flags, compile_library, find_compiler
from effcc.target import detect, generic

FakeCompiler = Callable[[str], Path]


def test_compiles_text_into_a_library_that_loads(tmp_path: Path) -> None:
    path = compile_library('extern "C" int answer() { return 42; }', tmp_path / "a.so", compile_flags(detect()))
    assert Library(path).function("answer")() == 42
    assert [file.name for file in tmp_path.iterdir()] == ["a.so"]


def test_a_failing_compiler_is_an_error_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="nonsense"):
        compile_library("int nonsense(", tmp_path / "a.so", compile_flags(detect()))
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_writes_half_a_library_and_fails_leaves_nothing(
    tmp_path: Path, fake_compiler: FakeCompiler
) -> None:
    fake_compiler('printf half > "$2"; echo "internal compiler error" >&2; exit 4')
    destination = tmp_path / "out" / "a.so"
    destination.parent.mkdir()
    with pytest.raises(ToolchainError, match=r"exit code 4(.|\n)*internal compiler error"):
        compile_library("", destination, ())
    assert list(destination.parent.iterdir()) == []


def test_a_compiler_that_reports_success_and_writes_nothing_is_an_error(
    tmp_path: Path, fake_compiler: FakeCompiler
) -> None:
    fake_compiler("exit 0")
    with pytest.raises(ToolchainError, match="wrote no library"):
        compile_library("", tmp_path / "a.so", ())


def test_a_hanging_compiler_is_stopped_with_its_children(tmp_path: Path, fake_compiler: FakeCompiler) -> None:
    child = tmp_path / "child"
    fake_compiler(f'echo "still thinking"; sleep 600 & echo $! > {child}; wait')
    started = time.monotonic()
    with pytest.raises(ToolchainError, match=r"did not finish within 0\.5 s(.|\n)*still thinking"):
        compile_library("", tmp_path / "a.so", (), timeout=0.5)
    assert time.monotonic() - started < 10
    assert not (tmp_path / "a.so").exists()
    assert not _is_running(int(child.read_text()))


def _is_running(pid: int) -> bool:
    """Whether a process is there and is not merely waiting to be reaped."""
    for _ in range(50):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_without_a_compiler_the_error_names_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError) as caught:
        find_compiler()
    for hint in ("apt install g++", "dnf install gcc-c++", "conda install", "xcode-select", "CXX", "effcc doctor"):
        assert hint in str(caught.value)


def test_a_cxx_that_is_no_command_is_an_error_and_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O0")
    with pytest.raises(ToolchainError, match="no-such-compiler"):
        find_compiler()


def test_a_versioned_compiler_is_found_where_there_is_no_plain_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("g++-12", "g++-13"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_compiler() == Compiler((str(tmp_path / "g++-13"),), "gcc", "g++-13")


@pytest.mark.parametrize(
    ("version", "major"),
    [
        ("g++ (Debian 12.2.0-14+deb12u1) 12.2.0", 12),
        ("Apple clang version 15.0.0 (clang-1500.3.9.4)", 15),
        ("Ubuntu clang version 14.0.0-1ubuntu1", 14),
    ],
)
def test_the_major_version_is_read(version: str, major: int) -> None:
    assert Compiler(("c++",), "gcc", version).major == major


def test_flags_name_features_and_never_fast_math() -> None:
    flags = compile_flags(generic("avx512"))
    assert {"-mavx512f", "-mfma", "-fno-math-errno", "-ffp-contract=off"} <= set(flags)
    assert not {"-ffast-math", "-march=native", "-fno-signed-zeros", "-ffinite-math-only"} & set(flags)
    assert "-mavx2" not in compile_flags(generic("scalar"))
    assert {"-fopenmp", "-DEFFCC_OPENMP"} <= set(compile_flags(generic("avx2"), openmp=True))


FLOATS = """
extern "C" float not_contracted(float a, float b, float c) { return a * b + c; }
extern "C" int is_nan(float a) { return a != a; }
extern "C" float plus_zero(float a) { return a + 0.0f; }
extern "C" float difference(float a) { return a - a; }
"""


def test_compiled_floats_behave_as_in_eager(tmp_path: Path) -> None:
    library = Library(compile_library(FLOATS, tmp_path / "a.so", compile_flags(detect())))
    float1 = [ctypes.c_float]
    a = 1.0 + 2.0**-12  # a * a is rounded to float32 before c is added, or the sum would not be zero
    assert library.function("not_contracted", float1 * 3, ctypes.c_float)(a, a, -(1.0 + 2.0**-11)) == 0.0
    assert library.function("is_nan", float1)(math.nan) == 1
    assert math.copysign(1, library.function("plus_zero", float1, ctypes.c_float)(-0.0)) == 1.0
    assert math.isnan(library.function("difference", float1, ctypes.c_float)(math.inf))


def test_contraction_is_on_where_it_is_asked_for(tmp_path: Path) -> None:
    if "fma" not in detect().features:
        pytest.skip("this CPU has no fused multiply-add")
    library = Library(compile_library(FLOATS, tmp_path / "a.so", compile_flags(detect(), contract=True)))
    a = 1.0 + 2.0**-12
    fused = library.function("not_contracted", [ctypes.c_float] * 3, ctypes.c_float)(a, a, -(1.0 + 2.0**-11))
    assert fused == 2.0**-24
