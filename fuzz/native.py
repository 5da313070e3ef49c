"""Compiled C++ run on arrays: many programs in one compiler call, in a process of their own.

Programs are bundled by giving each a namespace and entry points of its own. They are compiled with `-Og`, which takes
half as long as `-O1`: what is sought are wrong programs, not the compiler's bugs; and against the fuzzer's own
threads.h, which runs threads in turn.
A share runs on the runtime's own threads, which lose their cores at the worst moments (`include/preempt.h`), in teams
of several sizes, on which results must not depend.
A share is compiled with the address and undefined-behaviour sanitizers, and runs in a process that has the address
sanitizer's library loaded first, without which sanitized code does not load into Python.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from effcc.codegen.cpp.program import entry_points, pointer_table, size_table
from effcc.errors import ToolchainError
from effcc.fuzz.worker import LENGTH, Again, Answer, Job
from effcc.ir.dims import evaluate
from effcc.ir.types import TensorType
from effcc.runtime.arrays import allocate, storage_bytes
from effcc.runtime.commands import run_command
from effcc.runtime.toolchain import INCLUDE_DIR, compile_flags, compile_library, find_compiler
from effcc.steps import State
from effcc.target import Target

Array = np.ndarray[Any, Any]

_OWN_HEADERS = Path(__file__).absolute().parent / "include"
_TEAMS = (4, 2, 3)  # sizes of teams of the runtime's own threads, one after the other
_HEAD = re.compile(r"^namespace effcc \{$", re.MULTILINE)
_TAIL = "}  // namespace effcc\n"


@dataclass(frozen=True)
class Native:
    """A compiled program to run: what the steps made, its inputs, and how many threads.

    `front` says at which end of its memory an access too far is a crash. It is called again if it updates inputs, on
    what is left of them, or else if there are inputs for it (`again`).
    """

    state: State
    inputs: tuple[Array, ...]
    threads: int = 3
    sizes: Mapping[str, int] = field(default_factory=dict)
    updated: tuple[str, ...] = ()
    front: bool = False
    weights: frozenset[str] = frozenset()
    again: tuple[Array, ...] | None = None
    again_sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The outputs and updated inputs, or why there are none: the compiler's message, a crash, a forbidden write."""

    outputs: tuple[Array, ...] = ()
    problem: str = ""
    again: tuple[Array, ...] = ()  # after the second call, where there is one


class Runner:
    """Compiles and runs bundles; use it as a context manager, which ends its process and removes its files.

    sanitize: with the address and undefined-behaviour sanitizers. Raises ToolchainError where the compiler has none.
    race: on the runtime's own threads.
    """

    def __init__(self, timeout: float = 60.0, sanitize: bool = False, race: bool = False) -> None:
        self.timeout = timeout
        self.race = race
        self.sanitizer = sanitizer_library() if sanitize else None
        self._folder = tempfile.TemporaryDirectory(prefix="effcc-fuzz-")
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._folder.cleanup()

    def run(self, programs: Sequence[Native], target: Target) -> list[Outcome]:
        """The outcome of every program."""
        if not programs:
            return []
        try:
            library = self._compile(programs, target)
        except ToolchainError as error:
            if len(programs) == 1:
                return [Outcome(problem=f"the compiler refuses the source: {error}")]
            return [outcome for p in programs for outcome in self.run([p], target)]
        outcomes: list[Outcome] = []
        while len(outcomes) < len(programs):
            start = len(outcomes)
            jobs = [_job(p, start + k, self.race) for k, p in enumerate(programs[start:])]
            for answer in self._answers(library, jobs):
                program = programs[len(outcomes)]
                outcomes.append(Outcome(problem=answer.problem) if answer.problem else _outcome(program, answer))
        library.unlink()
        return outcomes

    def _compile(self, programs: Sequence[Native], target: Target) -> Path:
        flags = ["-Og" if f == "-O3" else f for f in compile_flags(target)]
        if self.sanitizer is not None:
            flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
        self._count += 1
        destination = Path(self._folder.name) / f"bundle{self._count}.so"
        source = bundle([str(p.state.source) for p in programs])
        own = () if self.race else (_OWN_HEADERS,)
        flags += ["-include", str(_OWN_HEADERS / "preempt.h")] if self.race else []
        return compile_library(source, destination, [*flags, "-w"], include_dirs=(*own, INCLUDE_DIR))

    def _answers(self, library: Path, jobs: Sequence[Job]) -> list[Answer]:
        """The answers up to the first crash or hang, which is the last of them."""
        process = self._start()
        assert process.stdin is not None and process.stdout is not None
        found: list[Answer] = []
        try:
            pickle.dump((str(library), list(jobs)), process.stdin)
            process.stdin.flush()
            for _ in jobs:
                size = int.from_bytes(self._received(process.stdout.fileno(), LENGTH), "little")
                found.append(pickle.loads(self._received(process.stdout.fileno(), size)))
        except TimeoutError:
            found.append(Answer((), f"did not return within {self.timeout:g} s"))
            self._stop()
        except (EOFError, BrokenPipeError):
            code = process.wait()
            self._process = None
            how = f"crashed with {'signal' if code < 0 else 'exit code'} {abs(code)}"
            found.append(Answer((), self._report() or how))
        return found

    def _report(self) -> str:
        """What the sanitizer wrote before it ended the process: its first line that says what is wrong, and where."""
        text = self._messages.read_text(errors="replace") if self._messages.is_file() else ""
        lines = [line.strip() for line in text.splitlines()]
        said = [line for line in lines if "runtime error" in line or "ERROR: AddressSanitizer" in line]
        where = next((line for line in lines if line.startswith("#") and "effcc::" in line), "")
        return f"{re.sub(r'0x[0-9a-f]+|==[0-9]+==', '', said[0]).strip()} {where}".strip() if said else ""

    def _received(self, stream: int, size: int) -> bytes:
        """The next `size` bytes of an answer; raises TimeoutError, or EOFError where the process has ended."""
        content = b""
        while len(content) < size:
            if not select.select([stream], [], [], self.timeout)[0]:
                raise TimeoutError
            part = os.read(stream, size - len(content))
            if not part:
                raise EOFError
            content += part
        return content

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-c", "from effcc.fuzz.worker import main; main()"]
            if self.sanitizer is None:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
                )
            else:
                given = {"LD_PRELOAD": str(self.sanitizer), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
                with self._messages.open("w") as messages:
                    self._process = subprocess.Popen(
                        [*command, "exact"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages,
                        env={**os.environ, **given}, start_new_session=True,
                    )  # fmt: skip
        return self._process

    @property
    def _messages(self) -> Path:
        return Path(self._folder.name) / "messages.txt"

    def _stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # and the job that it has forked
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None


def bundle(sources: Sequence[str]) -> str:
    """Sources as one: each in a namespace `case<k>`, its entry points ending in `__<k>`."""
    parts = []
    for k, source in enumerate(sources):
        text = _HEAD.sub(f"namespace effcc {{\nnamespace case{k} {{", source)
        text = text.replace(_TAIL, "}\n" + _TAIL)
        parts.append(re.sub(r'(extern "C" int \w+)\(', rf"\1__{k}(", text))
    return "\n".join(parts)


def sanitizer_library() -> Path:
    """The compiler's library of the address sanitizer; raises ToolchainError where there is none."""
    said = run_command([*find_compiler().command, "-print-file-name=libasan.so"], timeout=60).strip()
    if not Path(said).is_absolute():
        raise ToolchainError("the compiler has no address sanitizer (libasan.so); install it, or fuzz without")
    return Path(said)


def _job(native: Native, number: int, race: bool = False) -> Job:
    program, plan = native.state.program, native.state.plan
    assert program is not None and plan is not None
    given = dict(zip(program.inputs, native.inputs, strict=True))
    known, table = program.by_name, pointer_table(program)
    written = {program.memory_of(name) for step in program.steps for name in step.results}
    stages = [e.stage for e in entry_points(program)]

    def numbers(*spaces: str) -> frozenset[int]:
        return frozenset(k for k, n in enumerate(table) if known[n].space in spaces)

    floats = {k for k, n in enumerate(table) if known[n].type.dtype.is_float}
    return Job(
        entries=tuple(f"{e.name}__{number}" for e in entry_points(program)),
        buffers=tuple(_content(known[n].type, native.sizes, given.get(n)) for n in table),
        arena=int(evaluate(plan.arena_bytes, native.sizes)),
        threads=_TEAMS[0] if race else native.threads,
        teams=_TEAMS[1:] if race else (),
        sizes=tuple(native.sizes[s] for s in size_table(program)),
        kept=frozenset(k for k, n in enumerate(table) if n in given and n not in written),
        rehearsed=frozenset(numbers("weight") & floats) if "prepare" in stages else frozenset(),
        prepared=numbers("prepared"),
        again=_again(native, tuple(f"{e.name}__{number}" for e in entry_points(program) if e.stage == "run")),
        front=native.front,
    )


def _again(native: Native, entries: tuple[str, ...]) -> Again | None:
    """The second call: everything anew but weights and what was prepared, or nothing where inputs are updated."""
    program, plan = native.state.program, native.state.plan
    assert program is not None and plan is not None
    known, table = program.by_name, pointer_table(program)
    if not native.updated and native.again is None:
        return None
    sizes = native.again_sizes or native.sizes
    given = dict(zip(program.inputs, native.again or (), strict=native.again is not None))

    def content(name: str) -> bytes | int | None:
        if native.updated or name in native.weights or known[name].space == "prepared":
            return None
        return _content(known[name].type, sizes, given.get(name))

    arena = int(evaluate(plan.arena_bytes, sizes))
    return Again(entries, tuple(content(n) for n in table), arena, tuple(sizes[s] for s in size_table(program)))


def _content(type: TensorType, sizes: Mapping[str, int], array: Array | None) -> bytes | int:
    """A buffer's bytes, 0xFF between its elements; how many it has where nothing is given."""
    size = storage_bytes(type, sizes)
    if array is None:
        return size
    memory = np.full(size, 0xFF, np.uint8)
    allocate(type, sizes, memory)[...] = array
    return memory.tobytes()


def _outcome(native: Native, answer: Answer) -> Outcome:
    program = native.state.program
    assert program is not None
    known = program.by_name
    table, wanted = pointer_table(program), (*program.outputs, *native.updated)

    def read(buffers: Sequence[bytes], sizes: Mapping[str, int]) -> tuple[Array, ...]:
        memory = {name: np.frombuffer(content, np.uint8) for name, content in zip(table, buffers, strict=True)}
        return tuple(allocate(known[n].type, sizes, memory[program.memory_of(n)]).copy() for n in wanted)

    again = read(answer.again, native.again_sizes or native.sizes) if answer.again else ()
    return Outcome(read(answer.buffers, native.sizes), again=again)
