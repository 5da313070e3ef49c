"""The C loader under sanitizers: harmed files, faults of the system and wrong arguments end in error codes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import effcc
from effcc.fuzz.packages import sample
from effcc.target import cpu_features

LOADER = Path(effcc.__file__).parent / "fuzz" / "c" / "loader.c"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wshadow"]
CHECKS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked package that the loader is built for."""
    folder = tmp_path_factory.mktemp("genuine")
    for name, content in sample().files.items():
        (folder / name).write_bytes(content)
    return folder


def build(compiler: str, genuine: Path, output: Path, flags: Sequence[str]) -> Path:
    return build_program(compiler, LOADER, genuine, output, flags)


def build_program(compiler: str, source: Path, header: Path, output: Path, flags: Sequence[str]) -> Path:
    command = [compiler, "-std=c11", "-D_GNU_SOURCE", *WARNINGS, *CHECKS, *flags, f"-I{header}", str(source)]
    subprocess.run([*command, "-o", str(output), "-ldl", "-lm"], check=True)
    return output


def run(command: Sequence[str | Path], timeout: int) -> str:
    """What a program under sanitizers printed. Leaks are looked for by closing twice, not by LeakSanitizer."""
    options = {"ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1", "LSAN_OPTIONS": "report_objects=1"}
    made = subprocess.run(command, text=True, capture_output=True, timeout=timeout, env={**os.environ, **options})
    assert made.returncode == 0, made.stdout + made.stderr[-4000:]
    return made.stdout + made.stderr


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_harmed_files_and_faults_end_in_error_codes(seed: int, genuine: Path, tmp_path: Path) -> None:
    loader = build("gcc", genuine, tmp_path / "loader", [])
    (tmp_path / "scratch").mkdir()
    trials = 300 if seed == 0 else 2000
    assert f"{trials} trials" in run([loader, genuine, tmp_path / "scratch", str(seed), str(trials)], 300)


OPENS = """
#include "model.h"
int main(int argc, char **argv) {
    model loaded;
    int code = model_open(&loaded, argv[argc - 1]);
    printf("%d %s", code, code ? loaded.error : "");
    if (!code) model_close(&loaded);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_code_for_another_cpu_is_refused_before_it_runs(genuine: Path, tmp_path: Path) -> None:
    features = sorted(cpu_features() - {"nonesuch"})
    opened = (genuine / "model.h").read_text()
    asks = 'effcc_require_cpu("'
    head, _, tail = opened.partition(asks)
    rest = tail[tail.index('"') :]

    def answer(needed: str) -> str:
        (tmp_path / "model.h").write_text(head + asks + needed + rest)
        (tmp_path / "main.c").write_text(OPENS)
        program = build_program("gcc", tmp_path / "main.c", tmp_path, tmp_path / "main", [])
        return run([program, genuine], 60)

    assert answer(" ".join(features)) == "0 "
    assert (
        answer(f"{features[0]} nonesuch") == "-6 nonesuch: this CPU lacks the feature, which the code is compiled for"
    )
    assert answer(features[0][:-1]).startswith("-6 ")  # the beginning of a word is no word


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang") is None, reason="there is no clang, whose libFuzzer this needs")
def test_libfuzzer_finds_nothing(genuine: Path, tmp_path: Path) -> None:
    flags = ["-DEFFCC_LIBFUZZER", "-fsanitize=fuzzer"]
    try:
        loader = build("clang", genuine, tmp_path / "loader", flags)
    except subprocess.CalledProcessError:
        pytest.skip("this clang has no libFuzzer: apt install libclang-rt-dev")
    scratch, corpus = tmp_path / "scratch", tmp_path / "corpus"
    scratch.mkdir()
    corpus.mkdir()
    os.environ.update(EFFCC_GENUINE=str(genuine), EFFCC_SCRATCH=str(scratch))
    run([loader, corpus, "-max_total_time=20", "-timeout=10", "-rss_limit_mb=2048"], 120)
