"""Programs as users run them: compiled as for use, through the executable in this process's like, and as packages.

`effcc.fuzz.native` calls entry points on memory of its own; here the runtime around them is what is asked: the compile
cache, fitting of inputs (with rows apart, or lazily negated), weights of which one element changes between calls, sizes
that grow and shrink, packages written and loaded, and calls that must be refused. It runs in a process of its
own, with a cache that goes with it: `python -c "from effcc.fuzz.deployed import main; main()"`.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from effcc.ahead import build_package
from effcc.driver import Options, State, load
from effcc.errors import InputError
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
    strange: bool = False  # inputs do not lie in memory as they were compiled for


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
            tuple(c.inputs for c in calls), tuple(params.index(p) for p, _ in case.graph.updates), case.seed % 3 == 0,
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
            problem = compare(results, eager, expected, by_elements=True)
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
    """The case as called first, with other inputs (and sizes), with other weights, and as first but for the weights;
    once only where inputs are updated."""
    case = examined.case
    if case.graph.updates or examined.second is None:
        return [case]
    again, _ = examined.second
    if kind == "package":
        return [case, again, case]
    weights = case.graph.weights
    changed = [
        _changed(a, case.seed) if p.name in weights and p.type.dtype.is_float else a
        for p, a in zip(again.graph.params, again.inputs, strict=True)
    ]
    back = [new if p.name in weights else a for p, a, new in zip(case.graph.params, case.inputs, changed, strict=True)]
    return [case, again, replace(again, inputs=tuple(changed)), replace(case, inputs=tuple(back))]


def _changed(array: Array, seed: int) -> Array:
    """A weight after an update: all of it moved, or one element, of which the last one is as good as any."""
    if seed % 4 == 0 or array.size == 0:
        return np.roll(array, 1)
    flat = array.reshape(-1).copy()
    at = (flat.size - 1, flat.size - 1, seed % flat.size)[seed % 3]
    flat[at] = flat[at - 1] + np.asarray(1.5, array.dtype)
    return flat.reshape(array.shape)


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
            if request.strange:
                own = {*kept, *(k for k, layout in enumerate(layouts) if 0 in layout)}
                given = [t if k in own else _strange(t, k, k in request.updated) for k, t in enumerate(given)]
            results = executable(*given)
            found.append([to_numpy(r) for r in (*results, *(given[k] for k in request.updated))])
        for what, wrong in _invalid(given, set(kept)):
            _must_refuse(what, lambda wrong=wrong: executable(*wrong))  # type: ignore[misc]
    return found


def _strange(tensor: torch.Tensor, position: int, written: bool) -> torch.Tensor:
    """The same numbers with rows apart from each other, or as a view that is negated when it is read."""
    if position % 2 and tensor.dtype in (torch.float32, torch.float64) and not written:
        return torch.complex(torch.zeros_like(tensor), -tensor).conj().imag
    if tensor.dim() == 0:
        return tensor
    apart = torch.empty((2 * tensor.shape[0], *tensor.shape[1:]), dtype=tensor.dtype)
    return apart[::2].copy_(tensor)


def _invalid(given: list[torch.Tensor], weights: set[int]) -> list[tuple[str, list[torch.Tensor]]]:
    """Calls that must raise: with an input of another dtype as wide, with an axis more, and with one too few."""
    found = [("one input too few", given[:-1])] if given else []
    for k, tensor in enumerate(given):
        if k in weights or tensor.is_neg():
            continue
        other = tensor.view(torch.int32) if tensor.dtype == torch.float32 else tensor.to(_OTHER[tensor.dtype])
        found.append((f"input {k} as {other.dtype}", [*given[:k], other, *given[k + 1 :]]))
        found.append((f"input {k} with an axis more", [*given[:k], tensor[None], *given[k + 1 :]]))
        break
    return found


_OTHER = {
    torch.float64: torch.int64, torch.int64: torch.float64, torch.int32: torch.float32, torch.float32: torch.int32,
    torch.float16: torch.bfloat16, torch.bfloat16: torch.float16, torch.int16: torch.float16, torch.int8: torch.uint8,
    torch.uint8: torch.int8, torch.bool: torch.uint8,
}  # fmt: skip


def _must_refuse(what: str, call: Callable[[], object]) -> None:
    """Raise unless a call raises InputError."""
    try:
        call()
    except InputError:
        return
    raise AssertionError(f"a call with {what} is not refused")


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
        given = {n: _rows_apart(a) if request.strange else a.copy() for k, (n, a) in named if k not in request.weights}
        results = package.run(given)
        found.append([np.array(results[n]) for n in package.manifest.outputs])
    for name, array in given.items():
        if array.dtype == np.float32:
            other = {**given, name: np.ascontiguousarray(array).view(np.int32)}
            _must_refuse(f"{name} as int32", lambda other=other: package.run(other))  # type: ignore[misc]
        fewer = {n: a for n, a in given.items() if n != name}
        _must_refuse(f"{name} left out", lambda fewer=fewer: package.run(fewer))  # type: ignore[misc]
        break
    return found


def _rows_apart(array: Array) -> Array:
    """The same numbers with rows apart from each other."""
    if array.ndim == 0:
        return array.copy()
    apart = np.empty((2 * array.shape[0], *array.shape[1:]), array.dtype)
    apart[::2] = array
    return apart[::2]
