"""Writers that are killed (kill -9) at every file operation they do, and at random moments: what they write is then
the old file whole or the new one whole, and what they leave is gone after the next call."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.commands import run
from effcc.compression.quantize import quantize
from effcc.errors import CheckpointError
from effcc.runtime import files, write_package
from effcc.runtime.cache_files import Locks
from effcc.runtime.checked_files import CheckedFiles
from effcc.runtime.files import aside

MOST = 200
"""Operations of a writer: more than any has."""


def killed_at(count: int, folder: Path, write: Callable[[], object]) -> bool:
    """Whether a child that writes died before its operation number `count` on files in a folder, or after it ended."""
    child = os.fork()
    if child == 0:
        left = [count]

        def step() -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

        def seen(event: str, given: tuple[Any, ...]) -> None:
            if event.startswith(("open", "os.")) and any(str(folder) in str(a) for a in given):
                step()

        fsync = os.fsync
        os.fsync = lambda descriptor: (step(), fsync(descriptor), step())  # type: ignore[assignment,misc,return-value]
        sys.addaudithook(seen)
        code = 1
        try:
            write()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def assert_whole_wherever_killed(
    folder: Path, write: Callable[[str], object], read: Callable[[], str], fewest: int, each: int = 1
) -> None:
    """Kill writers of "new" over "old" at `each` so many operations; then write, and nothing else may be there."""
    write("old")
    names = sorted(os.listdir(folder))
    found = set()
    for count in range(0, MOST, each):
        killed = killed_at(count, folder, lambda: write("new"))
        found.add(read())
        assert read() in ("old", "new") if killed else read() == "new"
        write("old")
        assert (read(), sorted(os.listdir(folder))) == ("old", names)
        if not killed:
            assert count >= fewest and found == {"old", "new"}
            return
    raise AssertionError(f"more than {MOST} operations")


def stored(kind: str) -> nn.Module:
    """A layer whose bias is 0 if it is old, else 1."""
    module = quantize(nn.Linear(8, 4), "int8")
    nn.init.constant_(module.bias, float(kind == "new"))  # type: ignore[arg-type]
    return module


def kind_of(module: nn.Module) -> str:
    bias: Any = module.bias
    return "new" if bias.tolist() == [1.0] * 4 else "old" if bias.tolist() == [0.0] * 4 else "neither"


def test_a_saved_model_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    models = {kind: stored(kind) for kind in ("old", "new")}
    into = nn.Linear(8, 4)
    assert_whole_wherever_killed(
        tmp_path, lambda kind: effcc.save(models[kind], path), lambda: kind_of(effcc.load_into(into, path)), 5
    )


@pytest.mark.parametrize(("name", "each"), [("model.effcc", 3), ("model", 2)])
def test_a_package_is_the_old_or_the_new_one(
    name: str, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Constant(nn.Module):
        def __init__(self, number: float) -> None:
            super().__init__()
            self.register_buffer("number", torch.full((4,), number))

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = x + self.number
            return made

    written: dict[str, tuple[Any, ...]] = {}
    whole: dict[str, dict[str, bytes]] = {}
    write = write_package.write_package
    path = tmp_path / "there" / name
    path.parent.mkdir()

    def content() -> dict[str, bytes]:
        return {f.name: f.read_bytes() for f in (path.iterdir() if path.is_dir() else [path])}

    for kind in ("old", "new"):
        keep = lambda *given, kind=kind: (written.update({kind: given}), write(*given))[1]  # noqa: E731
        monkeypatch.setattr("effcc.ahead.write_package", keep)
        effcc.export(Constant(float(kind == "new")), (torch.zeros(4),), path)
        assert float(effcc.load(path)(torch.zeros(4)).sum()) == 4.0 * (kind == "new")
        whole[kind] = content()  # equal packages are equal files

    def read() -> str:
        return next((kind for kind, files in whole.items() if files == content()), "neither")

    assert_whole_wherever_killed(path.parent, lambda kind: write(*written[kind]), read, 12, each)


def test_results_of_the_command_line_are_the_old_or_the_new_ones(tmp_path: Path) -> None:
    import numpy as np
    import safetensors.numpy

    path = tmp_path / "out.safetensors"
    arrays = {kind: {kind: np.zeros(3)} for kind in ("old", "new")}
    assert_whole_wherever_killed(
        tmp_path, lambda kind: run._write(path, arrays[kind]), lambda: next(iter(safetensors.numpy.load_file(path))), 2
    )


def test_entries_of_the_cache_are_whole_or_absent(tmp_path: Path) -> None:
    for part in ("objects", "staging", "locks"):
        (tmp_path / part).mkdir(mode=0o700)
    cache = CheckedFiles(tmp_path, "objects", Locks(tmp_path / "locks"), True, "")
    key = "ab" * 20
    for count in range(MOST):
        killed = killed_at(count, tmp_path, lambda: cache.keep(key, b"content"))
        assert cache.stored(key) in ((None, b"content") if killed else (b"content",))
        cache.keep(key, b"content")
        assert cache.stored(key) == b"content"
        cache.forget([key])
        if not killed:
            break
    assert 3 <= count < MOST - 1


def test_models_saved_by_writers_killed_at_random_moments_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    models = {kind: stored(kind) for kind in ("old", "new")}
    effcc.save(models["old"], path)
    into, draw = nn.Linear(8, 4), random.Random(0)
    for _ in range(8):
        child = os.fork()
        if child == 0:
            while True:
                for model in models.values():
                    effcc.save(model, path)
        time.sleep(draw.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert kind_of(effcc.load_into(into, path)) in ("old", "new")
    effcc.save(models["old"], path)
    assert os.listdir(tmp_path) == [path.name]


def test_what_a_live_writer_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with aside(path) as first:
        with aside(path) as second:
            assert first.exists() and second.exists() and first != second
        assert first.exists() and not second.exists()
        effcc.save(stored("new"), path)
        assert first.exists()
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = files.fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not swept:
            swept.extend(os.listdir(tmp_path))
            (tmp_path / swept[0]).unlink()
        lock(descriptor, how)

    monkeypatch.setattr(files.fcntl, "flock", late)
    with aside(tmp_path / "file") as staged:
        assert staged.exists() and staged.name not in swept


def test_a_half_file_would_be_seen(tmp_path: Path) -> None:
    path = effcc.save(stored("old"), tmp_path / "model.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError):
        effcc.load_into(nn.Linear(8, 4), path)
