"""Compiled C++ run on arrays: many programs in one compiler call, in a process of their own.

Programs are bundled by giving each a namespace and entry points of its own. They are compiled with `-O1`: what is
sought are wrong programs, not the compiler's bugs; and against the fuzzer's own threads.h, which runs threads in turn.
"""

from __future__ import annotations

import os
import pickle
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effcc.codegen.cpp.program import entry_points, pointer_table
from effcc.driver import State
from effcc.errors import ToolchainError
from effcc.fuzz.worker import LENGTH, Answer, Job
from effcc.ir.dims import evaluate
from effcc.ir.program import Buffer, Program
from effcc.runtime.toolchain import INCLUDE_DIR, compile_flags, compile_library
from effcc.target import Target

Array = np.ndarray[Any, Any]

_OWN_HEADERS = Path(__file__).absolute().parent / "include"
_HEAD = re.compile(r"^namespace effcc \{$", re.MULTILINE)
_TAIL = "}  // namespace effcc\n"


@dataclass(frozen=True)
class Native:
    """A compiled program to run: what the steps made, its inputs, and how many threads."""

    state: State
    inputs: tuple[Array, ...]
    threads: int = 3


@dataclass(frozen=True)
class Outcome:
    """The outputs, or why there are none: the compiler's message, a crash, a write beyond a buffer."""

    outputs: tuple[Array, ...] = ()
    problem: str = ""


class Runner:
    """Compiles and runs bundles; use it as a context manager, which ends its process and removes its files."""

    def __init__(self, timeout: float = 60.0) -> None:
        self.timeout = timeout
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
            jobs = [_job(p, start + k) for k, p in enumerate(programs[start:])]
            for answer in self._answers(library, jobs):
                program = programs[len(outcomes)]
                outcomes.append(Outcome(problem=answer.problem) if answer.problem else _outcome(program, answer))
        library.unlink()
        return outcomes

    def _compile(self, programs: Sequence[Native], target: Target) -> Path:
        flags = ["-O1" if f == "-O3" else f for f in compile_flags(target)]
        self._count += 1
        destination = Path(self._folder.name) / f"bundle{self._count}.so"
        source = bundle([p.state.source for p in programs])
        return compile_library(source, destination, [*flags, "-w"], include_dirs=(_OWN_HEADERS, INCLUDE_DIR))

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
            found.append(Answer((), f"crashed with {'signal' if code < 0 else 'exit code'} {abs(code)}"))
        return found

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
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None


def bundle(sources: Sequence[str]) -> str:
    """Sources as one: each in a namespace `case<k>`, its entry points ending in `__<k>`."""
    parts = []
    for k, source in enumerate(sources):
        text = _HEAD.sub(f"namespace effcc {{\nnamespace case{k} {{", source, count=1)
        text = text.replace(_TAIL, "}\n" + _TAIL)
        parts.append(re.sub(r'(extern "C" int \w+)\(', rf"\1__{k}(", text))
    return "\n".join(parts)


def _job(native: Native, number: int) -> Job:
    program, plan = native.state.program, native.state.plan
    assert program is not None and plan is not None
    given = dict(zip(program.inputs, native.inputs, strict=True))
    known = program.by_name
    buffers = tuple(_bytes(known[n], given[n]) if n in given else _storage(known[n]) for n in pointer_table(program))
    entries = tuple(f"{e.name}__{number}" for e in entry_points(program))
    return Job(entries, buffers, int(evaluate(plan.arena_bytes, {})), native.threads)


def _storage(buffer: Buffer) -> int:
    """Bytes from the first to past the last element."""
    shape, strides = [int(d) for d in buffer.type.shape], [int(s) for s in buffer.type.layout]
    if 0 in shape:
        return 0
    return (sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1) * buffer.type.dtype.bytes


def _bytes(buffer: Buffer, array: Array) -> bytes:
    memory = np.full(_storage(buffer), 0xFF, np.uint8)
    _view(memory, buffer)[...] = array
    return memory.tobytes()


def _view(memory: Array, buffer: Buffer) -> Array:
    """Memory seen as a buffer's type says."""
    dtype = np.dtype(buffer.type.dtype.numpy)
    shape = tuple(int(d) for d in buffer.type.shape)
    if 0 in shape:
        return np.empty(shape, dtype)
    strides = tuple(int(s) * dtype.itemsize for s in buffer.type.layout)
    return np.ndarray(shape, dtype, memory, strides=strides)


def _outcome(native: Native, answer: Answer) -> Outcome:
    program = native.state.program
    assert program is not None
    known = program.by_name
    memory: Mapping[str, Array] = {
        name: np.frombuffer(content, np.uint8)
        for name, content in zip(pointer_table(program), answer.buffers, strict=True)
    }
    wanted = (*program.outputs, *(value for _, value in program.updates))
    return Outcome(tuple(_view(memory[_root(program, n)], known[n]).copy() for n in wanted))


def _root(program: Program, name: str) -> str:
    while program.by_name[name].alias:
        name = program.by_name[name].alias
    return name
