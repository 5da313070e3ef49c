"""Programs as users run them: compiled as for use, through the executable in this process's like, and as packages.

`effcc.fuzz.native` calls entry points on memory of its own; here the runtime around them is what is asked: the compile
cache, fitting of inputs, weights that change between calls, packages written and loaded. It runs in a process of its
own, with a cache that goes with it: `python -c "from effcc.fuzz.deployed import main; main()"`.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from effcc.ahead import build_package
from effcc.driver import Options, State, load
from effcc.fuzz.eager import to_numpy, to_torch
from effcc.fuzz.expected import expect
from effcc.fuzz.generate import Array, Case
from effcc.fuzz.oracles import Examined, Failure, compare, eager_results, native, told
from effcc.ir.dims import Shape
from effcc.runtime.package import Package
from effcc.runtime.worker import LostError, Worker, answer_requests
from effcc.sources import Source
from effcc.target import Target

KINDS = ("executable", "package")
THREADS = 2
TIMEOUT = 120.0


@dataclass(frozen=True)
class Request:
    """A program, how to run it, and the inputs of each call; between calls, weights take what the next call gives."""

    kind: str
    state: State
    target: Target
    weights: tuple[int, ...]
    calls: tuple[tuple[Array, ...], ...]
    updated: tuple[int, ...]


class Deployed:
    """Runs programs as users do; use it as a context manager, which ends its process and removes its files."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="effcc-fuzz-")
        cache = str(Path(self._folder.name) / "cache")
        self._worker = Worker("effcc.fuzz.deployed:main", {"EFFCC_CACHE_DIR": cache})

    def __enter__(self) -> Deployed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.stop()
        self._folder.cleanup()

    def judge(self, examined: Examined, target: Target) -> Failure | None:
        """How a program is wrong when it is deployed; None where it is right, or cannot be."""
        case, program = examined.case, native(examined)
        if program is None:
            return None
        kind = KINDS[case.seed // 2 % len(KINDS)]
        if kind == "package" and (case.graph.updates or not case.graph.nodes):
            kind = "executable"
        calls = _calls(examined, kind)
        params = case.graph.params
        request = Request(
            kind, program.state, target, tuple(k for k, p in enumerate(params) if p.name in case.graph.weights),
            tuple(c.inputs for c in calls), tuple(params.index(p) for p, _ in case.graph.updates),
        )  # fmt: skip
        found = self._ask(request)
        if isinstance(found, str):
            return Failure(case, "deployed", f"{kind} fails", found)
        for number, (called, results) in enumerate(zip(calls, found, strict=True)):
            expected = expect(called)
            try:
                eager = eager_results(called, expected)
            except (RuntimeError, IndexError, ValueError):
                continue  # eager has no such call at these sizes
            problem = compare(results, eager, expected)
            if problem:
                return Failure(case, "deployed", f"{kind} is wrong", f"call {number + 1}: {problem}")
        return None

    def _ask(self, request: Request) -> list[list[Array]] | str:
        try:
            answer: list[list[Array]] | str = self._worker.ask(request, TIMEOUT)
        except LostError as lost:
            return str(lost)
        return answer


def _calls(examined: Examined, kind: str) -> list[Case]:
    """The case as called first, with other inputs, and with other weights; once only where inputs are updated."""
    case = examined.case
    if case.graph.updates or examined.second is None:
        return [case]
    again, _ = examined.second
    changed = [
        np.roll(a, 1) if p.name in case.graph.weights and p.type.dtype.is_float else a
        for p, a in zip(again.graph.params, again.inputs, strict=True)
    ]
    last = [replace(again, inputs=tuple(changed))] if kind == "executable" else []
    return [case, again, *last]


# In the process of its own --------------------------------------------------------------------------------------------


def main() -> None:
    """Answer requests until the input ends."""
    with tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as folder:
        numbers = itertools.count(1)

        def answer(request: Request) -> list[list[Array]] | str:
            run = _run_package if request.kind == "package" else _run_executable
            try:
                return run(request, Path(folder) / f"model{next(numbers)}")
            except Exception as error:  # whatever is raised is the answer
                return told(error)

        answer_requests(answer)


def _run_executable(request: Request, path: Path) -> list[list[Array]]:
    """Call the executable; weights are tensors that live on and change in place, in two ways that users change them."""
    assert request.state.program is not None
    executable = load(request.state, request.target, Options(threads=THREADS))
    layouts = [request.state.program.buffer(n).type.layout for n in request.state.program.inputs]
    kept = {k: _laid(to_torch(request.calls[0][k]), layouts[k]) for k in request.weights}  # as they were traced
    found = []
    with torch.no_grad():
        for number, inputs in enumerate(request.calls):
            for k, tensor in kept.items():
                if number and inputs[k].tobytes() != request.calls[number - 1][k].tobytes():
                    if 0 in layouts[k]:
                        kept[k] = _laid(to_torch(inputs[k]), layouts[k])
                    else:
                        (tensor if k % 2 else tensor.data).copy_(to_torch(inputs[k]))
            given = [kept[k] if k in kept else _repeated(to_torch(a), layouts[k]) for k, a in enumerate(inputs)]
            results = executable(*given)
            found.append([to_numpy(r) for r in (*results, *(given[k] for k in request.updated))])
    return found


def _laid(tensor: torch.Tensor, layout: Shape) -> torch.Tensor:
    """The tensor with the strides of its layout."""
    if 0 in layout or 0 in tensor.shape:
        return _repeated(tensor, layout)
    return torch.empty_strided(tuple(tensor.shape), tuple(int(s) for s in layout), dtype=tensor.dtype).copy_(tensor)


def _repeated(tensor: torch.Tensor, layout: Shape) -> torch.Tensor:
    """The tensor with one element where its layout has stride 0: a caller cannot store another there."""
    for axis, stride in enumerate(layout):
        if stride == 0 and tensor.numel():
            tensor = tensor.narrow(axis, 0, 1).expand(tensor.shape)
    return tensor


def _run_package(request: Request, path: Path) -> list[list[Array]]:
    """Write the package, load it, call it."""
    program = request.state.program
    assert program is not None
    weights = {program.inputs[k]: request.calls[0][k] for k in request.weights}
    package = Package(build_package(Source(request.state, weights=weights), request.target, path), threads=THREADS)
    found = []
    for inputs in request.calls:
        named = enumerate(zip(program.inputs, inputs, strict=True))
        results = package.run({n: a.copy() for k, (n, a) in named if k not in request.weights})
        found.append([np.array(results[n]) for n in package.manifest.outputs])
    return found
