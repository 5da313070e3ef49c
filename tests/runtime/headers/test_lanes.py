"""Vectors and memory: the C++ beside this file says what must hold, for every instruction set this processor runs."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks.ulp import FLAGS, HEADERS
from effcc.runtime.toolchain import find_compiler

from .conftest import Compile, run


def test_arithmetic_and_reductions_hold_lane_by_lane(compiled: Compile, isa: str) -> None:
    run(compiled("lanes.cpp", isa))


def test_tail_loads_and_stores_never_touch_the_next_page(compiled: Compile, isa: str) -> None:
    run(compiled("memory.cpp", isa))


@pytest.mark.parametrize("header", sorted(path.name for path in (HEADERS / "effcc").glob("*.h")))
def test_every_header_compiles_alone_and_pulls_in_no_cpp_standard_header(header: str) -> None:
    command = [*find_compiler().command, *FLAGS, f"-I{HEADERS}", "-M", "-include", f"effcc/{header}", "-x", "c++", "-"]
    done = subprocess.run([*command], input="", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    included = [word for word in done.stdout.split() if word.endswith(".h") or "/c++/" in word]
    assert any(path.endswith(f"effcc/{header}") for path in included)
    assert not [path for path in included if "/c++/" in path or "mmintrin" in path or "math.h" in path.replace("effcc/math.h", "")]
    command = [*find_compiler().command, *FLAGS, "-Wall", "-Wextra", "-Werror", f"-I{HEADERS}", "-fsyntax-only"]
    done = subprocess.run([*command, "-include", f"effcc/{header}", "-x", "c++", "-"], input="", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
