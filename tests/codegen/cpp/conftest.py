"""Every test of generated code runs for each instruction set that this CPU has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from effcc.runtime.cache import CompileCache
from effcc.target import Target, detect, generic


@pytest.fixture(params=["avx512", "avx2", "scalar"])
def target(request: Any) -> Target:
    described = detect().with_isa(request.param) if request.param != "scalar" else generic("scalar")
    if not described.runs_here():
        pytest.skip(f"this CPU has no {request.param}")
    return described


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CompileCache]:
    yield CompileCache(tmp_path_factory.mktemp("cache"))
