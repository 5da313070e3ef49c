"""What all tests share: a compile cache of their own, so that none sees or fills the user's, and a quick compiler."""

from __future__ import annotations

import functools
import gc
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from effcc.runtime.toolchain import find_compiler

# A busy machine is no failure: no test is timed.
hypothesis.settings.register_profile("effcc", deadline=None)
hypothesis.settings.load_profile("effcc")

if os.environ.get("PYTEST_XDIST_WORKER"):
    # Tests already run side by side, one on each core; those about threads ask for theirs.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


os.environ.setdefault("EFFCC_REMEMBER", "0")
"""Tests look at what steps do, some after changing one: what was remembered would hide that."""

LONG = ("models", "fuzz")
"""Folders of long tests: they come first, so that processes that share the tests end together."""
QUICK = ("bisection", "budget", "caches", "checkpoints", "compression", "frontend", "models", "reports")
"""Folders of tests about what is computed, not how fast: most of their time would go to g++'s optimizer."""
QUICK_FILES = ("test_op_table.py", "test_logs.py", "test_remembered.py")
"""Files of such tests elsewhere."""
OPTIMIZED = (
    "test_arithmetic_of_every_magnitude.py", "test_compiled_functions.py", "test_the_cache_trusts_nobody_else.py",
    "test_zoo.py",
)  # fmt: skip
"""Their tests that compile as users do, like all tests elsewhere: g++ might take liberties at -O3 that it does not take
at -O0, with aliases or undefined behaviour."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent.name not in LONG)


def pytest_collection_finish() -> None:
    """Leave what was imported out of the collector's rounds, and let them be rarer: PyTorch's modules and what tracing
    makes are millions of objects, and looking through them took a tenth of the tests' own time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_compile_cache(shared_folder: Path) -> Iterator[None]:
    """Point the cache at a temporary folder for the session, unless the caller has named one."""
    if os.environ.get("EFFCC_CACHE_DIR"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFCC_CACHE_DIR", str(shared_folder / "effcc-cache"))
        yield


@pytest.fixture(scope="session")
def quick_compiler(shared_folder: Path) -> str:
    """A command that compiles as the compiler does, but without optimizing, whatever it is told: half of -O1's time."""
    command = shared_folder / "c++"
    with tempfile.NamedTemporaryFile("w", dir=shared_folder, delete=False) as script:
        script.write(f'#!/bin/sh\nexec {shlex.join(find_compiler().command)} "$@" -O0\n')  # the last of them counts
    os.chmod(script.name, 0o700)
    os.replace(script.name, command)
    return shlex.quote(str(command))


@pytest.fixture(autouse=True)
def _forms_enough() -> Iterator[None]:
    """Let no test come to the limit of forms that Dynamo keeps for one function because others compiled that function
    (`nn.Sequential.forward`) before: past the limit a model runs in eager, where nothing of ours is tested, so that a
    test that does come there fails."""
    import torch

    # Not by `monkeypatch`, which takes a default for no value and deletes the option when it undoes the change.
    with torch._dynamo.config.patch(
        recompile_limit=64, accumulated_recompile_limit=4096, fail_on_recompile_limit_hit=True
    ):
        yield


@pytest.fixture(scope="session", autouse=True)
def _pytorch_without_detours() -> Iterator[None]:
    """Leave out what PyTorch does again and again for nothing that a test sees.

    Dynamo times the guards of what it has compiled, for its log, and flushes all caches first, which takes each of
    thousands of small programs 20 ms or more. Export registers all composite operators again for every namespace, at
    every decomposition, in 50 ms.
    """
    import torch._dynamo.guards
    import torch._export.utils

    once = functools.cache(torch._export.utils._materialize_cpp_cia_ops)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch._dynamo.guards, "profile_guard_manager", lambda *_: 0.0, raising=False)
        patch.setattr(torch._export.utils, "_materialize_cpp_cia_ops", once)
        yield


@pytest.fixture(autouse=True)
def _compile_quickly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = request.path.parent.name in QUICK or request.path.name in QUICK_FILES
    if quick and request.path.name not in OPTIMIZED:
        monkeypatch.setenv("CXX", request.getfixturevalue("quick_compiler"))
