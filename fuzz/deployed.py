"""Programs as users run them: compiled as for use, through the executable in this process's like, and as packages.

`effcc.fuzz.native` calls entry points on memory of its own; here the runtime around them is what is asked: the compile
cache, fitting of inputs (with rows apart, or lazily negated), weights of which one element changes between calls, sizes
that grow and shrink, packages written and loaded, and calls that must be refused. It runs in a process of its
own, with a cache that goes with it: `python -c "from effcc.fuzz.deployed import main; main()"`.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from effcc.ahead import build_package
from effcc.driver import Options, load
from effcc.errors import EffccError
from effcc.fuzz.eager import to_numpy, to_torch
from effcc.fuzz.expected import expect
from effcc.fuzz.generate import Array, Case, expanded
from effcc.fuzz.guarded import guarded
from effcc.fuzz.hosts import Host
from effcc.fuzz.nursery import Nurseling
from effcc.fuzz.oracles import Examined, Failure, compare, eager_results, native, told
from effcc.fuzz.recalled import (
    MOST_INPUTS,
    arrays_laid_otherwise,
    laid_otherwise,
    require_refusal,
    require_same,
    wrong_calls,
)
from effcc.fuzz.second import at_limits, beyond_limits, grown
from effcc.ir.dims import Shape
from effcc.ir.interpreter.evaluate import bind_sizes
from effcc.runtime.executable import Executable
from effcc.runtime.package import Package
from effcc.runtime.worker import LostError, answer_requests
from effcc.sources import Source
from effcc.steps import State
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
    grown: tuple[Array, ...] | None = None  # inputs at large run-time sizes, if there are such
    limits: tuple[tuple[Array, ...], ...] = ()  # inputs at the least and the largest run-time sizes
    beyond: tuple[tuple[Array, ...], ...] = ()  # inputs at sizes that must be refused


class Deployed:
    """Runs programs as users do; use it as a context manager, which ends its process and removes its files."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="effcc-fuzz-")
        cache = str(Path(self._folder.name) / "cache")
        self._worker = Nurseling("effcc.fuzz.deployed:main", {"EFFCC_CACHE_DIR": cache})

    def __enter__(self) -> Deployed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.stop()
        self._folder.cleanup()

    def judge(self, examined: Examined, target: Target, kind: str = "") -> Failure | None:
        """How a program is wrong when it is deployed, as a `kind` if one is said; None where it is right, or cannot
        be."""
        case, program = examined.case, native(examined)
        if program is None:
            return None
        kind = kind or KINDS[case.seed // 2 % len(KINDS)]
        if kind == "package" and (case.graph.updates or not case.graph.nodes):
            kind = "executable"
        calls = _calls(examined, kind)
        params = case.graph.params
        request = Request(
            kind, program.state, target, tuple(k for k, p in enumerate(params) if p.name in case.graph.weights),
            tuple(c.inputs for c in calls), tuple(params.index(p) for p, _ in case.graph.updates), case.seed % 3 == 0,
            grown(case), at_limits(case), beyond_limits(case),
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


def scratch_grows(examined: Examined) -> bool:
    """Whether a program takes more scratch memory at larger sizes."""
    plan = examined.state.plan if examined.state is not None else None
    return plan is not None and not isinstance(plan.arena_bytes, int)


def _calls(examined: Examined, kind: str) -> list[Case]:
    """The case as called first, with other inputs (and sizes), with other weights, and as first but for the weights;
    once only where inputs are updated."""
    case = examined.case
    if case.graph.updates or examined.second is None:
        return [case]
    again, _ = examined.second
    if kind == "package":
        return [case, again, case]
    weights, layouts = case.graph.weights, dict(case.variation.layouts)
    changed = [
        _changed(a, case.seed, layouts.get(p.name) == "expanded") if p.name in weights and p.type.dtype.is_float else a
        for p, a in zip(again.graph.params, again.inputs, strict=True)
    ]
    back = [new if p.name in weights else a for p, a, new in zip(case.graph.params, case.inputs, changed, strict=True)]
    return [case, again, replace(again, inputs=tuple(changed)), replace(case, inputs=tuple(back))]


def _changed(array: Array, seed: int, repeats: bool) -> Array:
    """A weight after an update: all of it moved, or one element, of which the last one is as good as any; repeats:
    where one element stands for all of an axis, what can be stored there."""
    if array.size == 0:
        return array
    if seed % 4 == 0:
        made = np.roll(array, 1)
    else:
        flat = array.reshape(-1).copy()
        at = 0 if repeats else (flat.size - 1, flat.size - 1, seed % flat.size)[seed % 3]
        flat[at] = flat[at - 1] + np.asarray(1.5, array.dtype)
        made = flat.reshape(array.shape)
    return expanded(made) if repeats else made


# In the process of its own --------------------------------------------------------------------------------------------


def main() -> None:
    """Answer requests until the input ends."""
    with tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as folder:
        numbers = itertools.count(1)

        def answer(request: Request) -> list[list[Array]] | str:
            run = _run_package if request.kind == "package" else _run_executable
            try:
                with guarded():
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
        if not request.updated:
            _call_otherwise(request, executable, given, set(kept), found[-1])
    return found


def _call_otherwise(
    request: Request, executable: Executable, given: list[torch.Tensor], kept: set[int], want: list[Array]
) -> None:
    """Calls that must give what the last one gave, or be refused (`effcc.fuzz.recalled`)."""
    assert request.state.program is not None
    types = [request.state.program.buffer(n).type for n in request.state.program.inputs]
    fixed = {*kept, *(k for k, t in enumerate(types) if 0 in t.layout)}

    def called(inputs: Sequence[torch.Tensor], by: Executable = executable) -> list[Array]:
        return [to_numpy(r) for r in by(*inputs)]

    for k in [k for k in range(len(given)) if k not in fixed][:MOST_INPUTS]:
        for how, tensor in laid_otherwise(given[k].resolve_neg()):
            require_same(called([*given[:k], tensor, *given[k + 1 :]]), want, f"with {how} in input {k}")
    if request.grown is not None:
        large = [t if k in kept else _repeated(to_torch(request.grown[k]), types[k].layout)
                 for k, t in enumerate(given)]  # fmt: skip
        fresh = load(request.state, request.target, Options(threads=THREADS))
        require_same(called(large), called(large, fresh), "at large sizes after small ones")
        require_same(called(given), want, "at small sizes after large ones")
    for what, wrong in wrong_calls([t.resolve_neg() for t in given], types, sorted(fixed)):
        require_refusal(what, lambda wrong=wrong: executable(*wrong))  # type: ignore[misc]


def _strange(tensor: torch.Tensor, position: int, written: bool) -> torch.Tensor:
    """The same numbers with rows apart from each other, or as a view that is negated when it is read."""
    if position % 2 and tensor.dtype in (torch.float32, torch.float64) and not written:
        return torch.complex(torch.zeros_like(tensor), -tensor).conj().imag
    if tensor.dim() == 0:
        return tensor
    apart = torch.empty((2 * tensor.shape[0], *tensor.shape[1:]), dtype=tensor.dtype)
    return apart[::2].copy_(tensor)


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
    _call_package_otherwise(request, package, {n: a.copy() for n, a in given.items()}, found[-1])
    _call_by_c(request, package, found)
    return found


def _call_by_c(request: Request, package: Package, found: Sequence[Sequence[Array]]) -> None:
    """The same calls, and some at the least and the largest sizes and beyond them, by the package's C interface
    (`effcc.fuzz.hosts`)."""
    program = request.state.program
    assert program is not None
    names = [n for k, n in enumerate(program.inputs) if k not in request.weights]
    with Host(package.path, package.manifest, names) as host:

        def called(inputs: Sequence[Array], threads: int = THREADS) -> list[Array]:
            results = host.run(*_named(request, inputs), threads)
            return [results[n] for n in package.manifest.outputs]

        for number, (inputs, results) in enumerate(zip(request.calls, found, strict=True)):
            require_same(called(inputs, 1 + number % THREADS), results, f"by C in call {number + 1}")
        for inputs in request.limits:
            arrays, sizes = _named(request, inputs)
            try:
                by_python = package.run(arrays)
            except EffccError:  # a position in the inputs, say, is outside of what is smaller now
                require_refusal(f"by C the sizes {sizes}", lambda inputs=inputs: called(inputs))  # type: ignore[misc]
            else:
                wanted = [by_python[n] for n in package.manifest.outputs]
                require_same(called(inputs), wanted, f"by C at the sizes {sizes}")
        for inputs in request.beyond:
            arrays, sizes = _named(request, inputs)
            require_refusal(f"the sizes {sizes}", lambda arrays=arrays: package.run(arrays))  # type: ignore[misc]
            if not host.refuses(arrays, sizes):
                raise EffccError(f"C takes the sizes {sizes}, which are beyond their limits")


def _named(request: Request, inputs: Sequence[Array]) -> tuple[dict[str, Array], dict[str, int]]:
    """A call's arrays by name, without weights, and the sizes that they have."""
    program = request.state.program
    assert program is not None
    pairs = list(zip(program.inputs, inputs, strict=True))
    sizes = bind_sizes({n: (program.buffer(n).type.shape, a.shape) for n, a in pairs}, None)
    return {n: a for k, (n, a) in enumerate(pairs) if k not in request.weights}, sizes


def _call_package_otherwise(request: Request, package: Package, given: dict[str, Array], want: list[Array]) -> None:
    """Calls that must give what the last one gave, or be refused (`effcc.fuzz.recalled`)."""
    program = request.state.program
    assert program is not None

    def called(by: Package, inputs: dict[str, Array]) -> list[Array]:
        results = by.run(inputs)
        return [np.array(results[n]) for n in by.manifest.outputs]

    for name in list(given)[:MOST_INPUTS]:
        for how, array in arrays_laid_otherwise(given[name]):
            require_same(called(package, {**given, name: array}), want, f"with {how} in {name}")
    if request.grown is not None:
        large = {n: a.copy() for n, a in zip(program.inputs, request.grown, strict=True) if n in given}
        fresh = called(Package(package.path, threads=THREADS), large)
        require_same(called(package, large), fresh, "at large sizes after small ones")
        require_same(called(package, given), want, "at small sizes after large ones")
    tensors = [to_torch(a) for a in given.values()]
    for what, wrong in wrong_calls(tensors, [program.buffer(n).type for n in given]):
        if len(wrong) <= len(given):
            arrays = dict(zip(given, map(to_numpy, wrong), strict=False))
            require_refusal(what, lambda arrays=arrays: package.run(arrays))  # type: ignore[misc]
    if given:
        unknown = {**given, "no such input": next(iter(given.values()))}
        require_refusal("an input that there is not", lambda: package.run(unknown))


def _rows_apart(array: Array) -> Array:
    """The same numbers with rows apart from each other."""
    if array.ndim == 0:
        return array.copy()
    apart = np.empty((2 * array.shape[0], *array.shape[1:]), array.dtype)
    apart[::2] = array
    return apart[::2]
