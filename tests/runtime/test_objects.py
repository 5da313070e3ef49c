"""Kernels are compiled apart, side by side, once for all programs that have them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from effcc.errors import ToolchainError, facts_of
from effcc.runtime import cache as cache_module
from effcc.runtime import objects
from effcc.runtime.cache import CompileCache
from effcc.runtime.library import Library
from effcc.target import detect

FakeCompiler = Callable[[str], Path]
HOST = detect()


def kernel(number: int) -> str:
    return f"int number_{number}() {{ return {number}; }}\n"


def entry(*numbers: int, name: str = "sum") -> str:
    declared = "".join(f"int number_{n}();\n" for n in numbers)
    return f'{declared}extern "C" int {name}() {{ return {" + ".join(f"number_{n}()" for n in numbers)}; }}\n'


def load(cache: CompileCache, *numbers: int, name: str = "sum") -> Library:
    return cache.load(entry(*numbers, name=name), HOST, kernels=[kernel(n) for n in numbers])


def total(cache: CompileCache, *numbers: int, name: str = "sum") -> int:
    result = load(cache, *numbers, name=name).function(name)()
    assert isinstance(result, int)
    return result


def object_files(cache: CompileCache) -> list[Path]:
    return [entry.file for entry in cache.entries() if entry.kind == "object"]


def compiled(cache: CompileCache) -> list[str]:
    """What the compiler was called for, in any order."""
    return sorted(Path(f"{cache.folder}.log").read_text().split())


@pytest.fixture
def logged(cache: CompileCache, fake_compiler: FakeCompiler) -> CompileCache:
    """A cache whose compiler notes each call: an object's kernel by its number, `entry`, `link`."""
    number = 'grep -o "number_[0-9]* *() *{" "$4" | tr -d "() {" | head -1 | grep . || echo entry'
    named = f'case "$4" in *.cpp) {number};; *) echo link;; esac'
    fake_compiler(f'{named} >> {cache.folder}.log; exec "$CXX_REAL" "$@"')
    return cache


def test_a_kernel_is_compiled_once_for_all_programs(logged: CompileCache) -> None:
    assert total(logged, 1, 2) == 3
    assert compiled(logged) == ["entry", "link", "number_1", "number_2"]
    assert total(logged, 2, 3) == 5
    assert compiled(logged) == ["entry", "entry", "link", "link", "number_1", "number_2", "number_3"]
    assert total(logged, 1, 2) == 3  # nothing at all is compiled for a library that is there
    assert len(compiled(logged)) == 7


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "a folder", "a link", "writable by others"])
def test_a_damaged_object_is_made_again(logged: CompileCache, damage: str, tmp_path: Path) -> None:
    total(logged, 1)
    (file,) = object_files(logged)
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        file.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    elif damage == "emptied":
        file.write_bytes(b"")
    elif damage == "writable by others":
        file.chmod(0o666)
    else:
        file.rename(tmp_path / "elsewhere")
        file.mkdir() if damage == "a folder" else file.symlink_to(tmp_path / "elsewhere")
    assert total(logged, 1, name="again") == 1
    assert compiled(logged).count("number_1") == 2
    (file,) = object_files(logged)
    assert file.read_bytes() == content and file.is_file() and not file.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_kernel_that_is_refused_is_named(cache: CompileCache) -> None:
    bad = "int number_2() { return nonsense; }\n"
    with pytest.raises(ToolchainError, match="nonsense") as caught:
        cache.load(entry(1, 2), HOST, kernels=[kernel(1), bad])
    assert facts_of(caught.value)["unit"] == bad
    assert [e.kind for e in cache.entries()] in ([], ["object"])  # the other may be done by then
    assert list((cache.folder / "staging").iterdir()) == []


def test_an_error_ends_compilers_that_still_run(cache: CompileCache, fake_compiler: FakeCompiler) -> None:
    fake_compiler('grep -q number_1 "$4" && exit 1; exec sleep 600')
    started = time.monotonic()
    with pytest.raises(ToolchainError):
        load(cache, 1, 2)
    assert time.monotonic() - started < 60
    assert cache.entries() == [] and list((cache.folder / "staging").iterdir()) == []


def test_objects_that_do_not_link_are_not_kept(cache: CompileCache, fake_compiler: FakeCompiler) -> None:
    fake_compiler('"$CXX_REAL" "$@" || exit; case "$4" in *.cpp) [ $2 = *.o ] || echo damage > "$2";; esac')
    with pytest.raises(ToolchainError):
        load(cache, 1)
    assert cache.entries() == []
    fake_compiler('exec "$CXX_REAL" "$@"')
    assert total(cache, 1) == 1


def test_programs_at_one_time_share_the_cores(
    cache: CompileCache, fake_compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    running = tmp_path / "running"
    running.mkdir()
    fake_compiler(
        f'touch {running}/$$; ls {running} | wc -l >> {tmp_path}/most; sleep 0.1; "$CXX_REAL" "$@"; s=$?; '
        f"rm {running}/$$; exit $s"
    )
    slots = objects.Slots(2)
    for module in (objects, cache_module):
        monkeypatch.setattr(module, "COMPILERS", slots)
    programs = [threading.Thread(target=load, args=(cache, n, n + 1), kwargs={"name": f"sum_{n}"}) for n in (1, 3, 5)]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
    assert max(map(int, (tmp_path / "most").read_text().split())) == 2
    assert len(object_files(cache)) == 6


def test_over_the_limit_objects_go_like_libraries(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path / "cache")
    total(cache, 1)
    (file,) = object_files(cache)
    os.utime(file, (1, 1))
    total(cache, 2)
    cache.prune(limit=sum(entry.size for entry in cache.entries()) - 1)
    assert not file.exists() and len(object_files(cache)) == 1
    cache.clear()
    assert cache.entries() == [] and total(cache, 1) == 1


def test_a_cache_that_cannot_be_written_to_gives_its_objects(
    logged: CompileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    total(logged, 1)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: False if Path(path) == logged.folder else real(path, mode))
    before = [(e.key, e.last_used) for e in logged.entries()]
    assert total(CompileCache(logged.folder), 1, 2) == 3
    assert compiled(logged).count("number_1") == 1 and compiled(logged).count("number_2") == 1
    assert [(e.key, e.last_used) for e in logged.entries()] == before


KILLED = """
import os, signal, sys
from pathlib import Path
from effcc.runtime.cache import CompileCache
from tests.runtime.test_objects import load
real = os.replace
def killed(source, destination):
    if "objects" in str(destination):
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, destination)
os.replace = killed
load(CompileCache(Path(sys.argv[1])), 1)
"""


def test_a_writer_killed_before_installing_leaves_a_usable_cache(cache: CompileCache) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(cache.folder)], env=os.environ, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert cache.entries() == [] and len(list((cache.folder / "staging").iterdir())) == 1
    assert total(cache, 1) == 1
    assert list((cache.folder / "staging").iterdir()) == []


def test_a_forked_child_finds_all_slots_free() -> None:
    slots = objects.Slots(1)
    with slots:
        child = os.fork()
        if child == 0:
            with slots:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_kernels_are_compiled_while_others_are_written(logged: CompileCache) -> None:
    with logged.making(HOST) as making:
        making.add(kernel(1))
        for _ in range(600):
            if object_files(logged):
                break
            time.sleep(0.1)
        assert compiled(logged) == ["number_1"]  # before anybody knows the program
        library = logged.load(entry(1, 2), HOST, kernels=[kernel(1), kernel(2)], making=making)
    assert library.function("sum")() == 3
    assert compiled(logged) == ["entry", "link", "number_1", "number_2"]


def test_kernels_that_nobody_asks_for_are_given_up(cache: CompileCache, fake_compiler: FakeCompiler) -> None:
    fake_compiler("exec sleep 600")
    started = time.monotonic()
    with cache.making(HOST) as making:
        making.add(kernel(1))
    assert time.monotonic() - started < 60
    assert cache.entries() == [] and list((cache.folder / "staging").iterdir()) == []


def test_the_longest_kernel_that_waits_is_next(logged: CompileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "usable_cores", lambda: 1)
    texts = [kernel(1), kernel(2), kernel(3) + "// much more\n" * 10]
    with logged.making(HOST) as making:
        for text in texts:
            making.add(text)
        making.objects(texts)
    order = Path(f"{logged.folder}.log").read_text().split()
    assert order.index("number_3") < order.index("number_2")


def test_entry_points_are_optimized_less_than_kernels(cache: CompileCache, fake_compiler: FakeCompiler) -> None:
    log = Path(f"{cache.folder}.log")
    named = 'grep -q "extern" "$4" && name=entry || name=kernel'
    noted = f'for a in "$@"; do case $a in -O*) echo $name$a >> {log};; esac; done'
    fake_compiler(f'{named}; {noted}; exec "$CXX_REAL" "$@"')
    assert total(cache, 1) == 1
    assert sorted(log.read_text().split()) == ["entry-O1", "kernel-O3"]
