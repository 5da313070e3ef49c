"""The compile cache holds only whole libraries, under the digest of all that decides what they contain."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from effcc.errors import CacheError, ToolchainError
from effcc.runtime import cache as cache_module
from effcc.runtime import cache_keys
from effcc.runtime.cache import CompileCache, cache_folder, cache_limit, parse_size
from effcc.runtime.cache_keys import entry_key
from effcc.runtime.toolchain import Compiler, compile_flags, find_compiler
from effcc.target import detect, generic

FakeCompiler = Callable[[str], Path]
HOST = detect()


def source(number: int) -> str:
    return f'extern "C" int answer() {{ return {number}; }}\n'


def answer(cache: CompileCache, number: int) -> int:
    result = cache.load(source(number), HOST).function("answer")()
    assert isinstance(result, int)
    return result


def age(cache: CompileCache, number: int, seconds: float) -> None:
    """Pretend that an entry was last used a while ago."""
    key = entry_key(source(number), find_compiler(), compile_flags(HOST), HOST.features)
    then = time.time() - seconds
    os.utime(cache.folder / "entries" / key / "manifest.json", (then, then))


def library_file(cache: CompileCache) -> Path:
    (entry,) = cache.entries()
    return entry.file


def test_a_second_load_compiles_nothing(cache: CompileCache, fake_compiler: FakeCompiler) -> None:
    fake_compiler(f'echo compiled >> {cache.folder}.log; exec "$CXX_REAL" "$@"')
    assert not cache.has(source(1), HOST)
    assert [answer(cache, 1), answer(cache, 1)] == [1, 1]
    assert cache.has(source(1), HOST)
    assert Path(f"{cache.folder}.log").read_text().count("compiled") == 1


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "missing", "no manifest", "foreign manifest"])
def test_a_damaged_entry_is_built_again(cache: CompileCache, damage: str) -> None:
    # Only the file is damaged, not a library that this process has mapped: compile in another process.
    subprocess.run([sys.executable, "-c", LOAD, str(cache.folder)], check=True, env=os.environ, timeout=120)
    file = library_file(cache)
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "emptied":
        file.write_bytes(b"")
    elif damage == "missing":
        file.unlink()
    elif damage == "no manifest":
        (file.parent / "manifest.json").unlink()
    else:
        (file.parent / "manifest.json").write_text("[1, 2]")
    assert not cache.has(source(7), HOST)
    assert answer(cache, 7) == 7
    assert library_file(cache).read_bytes() == content
    assert cache.has(source(7), HOST)


def test_over_the_limit_the_least_recently_used_go(tmp_path: Path) -> None:
    roomy = CompileCache(tmp_path / "cache")
    for number in (1, 2, 3):
        assert answer(roomy, number) == number
    age(roomy, 1, seconds=10)  # used last but one
    age(roomy, 2, seconds=20)  # used longest ago
    sizes = [entry.size for entry in roomy.entries()]
    tight = CompileCache(tmp_path / "cache", limit=sum(sizes) + sizes[0] // 2)
    assert answer(tight, 4) == 4
    assert [tight.has(source(number), HOST) for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert sum(entry.size for entry in tight.entries()) <= tight.limit


def test_a_cache_with_room_is_looked_through_once_a_minute(
    cache: CompileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    prune = CompileCache.prune
    monkeypatch.setattr(
        CompileCache, "prune", lambda self, *a, **named: (looks.append("look"), prune(self, *a, **named))[1]
    )
    for number in (1, 2, 3):
        assert answer(cache, number) == number
    assert len(looks) == 1
    monkeypatch.setattr("effcc.runtime.cache.LOOK_EVERY", 0.0)
    assert answer(cache, 4) == 4
    assert len(looks) == 2


def test_a_library_larger_than_the_limit_still_runs(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path / "cache", limit=1)
    assert [answer(cache, 1), answer(cache, 2)] == [1, 2]
    assert len(cache.entries()) == 1


def test_loading_counts_as_use(cache: CompileCache) -> None:
    for number in (1, 2):
        answer(cache, number)
        age(cache, number, seconds=100 - number)
    answer(cache, 1)
    half = cache.entries()[0].size
    (removed,) = cache.prune(limit=half)
    assert cache.has(source(1), HOST)
    assert not removed.path.exists()


def test_clear_removes_everything(cache: CompileCache) -> None:
    answer(cache, 1)
    answer(cache, 2)
    assert len(cache.clear()) == 2
    assert cache.entries() == []
    assert answer(cache, 1) == 1


LOAD = """
import sys
from pathlib import Path
from effcc.runtime.cache import CompileCache
from effcc.target import detect
cache = CompileCache(Path(sys.argv[1]))
library = cache.load('extern "C" int answer() { return 7; }\\n', detect())
sys.exit(0 if library.function("answer")() == 7 else 1)
"""

KILLED_BEFORE_INSTALLING = """
import os, signal
from effcc.runtime import cache as cache_module
from effcc.runtime import cache_keys
real = os.replace
def killed(source, destination):
    if "entries" in str(destination):
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, destination)
os.replace = killed
"""


def test_a_writer_killed_before_installing_leaves_a_usable_cache(cache: CompileCache) -> None:
    script = KILLED_BEFORE_INSTALLING + LOAD
    killed = subprocess.run([sys.executable, "-c", script, str(cache.folder)], env=os.environ, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((cache.folder / "staging").iterdir())) == 1
    assert cache.entries() == []
    assert answer(cache, 7) == 7
    assert list((cache.folder / "staging").iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_writer_killed_while_the_compiler_writes_takes_it_along_and_leaves_a_usable_cache(
    cache: CompileCache, fake_compiler: FakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: int
) -> None:
    started, temporary = tmp_path / "started", tmp_path / "temporary"
    temporary.mkdir()
    fake_compiler(
        f'sleep 600 & echo $! > {started}.tmp; printf half > "$2"; mktemp; mv {started}.tmp {started}; exec sleep 600'
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    writer = subprocess.Popen([sys.executable, "-c", LOAD, str(cache.folder)], env=environment)
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    writer.send_signal(how)
    assert writer.wait(timeout=60) != 0
    child = Path(f"/proc/{int(started.read_text())}")  # what the compiler started
    while child.exists() and "\nState:\tZ" not in (child / "status").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert time.monotonic() < deadline
    assert list(temporary.iterdir()) == []
    monkeypatch.delenv("CXX")
    assert answer(cache, 7) == 7
    cache.prune()
    assert list((cache.folder / "staging").iterdir()) == []


def test_pruning_leaves_a_live_writer_alone(cache: CompileCache, fake_compiler: FakeCompiler, tmp_path: Path) -> None:
    started, proceed = tmp_path / "started", tmp_path / "proceed"
    fake_compiler(f'touch {started}; while [ ! -e {proceed} ]; do sleep 0.02; done; exec "$CXX_REAL" "$@"')
    writer = subprocess.Popen([sys.executable, "-c", LOAD, str(cache.folder)], env=os.environ)
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    cache.clear()
    proceed.touch()
    assert writer.wait(timeout=60) == 0
    assert len(cache.entries()) == 1


def test_four_processes_compile_one_source_once(cache: CompileCache, fake_compiler: FakeCompiler) -> None:
    log = Path(f"{cache.folder}.log")
    fake_compiler(f'echo compiled >> {log}; sleep 0.5; exec "$CXX_REAL" "$@"')
    command = [sys.executable, "-c", LOAD, str(cache.folder)]
    processes = [subprocess.Popen(command, env=os.environ) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0, 0]
    assert log.read_text().count("compiled") == 1
    assert len(cache.entries()) == 1


def test_a_compiler_that_fails_leaves_the_cache_as_it_was(cache: CompileCache, fake_compiler: FakeCompiler) -> None:
    fake_compiler('printf half > "$2"; echo "out of registers" >&2; exit 1')
    with pytest.raises(ToolchainError, match="out of registers"):
        cache.load(source(1), HOST)
    assert cache.entries() == []
    assert list((cache.folder / "staging").iterdir()) == []
    fake_compiler('exec "$CXX_REAL" "$@"')
    assert answer(cache, 1) == 1


def test_a_compiler_that_hangs_leaves_the_cache_as_it_was(cache: CompileCache, fake_compiler: FakeCompiler) -> None:
    fake_compiler('printf half > "$2"; exec sleep 600')
    with pytest.raises(ToolchainError, match=r"did not finish within 0\.3 s"):
        cache.load(source(1), HOST, timeout=0.3)
    assert cache.entries() == []
    assert list((cache.folder / "staging").iterdir()) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(cache: CompileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(cache_module, "flush", no_space)
    with pytest.raises(CacheError, match=r"No space left(.|\n)*EFFCC_CACHE_DIR"):
        cache.load(source(1), HOST)
    assert cache.entries() == []
    assert list((cache.folder / "staging").iterdir()) == []


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(CacheError, match="other users can write"):
        CompileCache(folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_can_replace_is_refused(tmp_path: Path) -> None:
    parent = tmp_path / "open"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(CacheError, match=r"can replace .*open is writable by all"):
        CompileCache(parent / "cache")


@pytest.mark.skipif(os.getuid() != 0, reason="only the administrator can give files away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    os.chown(tmp_path / "cache", 12345, -1)
    with pytest.raises(CacheError, match="belongs to another user"):
        CompileCache(tmp_path / "cache")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot use the cache folder"):
        CompileCache(tmp_path / "file" / "cache")


def test_the_key_depends_on_everything_that_decides_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, flags = Compiler(("g++",), "gcc", "12"), compile_flags(generic("avx2"))
    features = generic("avx2").features
    keys = {
        entry_key("a", compiler, flags, features),
        entry_key("b", compiler, flags, features),
        entry_key("a", replace(compiler, version="13"), flags, features),
        entry_key("a", compiler, (*flags, "-g"), features),
        entry_key("a", compiler, flags, ()),
    }
    monkeypatch.setattr(cache_keys, "torch_version", lambda: "9.9")
    keys.add(entry_key("a", compiler, flags, features))
    monkeypatch.setattr(cache_keys, "sources_digest", lambda: "other")
    keys.add(entry_key("a", compiler, flags, features))
    assert len(keys) == 7


def test_the_environment_names_folder_and_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("EFFCC_CACHE_LIMIT", "3MB")
    assert (cache_folder(), cache_limit()) == (tmp_path / "elsewhere", 3 << 20)
    assert CompileCache.default().folder == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("text", "size"), [("17", 17), ("2KiB", 2048), ("1.5 MB", 3 << 19), ("2g", 2 << 30), ("1TiB", 1 << 40)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1 PB", "1.MB"])
def test_a_size_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(CacheError, match="500MB"):
        parse_size(text)
