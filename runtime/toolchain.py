"""From C++ text to objects and shared libraries: finding the compiler, the flags that keep floats as eager has them.

The flags are `-O3 -std=c++20` and no `-ffast-math`, because NaN, infinities and signed zeros must come out as in eager:

- `-fno-math-errno`: nothing reads errno, and square roots become one instruction.
- `-fno-trapping-math`: nothing reads the floating-point exception flags, so branches may become selects; no value
  changes. (`-fno-signed-zeros`, `-fassociative-math` and `-ffinite-math-only` would change values and stay off.)
- `-fwrapv`: integers wrap around, as a tensor's do, instead of being undefined beyond their range.
- `-fno-exceptions`: nothing throws, so that nothing of C++'s own library is needed.
- `-ffp-contract=off`, unless the caller asks for contraction: g++ fuses a*b+c silently otherwise, and a pointwise
  kernel would then round otherwise than eager does. Products that want fused multiply-adds say so.
- `-fno-predictive-commoning`, which only g++ knows: where a product reads every other pixel, tap after tap, it keeps
  what the next tap reads in registers that the sums need (spilled sums cost ResNet-50's first convolution 0.8 times
  its time). Windows whose points share what they load are unrolled in the text already.
- `--param=max-unswitch-insns`, g++'s too: rows of a register tile that lie in a convolution's padding are asked for by
  conditions that do not change along the channels; g++ takes them out of that loop only if told that it may be long.
- one `-m` flag for each CPU feature of the target, instead of `-march=native`: the same target gives the same code.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from effcc.errors import ToolchainError
from effcc.runtime import precompiled
from effcc.runtime.commands import INSTALL_HINT, Interrupt, run_command
from effcc.target import Target

INCLUDE_DIR = Path(__file__).absolute().parent / "include"
DEFAULT_TIMEOUT = 300.0
"""Seconds after which a compiler call is given up, unless `EFFCC_COMPILE_TIMEOUT` says otherwise."""

_LONGEST = 1e6
"""More seconds than anybody waits, and few enough for every system call; `inf` means that."""

_NEWEST_GCC, _OLDEST_GCC = 16, 10
_NEWEST_CLANG, _OLDEST_CLANG = 22, 14

_HEADERS = precompiled.Precompiled()

_FEATURE_FLAGS = {
    "avx512vbmi": "-mavx512vbmi",
    "avx512_vnni": "-mavx512vnni",
    "avx512_bf16": "-mavx512bf16",
    "avx512_fp16": "-mavx512fp16",
    "avx512_vpopcntdq": "-mavx512vpopcntdq",
    "avx_vnni": "-mavxvnni",
    "amx_tile": "-mamx-tile",
    "amx_bf16": "-mamx-bf16",
    "amx_int8": "-mamx-int8",
}


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: the command that starts it, its family, and the first line of its `--version`."""

    command: tuple[str, ...]
    family: Literal["gcc", "clang"]
    version: str

    @property
    def flags(self) -> tuple[str, ...]:
        """What its family alone understands."""
        return ("-fno-predictive-commoning", "--param=max-unswitch-insns=400") if self.family == "gcc" else ()

    @property
    def major(self) -> int:
        """The first number of the version."""
        found = re.search(r"\b(\d+)\.\d+", re.sub(r"\(.*?\)", "", self.version))
        return int(found.group(1)) if found else 0


def find_compiler() -> Compiler:
    """The C++ compiler to use: what CXX names, else g++, clang++, or the newest versioned name of either.

    Raises ToolchainError where CXX names nothing that works, or where there is no compiler; the message says which
    package to install.
    """
    return _find_compiler(os.environ.get("CXX", "").strip(), os.environ.get("PATH", ""))


@functools.lru_cache(maxsize=8)
def _find_compiler(named: str, search_path: str) -> Compiler:
    if named:
        try:
            command = shlex.split(named)
        except ValueError as error:
            raise ToolchainError(f"the environment variable CXX is {named!r}: {error}; {INSTALL_HINT}") from None
        if not command or shutil.which(command[0], path=search_path) is None:
            raise ToolchainError(f"the environment variable CXX is {named!r}, which is no command; {INSTALL_HINT}")
        return _identify(tuple(command))
    for name in _candidates():
        path = shutil.which(name, path=search_path)
        if path is not None:
            return _identify((path,))
    raise ToolchainError(f"no C++ compiler found (looked for g++ and clang++ on PATH); {INSTALL_HINT}")


def _candidates() -> list[str]:
    gcc = [f"g++-{major}" for major in range(_NEWEST_GCC, _OLDEST_GCC - 1, -1)]
    clang = [f"clang++-{major}" for major in range(_NEWEST_CLANG, _OLDEST_CLANG - 1, -1)]
    return ["g++", "clang++", *gcc, *clang, "c++"]


def _identify(command: tuple[str, ...]) -> Compiler:
    output = run_command([*command, "--version"], timeout=60)
    lines = output.splitlines()
    family: Literal["gcc", "clang"] = "clang" if "clang" in output.lower() else "gcc"
    return Compiler(command, family, lines[0].strip() if lines else "unknown version")


def compile_timeout() -> float:
    """Seconds to wait for a compiler call: `EFFCC_COMPILE_TIMEOUT`, else `DEFAULT_TIMEOUT`.

    Raises ToolchainError where the variable holds no positive number.
    """
    text = os.environ.get("EFFCC_COMPILE_TIMEOUT", "").strip()
    try:
        seconds = float(text) if text else DEFAULT_TIMEOUT
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ToolchainError(f"EFFCC_COMPILE_TIMEOUT: expected a positive number of seconds, got {text!r}")
    return min(seconds, _LONGEST)


def debug_info() -> bool:
    """Whether `EFFCC_DEBUG_INFO=1` asks for debug information: the code of kernels then stands for lines of the model
    in gdb, perf and addr2line. Objects are some times as large."""
    return os.environ.get("EFFCC_DEBUG_INFO") == "1"


def compile_flags(target: Target, *, openmp: bool = False, contract: bool = False) -> tuple[str, ...]:
    """The flags for a library of `target`'s code. openmp: threads are OpenMP's. contract: a*b+c may become a fused
    multiply-add.

    >>> "-ffast-math" in compile_flags(Target.parse("avx512"))
    False
    """
    return (*object_flags(target, openmp=openmp, contract=contract), *link_flags(openmp=openmp))


def object_flags(target: Target, *, openmp: bool = False, contract: bool = False, level: int = 3) -> tuple[str, ...]:
    """The flags for an object, optimized as far as `level` says. Only one that starts threads need know which:
    EFFCC_OPENMP chooses them in effcc/threads.h."""
    flags = ["-std=c++20", f"-O{level}", "-fPIC", "-pthread", "-fno-exceptions"]
    flags += ["-fno-math-errno", "-fno-trapping-math", "-fwrapv", f"-ffp-contract={'fast' if contract else 'off'}"]
    flags += [_FEATURE_FLAGS.get(feature, f"-m{feature}") for feature in target.features]
    if target.isa == "avx512":
        flags.append("-mprefer-vector-width=512")
    if debug_info():
        flags.append("-g")
    if openmp:
        flags += ["-DEFFCC_OPENMP", *(["-Xpreprocessor"] if sys.platform == "darwin" else []), "-fopenmp"]
    return tuple(flags)


def link_flags(*, openmp: bool = False) -> tuple[str, ...]:
    """The flags for making a library of objects."""
    threads = ["-lomp" if sys.platform == "darwin" else "-fopenmp"] if openmp else []
    return ("-shared", "-pthread", *threads, *_math_libraries())


def lean_link_flags(compiler: Compiler, *, openmp: bool = False) -> tuple[str, ...]:
    """The flags for making a library of objects that call nothing of C++'s own library, as generated code does: the
    linker takes longer to read that than all else."""
    if compiler.family != "gcc" or sys.platform != "linux":
        return link_flags(openmp=openmp)
    threads = ["-lgomp"] if openmp else []
    return ("-shared", "-nodefaultlibs", *_math_libraries(), *threads, "-lpthread", "-lgcc", "-lc")


def _math_libraries() -> tuple[str, ...]:
    """libm, and glibc's vector forms of it where there are any; linked only if the code calls them."""
    if sys.platform != "linux":
        return ()
    vector_forms = platform.libc_ver()[0] == "glibc" and platform.machine() == "x86_64"
    return ("-Wl,--as-needed", *(("-lmvec",) if vector_forms else ()), "-lm")


def compile_library(
    source: str,
    destination: Path,
    flags: Sequence[str],
    *,
    compiler: Compiler | None = None,
    include_dirs: Sequence[Path] = (INCLUDE_DIR,),
    timeout: float = DEFAULT_TIMEOUT,
) -> Path:
    """Compile C++ text into the shared library `destination`, which appears whole or not at all.

    Raises ToolchainError, with the compiler's output, where there is no compiler, it fails, is killed, writes nothing,
    or takes longer than `timeout` seconds (it is then stopped together with every process it started).
    """
    with tempfile.TemporaryDirectory(prefix=".effcc-", dir=destination.parent) as scratch:
        library, text = Path(scratch) / "library.so", Path(scratch) / "source.cpp"
        text.write_text(source)
        _call(compiler, library, [*(f"-I{folder}" for folder in include_dirs), str(text), *flags], timeout)
        os.replace(library, destination)
    return destination


def link_library(
    objects: Sequence[bytes],
    destination: Path,
    flags: Sequence[str],
    *,
    compiler: Compiler | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Path:
    """Link objects into the shared library `destination`. Raises as `compile_library` does."""
    with tempfile.TemporaryDirectory(prefix=".effcc-", dir=destination.parent) as scratch:
        parts = [Path(scratch) / f"{number}.o" for number in range(len(objects))]
        for part, content in zip(parts, objects, strict=True):
            part.write_bytes(content)
        library = Path(scratch) / "library.so"
        _call(compiler, library, [*map(str, parts), *flags], timeout)
        os.replace(library, destination)
    return destination


def compile_object(
    source: str,
    flags: Sequence[str],
    folder: Path,
    *,
    compiler: Compiler | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    interrupt: Interrupt | None = None,
) -> bytes:
    """The object that C++ text compiles to; `folder` is for temporary files. Raises as `compile_library` does."""
    compiler = compiler or find_compiler()
    with tempfile.TemporaryDirectory(prefix=".effcc-", dir=folder) as scratch:
        made, text = Path(scratch) / "object.o", Path(scratch) / "source.cpp"
        text.write_text(source)

        def headers() -> bytes:
            header, result = Path(scratch) / "headers.h", Path(scratch) / "headers.gch"
            header.write_text(precompiled.TEXT)
            _call(compiler, result, [f"-I{INCLUDE_DIR}", "-x", "c++-header", str(header), *flags], timeout, interrupt)
            return result.read_bytes()

        more: Sequence[str] = ()
        if compiler.family == "gcc":
            more = _HEADERS.flags((compiler, *flags), source, Path(scratch), headers)
        _call(compiler, made, [f"-I{INCLUDE_DIR}", str(text), "-c", *flags, *more], timeout, interrupt)
        return made.read_bytes()


def _call(
    compiler: Compiler | None,
    made: Path,
    arguments: Sequence[str],
    timeout: float,
    interrupt: Interrupt | None = None,
) -> None:
    """One call of the compiler, which makes the file `made`."""
    compiler = compiler or find_compiler()
    output = run_command(
        [*compiler.command, "-o", str(made), *arguments, *compiler.flags], timeout, interrupt, made.parent
    )
    if not made.is_file() or made.stat().st_size == 0:
        raise ToolchainError(f"{compiler.command[0]} reported success and wrote no {made.name}; its output:\n{output}")
