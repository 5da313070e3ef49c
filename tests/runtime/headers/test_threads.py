"""Regions, barriers, shares and claims, with OpenMP's threads and with our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import HERE, compile_cpp, run

BACKENDS = {"pool": (), "openmp": ("-fopenmp", "-DEFFCC_OPENMP")}


@pytest.fixture(scope="module", params=tuple(BACKENDS))
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """threads.cpp, compiled for one of the two ways to get threads; its name is the backend's."""
    backend = str(request.param)
    output = tmp_path_factory.mktemp("threads") / backend
    return compile_cpp(HERE / "threads.cpp", output, "baseline", *BACKENDS[backend])


@pytest.mark.parametrize("threads", [1, 2, 3, 20])
@pytest.mark.parametrize("check", ["region", "barrier", "two_callers", "claims", "late", "absent"])
def test_regions_and_barriers(program: Path, check: str, threads: int) -> None:
    run(program, check, str(threads))


@pytest.mark.parametrize("check", ["full_team", "nested", "inline", "share"])
def test_teams(program: Path, check: str) -> None:
    run(program, check, "3")


@pytest.mark.parametrize("threads", [2, 3])
def test_a_fork_child_runs_regions_of_its_own(program: Path, threads: int) -> None:
    run(program, "fork", str(threads))


def test_fewer_threads_than_asked_still_finish(program: Path) -> None:
    environment = {**os.environ, "OMP_THREAD_LIMIT": "2"}
    for check in ("region", "barrier"):
        done = subprocess.run([str(program), check, "4"], env=environment, timeout=60, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_a_library_s_pool_ends_with_the_library(tmp_path: Path) -> None:
    library = compile_cpp(HERE / "pool_library.cpp", tmp_path / "one.so", "baseline", "-shared", "-fPIC")
    copy = Path(shutil.copy(library, tmp_path / "two.so"))
    host = compile_cpp(HERE / "pool_host.cpp", tmp_path / "host", "baseline", "-ldl")
    run(host, str(library), str(copy))


def test_the_thread_sanitizer_sees_no_race(tmp_path: Path) -> None:
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() {}\n")
    try:
        run(compile_cpp(probe, tmp_path / "probe", "baseline", "-fsanitize=thread"))
    except AssertionError as reason:
        pytest.skip(f"no working thread sanitizer: {str(reason)[-200:]}")
    program = compile_cpp(HERE / "threads.cpp", tmp_path / "sanitized", "baseline", "-fsanitize=thread", "-g")
    checks = {"region": (3,), "barrier": (3, 20), "two_callers": (2,), "claims": (3,), "absent": (3,)}
    for check, teams in checks.items():
        for threads in teams:
            run(program, check, str(threads))
