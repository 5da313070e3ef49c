"""The compile cache runs nothing that another could have put there, and gets over whatever happened to its files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from effcc.errors import CacheError, ToolchainError
from effcc.runtime import cache as cache_module
from effcc.runtime import trust
from effcc.runtime.cache import CompileCache, cache_folder, cache_limit
from effcc.runtime.cache_files import discard
from effcc.runtime.cache_keys import entry_key
from effcc.runtime.toolchain import compile_flags, compile_timeout, find_compiler
from effcc.target import detect

HOST = detect()
SOURCE = 'extern "C" int answer() { return 7; }\n'
PLANTED = 'extern "C" int answer() { return 666; }\n'
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only the administrator can give files away")
STRANGER = 12345


def answer(cache: CompileCache, source: str = SOURCE) -> int:
    return int(cache.load(source, HOST).function("answer")())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that another process filled, so that nothing of it is mapped here. Copied, not used, by the tests."""
    folder = tmp_path_factory.mktemp("filled") / "cache"
    script = f"""
from pathlib import Path
from effcc.runtime.cache import CompileCache
from effcc.target import detect
CompileCache(Path({str(folder)!r})).load({SOURCE!r}, detect())
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    return folder


def copied(filled: Path, tmp_path: Path) -> Path:
    shutil.copytree(filled, tmp_path / "cache", copy_function=shutil.copy2)
    (tmp_path / "cache").chmod(0o700)
    return tmp_path / "cache"


def entry_of(folder: Path) -> Path:
    (entry,) = (folder / "entries").iterdir()
    return entry


# --- what others could have written is refused -----------------------------------------------------------------------

OPEN: dict[str, Callable[[Path], None]] = {
    "entries": lambda cache: (cache / "entries").chmod(0o777),
    "entries_of_a_group": lambda cache: (cache / "entries").chmod(0o770),
    "staging": lambda cache: (cache / "staging").chmod(0o703),
    "locks": lambda cache: (cache / "locks").chmod(0o707),
    "folder": lambda cache: cache.chmod(0o777),
    "parent": lambda cache: cache.parent.chmod(0o777),
    "parent_of_a_group": lambda cache: (os.chown(cache.parent, -1, 23456), cache.parent.chmod(0o770))[0],
}


@pytest.mark.parametrize("what", [n if n != "parent_of_a_group" else pytest.param(n, marks=AS_ROOT) for n in OPEN])
def test_folders_that_others_can_write_to(filled: Path, tmp_path: Path, what: str) -> None:
    folder = copied(filled, tmp_path)
    OPEN[what](folder)
    with pytest.raises(CacheError, match=r"other users can (write|replace)|any user can replace"):
        CompileCache(folder)
    tmp_path.chmod(0o700)


def given_away(*parts: str) -> Callable[[Path], None]:
    return lambda cache: os.chown(cache.joinpath(*parts), STRANGER, -1, follow_symlinks=False)


@AS_ROOT
@pytest.mark.parametrize("part", ["entries", "objects", "staging", "locks", ""])
def test_folders_of_others(filled: Path, tmp_path: Path, part: str) -> None:
    folder = copied(filled, tmp_path)
    given_away(*([part] if part else []))(folder)
    with pytest.raises(CacheError, match="belongs to another user"):
        CompileCache(folder)


@AS_ROOT
@pytest.mark.parametrize("what", ["folder", "link"])
def test_a_way_through_what_is_anothers(filled: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "theirs").mkdir()
    copied(filled, tmp_path / "theirs")
    path = tmp_path / "theirs" / "cache"
    if what == "folder":
        os.chown(tmp_path / "theirs", STRANGER, -1)
    else:
        (tmp_path / "link").symlink_to(tmp_path / "theirs")
        os.chown(tmp_path / "link", STRANGER, -1, follow_symlinks=False)
        path = tmp_path / "link" / "cache"
    with pytest.raises(CacheError, match=rf"another user \(uid {STRANGER}\) can replace .* is theirs"):
        CompileCache(path)


def test_a_way_through_our_own_link_is_ours(filled: Path, tmp_path: Path) -> None:
    copied(filled, tmp_path)
    (tmp_path / "link").symlink_to("cache")
    assert answer(CompileCache(tmp_path / "link")) == 7


def test_links_that_go_round(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(CacheError):
        CompileCache(tmp_path / "a" / "cache")


def test_parts_that_are_links_elsewhere(filled: Path, tmp_path: Path) -> None:
    folder = copied(filled, tmp_path)
    (folder / "entries").rename(tmp_path / "elsewhere")
    (folder / "entries").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="is no folder"):
        CompileCache(folder)


def test_a_folder_in_a_sticky_one_is_ours(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    assert answer(CompileCache(tmp_path / "tmp" / "cache")) == 7
    with pytest.raises(CacheError, match="other users can write"):
        CompileCache(tmp_path / "tmp")


def test_a_planted_library_does_not_run(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its digest is right, but its file could have been written by others."""
    folder = copied(filled, tmp_path)
    planted = tmp_path / "planted"
    subprocess.run([sys.executable, "-c", PLANT, str(planted)], check=True, timeout=120)
    shutil.rmtree(entry_of(folder))
    shutil.copytree(entry_of(planted), folder / "entries" / "x")
    cache = CompileCache(folder)
    key = entry_key(SOURCE, find_compiler(), compile_flags(HOST), HOST.features)
    (folder / "entries" / "x").rename(folder / "entries" / key)
    assert cache.has(SOURCE, HOST)
    for part in ("library.so", "manifest.json", "."):
        path = folder / "entries" / key / part
        mode = path.stat().st_mode
        path.chmod(0o777)
        assert not cache.has(SOURCE, HOST), part
        path.chmod(mode)
    monkeypatch.setattr(trust, "trusted_owners", lambda: {STRANGER})
    assert not cache.has(SOURCE, HOST)


PLANT = f"""
import sys
from pathlib import Path
from effcc.runtime.cache import CompileCache
from effcc.target import detect
CompileCache(Path(sys.argv[1])).load({PLANTED!r}, detect())
"""


# --- damage is got over ----------------------------------------------------------------------------------------------


def replaced_by(make: Callable[[Path], object], *parts: str) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        target = entry_of(folder).joinpath(*parts) if parts != ("lock",) else None
        if target is None:
            (target,) = (folder / "locks").iterdir()
        discard(target)
        make(target)

    return replace


DAMAGE: dict[str, Callable[[Path], None]] = {
    "entry_is_a_file": replaced_by(lambda p: p.write_text("x")),
    "entry_is_a_fifo": replaced_by(os.mkfifo),
    "entry_is_a_link_to_nothing": replaced_by(lambda p: p.symlink_to("nothing")),
    "entry_is_closed": lambda folder: entry_of(folder).chmod(0),
    "entry_is_empty": replaced_by(lambda p: p.mkdir()),
    "library_is_a_folder": replaced_by(lambda p: p.mkdir(), "library.so"),
    "library_is_a_fifo": replaced_by(os.mkfifo, "library.so"),
    "library_is_a_link": replaced_by(lambda p: p.symlink_to("source.cpp"), "library.so"),
    "manifest_is_a_fifo": replaced_by(os.mkfifo, "manifest.json"),
    "manifest_nests": replaced_by(lambda p: p.write_text("[" * 100_000), "manifest.json"),
    "manifest_is_no_text": replaced_by(lambda p: p.write_bytes(b"\xff\xfe{}"), "manifest.json"),
    "lock_is_a_folder": replaced_by(lambda p: p.mkdir(), "lock"),
    "lock_is_a_fifo": replaced_by(os.mkfifo, "lock"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_what_stands_in_the_place_of_an_entry_is_replaced(filled: Path, tmp_path: Path, damage: str) -> None:
    folder = copied(filled, tmp_path)
    DAMAGE[damage](folder)
    cache = CompileCache(folder)
    cache.entries()
    assert answer(cache) == 7
    assert cache.has(SOURCE, HOST)
    assert cache.clear() and cache.entries() == []


@pytest.mark.slow
def test_random_damage_is_seen(filled: Path, tmp_path: Path) -> None:
    """Every file of a cache, cut, with bits changed, or filled with something else: built again, whatever it was."""
    rng = random.Random(0)
    folder = copied(filled, tmp_path)
    cache = CompileCache(folder)
    key = entry_of(folder).name
    kept = {f.name: f.read_bytes() for f in entry_of(folder).iterdir()}
    for _ in range(300):
        name = rng.choice(["library.so", "manifest.json"])
        content = bytearray(kept[name])
        kind = rng.choice(["bit", "cut", "noise", "swapped"])
        if kind == "bit":
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del content[rng.randrange(len(content)) :]
        elif kind == "noise":
            start = rng.randrange(len(content))
            content[start : start + 64] = rng.randbytes(64)
        else:
            content = bytearray(kept["manifest.json" if name == "library.so" else "library.so"])
        (folder / "entries" / key / name).write_bytes(bytes(content))
        intact = cache.has(SOURCE, HOST)
        library = (folder / "entries" / key / "library.so").read_bytes()
        assert not intact or library == kept["library.so"]
        (folder / "entries" / key / name).write_bytes(kept[name])
    assert cache.has(SOURCE, HOST)


BAD_LIBRARIES = {
    "text": 'echo "no library" > "$2"; exit 0',
    "object": '"$CXX_REAL" -c -o "$2" "$4"; exit 0',
    "cut": '"$CXX_REAL" "$@" && head -c 5000 "$2" > "$2.cut" && mv "$2.cut" "$2"; exit 0',
    "without_the_function": ('echo "int other;" > "$2.cpp"; out="$2"; "$CXX_REAL" -shared -fPIC -o "$out" "$out.cpp"'),
    "that_needs_another": (
        'echo "int missing(); extern \\"C\\" int answer() { return missing(); }" > "$2.cpp"; out="$2"; '
        '"$CXX_REAL" -shared -fPIC -o "$out" "$out.cpp"'
    ),
}


@pytest.mark.parametrize("kind", list(BAD_LIBRARIES))
def test_a_compiler_that_once_writes_a_bad_library(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, real = CompileCache(tmp_path / "cache"), find_compiler().command[0]
    script = tmp_path / "fake-cxx"
    monkeypatch.setenv("CXX", str(script))
    for body in (BAD_LIBRARIES[kind], 'exec "$CXX_REAL" "$@"'):
        script.write_text(
            f'#!/bin/sh\nif [ "$1" = --version ]; then echo "fake 1.0"; exit; fi\nCXX_REAL={real}\n{body}\n'
        )
        script.chmod(0o700)
        if body == BAD_LIBRARIES[kind]:
            with pytest.raises(ToolchainError):
                answer(cache)
            assert cache.entries() == [] and not any((cache.folder / "staging").iterdir())
    assert answer(cache) == 7


# --- other machines' habits ------------------------------------------------------------------------------------------


@pytest.fixture
def read_only(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CompileCache:
    folder = copied(filled, tmp_path)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: False if Path(path) == folder else real(path, mode))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o500 if path.is_dir() else 0o400)
    return CompileCache(folder)


def test_a_cache_that_cannot_be_written_to_is_read(read_only: CompileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p: p.stat().st_mtime_ns for p in read_only.folder.rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "compile_library", lambda *_, **__: pytest.fail("compiled"))
        assert answer(read_only) == 7
    assert answer(read_only, SOURCE.replace("7", "8")) == 8
    assert {p: p.stat().st_mtime_ns for p in read_only.folder.rglob("*")} == before
    with pytest.raises(CacheError, match="cannot be written to"):
        read_only.clear()
    for path in (read_only.folder, *read_only.folder.rglob("*")):
        path.chmod(0o700)


def test_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = CompileCache(tmp_path / "some" / "cache")
        assert answer(cache) == 7 and cache.has(SOURCE, HOST)
        assert answer(CompileCache(tmp_path / "some" / "cache")) == 7
    finally:
        os.umask(before)


@pytest.mark.parametrize("home", ["/proc/nowhere", ""])
def test_without_a_home(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EFFCC_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(cache_module.tempfile, "gettempdir", lambda: str(tmp_path))
    if not home:
        monkeypatch.setattr(cache_module.platformdirs, "user_cache_path", lambda _: Path("~/.cache/effcc"))
    assert CompileCache.default().folder == tmp_path / f"effcc-{os.getuid()}"


def test_a_file_system_that_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mounted:
        f_flag = os.ST_NOEXEC

    def refuse(path: Path) -> None:
        raise ToolchainError("failed to map segment from shared object: Operation not permitted")

    monkeypatch.setattr(os, "statvfs", lambda path: Mounted())
    monkeypatch.setattr(cache_module, "Library", refuse)
    with pytest.raises(CacheError, match="noexec"):
        answer(CompileCache(tmp_path / "cache"))


@pytest.mark.parametrize("value", ["nan", "-1", "0", "soon", "-inf"])
def test_a_compile_timeout_that_is_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFCC_COMPILE_TIMEOUT", value)
    with pytest.raises(ToolchainError, match="EFFCC_COMPILE_TIMEOUT"):
        compile_timeout()


@pytest.mark.parametrize("value", ["inf", "1e300", " 60 ", ""])
def test_a_compile_timeout_of_any_length(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFCC_COMPILE_TIMEOUT", value)
    assert answer(CompileCache(tmp_path / "cache")) == 7


@pytest.mark.parametrize("value", ["'g++", 'g++ "', "''", "/", "g++ -no-such-flag-x --version=3 'a", "\x01"])
def test_a_compiler_that_is_none(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", value)
    with pytest.raises(ToolchainError):
        answer(CompileCache(tmp_path / "cache"))


def test_a_compiler_with_a_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"env {find_compiler().command[0]} -DX='a b'")
    assert answer(CompileCache(tmp_path / "cache")) == 7


@pytest.mark.parametrize("value", ["lots", "-1", "1e3", "5 EB", "nan", "inf"])
def test_a_limit_that_is_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFCC_CACHE_LIMIT", value)
    with pytest.raises(CacheError, match="EFFCC_CACHE_LIMIT"):
        cache_limit()


def test_a_limit_beyond_all_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFCC_CACHE_LIMIT", "9" * 400)
    assert cache_limit() > 1 << 60


@pytest.mark.parametrize("value", ["~nosuchuser/x", "/dev/null", "/dev/null/x", "/proc/self/x", "a" * 5000])
def test_a_cache_folder_that_can_be_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFCC_CACHE_DIR", value)
    with pytest.raises(CacheError):
        CompileCache(cache_folder())


# --- processes -------------------------------------------------------------------------------------------------------

BUILD = """
import sys
from pathlib import Path
from effcc.runtime.cache import CompileCache
from effcc.target import detect
cache = CompileCache(Path(sys.argv[1]), limit=60_000)
print("ready", flush=True)
for n in range(100):
    cache.load(f'extern "C" int answer() {{ return {n % 7}; }}\\n', detect())
"""


@pytest.mark.slow
def test_writers_killed_at_any_moment(tmp_path: Path) -> None:
    """Two processes that build, load and prune, killed at random: what they leave is whole, and builds go on."""
    rng = random.Random(1)
    folder = tmp_path / "cache"
    for _ in range(8):
        writers = [
            subprocess.Popen([sys.executable, "-c", BUILD, str(folder)], stdout=subprocess.PIPE) for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(rng.random() * 1.5)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        cache = CompileCache(folder)
        for n in range(2):
            assert answer(cache, f'extern "C" int answer() {{ return {n}; }}\n') == n
        for entry in cache.entries():
            assert cache._is_intact(entry.key)
    deadline = time.monotonic() + 60
    while any((folder / "staging").iterdir()) and time.monotonic() < deadline:
        cache.prune()
    assert not any((folder / "staging").iterdir())


def test_a_removal_cut_short_leaves_no_part_of_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed while an entry's files go one by one leaves none of them among the entries."""
    cache = CompileCache(tmp_path)
    source = 'extern "C" int answer() { return 1; }\n'
    assert answer(cache, source) == 1

    def killed(folder: Path, **_: object) -> None:
        next(file for file in Path(folder).rglob("*") if file.is_file()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("effcc.runtime.cache_files.shutil.rmtree", killed)
        cache.clear()
    assert not any((tmp_path / "entries").iterdir())
    cache.prune()
    assert not any((tmp_path / "staging").iterdir())
    assert answer(cache, source) == 1


def test_an_interrupted_compilation_leaves_nothing(tmp_path: Path) -> None:
    script = tmp_path / "cxx"
    real = find_compiler().command[0]
    head = f'#!/bin/sh\nif [ "$1" = --version ]; then exec {real} --version; fi\n'
    script.write_text(f"{head}echo $$ > {tmp_path}/pid\nexec sleep 600\n")
    script.chmod(0o700)
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(tmp_path / "cache")], env={**os.environ, "CXX": str(script)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        for _ in range(200):  # it is nobody's child any more: whoever takes over orphans has to have seen its end
            os.kill(int((tmp_path / "pid").read_text()), 0)
            time.sleep(0.05)
    cache = CompileCache(tmp_path / "cache")
    assert cache.entries() == [] and not any((cache.folder / "staging").iterdir())


def test_a_lock_that_is_held_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    cache = CompileCache(tmp_path / "cache")
    key = entry_key(SOURCE, find_compiler(), compile_flags(HOST), HOST.features)
    monkeypatch.setattr(cache_module, "PATIENCE", 0.1)
    with filelock.FileLock(cache.folder / "locks" / key), pytest.raises(CacheError, match="another process"):
        cache.load(SOURCE, HOST, timeout=0.1)
