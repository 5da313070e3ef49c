"""One interpreter process serves all tests: it takes seconds to start."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from effcc.runtime.triton_run import TritonInterpreter


@pytest.fixture(scope="session")
def interpreter() -> Iterator[TritonInterpreter]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    with TritonInterpreter() as running:
        yield running
