"""Vectors and memory: the C++ beside this file says what must hold, for every instruction set this processor runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.ulp import FLAGS, HEADERS
from effcc.runtime.toolchain import find_compiler

from .conftest import WARNINGS, Compile, run


def test_arithmetic_and_reductions_hold_lane_by_lane(compiled: Compile, isa: str) -> None:
    run(compiled("lanes.cpp", isa))


def test_tail_loads_and_stores_never_touch_the_next_page(compiled: Compile, isa: str) -> None:
    run(compiled("memory.cpp", isa))


@pytest.mark.parametrize("header", sorted(path.name for path in (HEADERS / "effcc").glob("*.h")))
def test_every_header_compiles_alone_and_pulls_in_no_cpp_standard_header(header: str) -> None:
    command = [*find_compiler().command, *FLAGS, *WARNINGS, f"-I{HEADERS}", "-include", f"effcc/{header}"]
    listing = subprocess.run([*command, "-M", "-x", "c++", "-"], input="", capture_output=True, text=True)
    assert listing.returncode == 0, listing.stderr
    included = {Path(word) for word in listing.stdout.split() if "/" in word}
    assert HEADERS / "effcc" / header in included
    foreign = {path for path in included if not path.is_relative_to(HEADERS)}
    assert not [path for path in foreign if "c++" in path.parts or path.name in ("immintrin.h", "math.h")]
    alone = subprocess.run([*command, "-fsyntax-only", "-x", "c++", "-"], input="", capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr


@pytest.mark.slow
@pytest.mark.parametrize("program", ["lanes.cpp", "memory.cpp", "math.cpp"])
def test_the_sanitizers_find_nothing_even_where_overflow_is_undefined(compiled: Compile, program: str) -> None:
    flags = ("-O0", "-fno-wrapv", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
    run(compiled(program, "baseline", *flags), timeout=250)
