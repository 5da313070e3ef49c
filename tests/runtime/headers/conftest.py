"""Compiles the C++ beside these tests for each instruction set that this processor runs, and runs it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.ulp import FLAGS, HEADERS, ISAS, usable_isas
from effcc.runtime.toolchain import find_compiler

HERE = Path(__file__).parent
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-psabi")

Compile = Callable[..., Path]


@pytest.fixture(params=tuple(ISAS))
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set in turn; the test is skipped where the processor lacks it."""
    name = str(request.param)
    if name not in usable_isas():
        pytest.skip(f"this processor does not run {name}")
    return name


def compile_cpp(source: Path, output: Path, isa: str, *flags: str) -> Path:
    """Compiles `source` for `isa`, with every warning an error."""
    command = [*find_compiler().command, *FLAGS, *WARNINGS, *ISAS[isa][1].split(), *flags]
    command += [f"-I{HEADERS}", str(source), "-o", str(output), "-pthread", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return output


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """compiled("memory.cpp", isa, *flags): the program made of a C++ file in this folder."""

    def build(name: str, isa: str, *flags: str) -> Path:
        return compile_cpp(HERE / name, tmp_path / f"{Path(name).stem}-{isa}", isa, *flags)

    return build


def run(program: Path, *arguments: str, timeout: float = 60) -> str:
    """Runs a program that exits with 0 if all its checks hold and prints those that do not."""
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
