"""Emitted Triton programs run: on a GPU where there is one, else under Triton's interpreter, in a process of its own.

    with TritonInterpreter() as interpreter:
        outputs = run_triton(program, text, inputs, interpreter.run)

Both take and give the memory of a program's buffers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from effcc.errors import InputError, ToolchainError, UnsupportedError
from effcc.ir.dims import evaluate
from effcc.ir.dtypes import DType
from effcc.ir.interpreter.evaluate import bind_sizes
from effcc.ir.program import Program
from effcc.ir.types import TensorType

Storage = dict[str, np.ndarray]
"""The memory of each buffer that is no alias, flat."""

Runner = Callable[[str, Storage, Mapping[str, DType], Mapping[str, int]], Storage]
"""Runs a module's text on storage; gives the storage after its last step."""


def run_triton(
    program: Program, text: str, inputs: Sequence[Any], runner: Runner, sizes: Mapping[str, int] | None = None
) -> list[np.ndarray]:
    """The outputs of a program whose module is `text`, for `inputs` in the program's order.

    Raises InputError on misfitting inputs, UnsupportedError for a program that calls PyTorch.
    """
    if program.externs:
        op = program.externs[0].op
        raise UnsupportedError(f"program @{program.name} calls PyTorch ({op}); expected one of kernels alone")
    if len(inputs) != len(program.inputs):
        raise InputError(f"program @{program.name} expects {len(program.inputs)} inputs, got {len(inputs)}")
    types = {b.name: b.type for b in program.buffers}
    given = {n: np.asarray(a, types[n].dtype.numpy) for n, a in zip(program.inputs, inputs, strict=True)}
    bound = bind_sizes({n: (types[n].shape, a.shape) for n, a in given.items()}, sizes)
    owner = {b.name: program.memory_of(b.name) for b in program.buffers}
    storage: Storage = {}
    for name, type in types.items():
        elements = _elements(type, bound)
        if owner[name] not in storage or storage[owner[name]].size < elements:
            storage[owner[name]] = np.zeros(elements, type.dtype.numpy)
    for name, array in given.items():
        _view(storage[owner[name]], types[name], bound)[...] = array
    after = runner(text, storage, {n: types[n].dtype for n in storage}, bound)
    return [_view(after[owner[n]], types[n], bound).copy() for n in program.outputs]


def _elements(type: TensorType, sizes: Mapping[str, int]) -> int:
    shape, strides = ([evaluate(d, sizes) for d in ds] for ds in (type.shape, type.layout))
    return max(1, 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)))


def _view(memory: np.ndarray, type: TensorType, sizes: Mapping[str, int]) -> np.ndarray:
    shape, strides = (tuple(evaluate(d, sizes) for d in ds) for ds in (type.shape, type.layout))
    return np.lib.stride_tricks.as_strided(memory, shape, tuple(s * memory.itemsize for s in strides))


class TritonInterpreter:
    """A process in which Triton interprets modules on the CPU; it starts with the first run and ends with `close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="effcc-triton-")
        self._runs = 0

    def __enter__(self) -> TritonInterpreter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process and delete its files."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:  # it is at a kernel still, or the machine at other things
                self._process.kill()
                self._process.wait()
            self._process = None
        self._folder.cleanup()

    def run(self, text: str, storage: Storage, dtypes: Mapping[str, DType], sizes: Mapping[str, int]) -> Storage:
        """A `Runner`. Raises ToolchainError with the traceback where a kernel fails."""
        self._runs += 1
        folder = Path(self._folder.name) / str(self._runs)
        folder.mkdir()
        (folder / "module.py").write_text(text)
        np.savez(folder / "buffers.npz", **{n: a.view(np.uint8) for n, a in storage.items()})  # type: ignore[arg-type]
        names = {n: dtypes[n].long_name for n in storage}
        (folder / "request.json").write_text(json.dumps({"dtypes": names, "sizes": dict(sizes)}))
        error = self._ask(str(folder))
        if error:
            raise ToolchainError(f"Triton's interpreter failed:\n{error}")
        with np.load(folder / "results.npz") as stored:
            return {n: stored[n].view(a.dtype) for n, a in storage.items()}

    def _ask(self, line: str) -> str:
        if self._process is None:
            environment = {**os.environ, "TRITON_INTERPRET": "1"}
            command = [sys.executable, "-m", "effcc.runtime.triton_worker"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=_import_root()
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return json.loads(answer)["error"] if answer else f"the process ended with {self._process.wait()}"


def _import_root() -> Path:
    """The folder from which `import effcc` finds this package."""
    import effcc

    return Path(effcc.__path__[0]).parent


def run_on_device(text: str, storage: Storage, dtypes: Mapping[str, DType], sizes: Mapping[str, int]) -> Storage:
    """A `Runner` on the first CUDA (or ROCm) device. Raises UnsupportedError where there is none."""
    import torch

    from effcc.runtime.triton_compile import load_module

    if not torch.cuda.is_available():
        raise UnsupportedError("no GPU that PyTorch can reach; use TritonInterpreter, or the C++ backend")
    with tempfile.TemporaryDirectory(prefix="effcc-triton-") as folder:
        module = load_module(text, Path(folder))
        views = {
            n: torch.from_numpy(a.view(np.uint8).copy()).cuda().view(getattr(torch, dtypes[n].long_name))
            for n, a in storage.items()
        }  # fmt: skip
        module.prepare(views, sizes)
        module.run(views, sizes)
        torch.cuda.synchronize()
    return {n: views[n].view(torch.uint8).cpu().numpy().view(a.dtype) for n, a in storage.items()}
