"""Programs run with NumPy: every buffer is memory, and a kernel sees it through the types of its own parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from effcc.errors import InputError, UnsupportedError
from effcc.ir.dims import evaluate as evaluate_size
from effcc.ir.dtypes import DType
from effcc.ir.graph import Graph
from effcc.ir.interpreter.evaluate import Array, bind_sizes
from effcc.ir.interpreter.graphs import run_graph
from effcc.ir.interpreter.kernels import as_dtype, blank, run_kernel
from effcc.ir.interpreter.loops import run_loops
from effcc.ir.interpreter.vectors import run_vectors
from effcc.ir.loops import LoopNest
from effcc.ir.ops import TABLE
from effcc.ir.program import Branch, Extern, Join, Launch, Loop, Program, Step
from effcc.ir.types import TensorType
from effcc.ir.vectors import Function

Externs = Callable[[Extern, list[Array]], Sequence[Array]]
Observe = Callable[[Step, Mapping[str, Array]], None]
Enter = Callable[[Launch, Mapping[str, Array]], None]


def run_program(
    program: Program,
    inputs: Sequence[Any],
    sizes: Mapping[str, int] | None = None,
    dtype: DType | None = None,
    externs: Externs | None = None,
    nests: Mapping[str, LoopNest] | None = None,
    vectors: Mapping[str, Function] | None = None,
    team: int = 1,
    observe: Observe | None = None,
    enter: Enter | None = None,
) -> list[Array]:
    """The outputs of a program, then the values of its updates. Inputs that a step writes are changed in place.

    `nests`, by kernel name, are run in the place of kernels; `vectors` in the place of both, by a `team` of threads,
    with the dtypes that they have. `externs(call, arrays)` computes the calls that have no reference;
    `observe(step, results)` sees what each step has written, by buffer (control flow is one step);
    `enter(launch, arrays)` what each launch is handed, by the kernel's parameters. Raises InputError on misfitting
    inputs and, of vectors, where a check of the model's data fails, UnsupportedError on an extern call without a
    reference and a callback.
    """
    if len(inputs) != len(program.inputs):
        raise InputError(f"program @{program.name} expects {len(program.inputs)} inputs, got {len(inputs)}")
    run = _Run(program, dtype, externs, nests or {}, vectors or {}, team, enter)
    pairs = zip(program.inputs, inputs, strict=True)
    given = {name: as_dtype(array, run.types[name].dtype, dtype, name) for name, array in pairs}
    run.sizes = bind_sizes({name: (run.types[name].shape, a.shape) for name, a in given.items()}, sizes)
    for name, array in given.items():
        run.store(name, run.types[name], array)
    with np.errstate(all="ignore"):
        for step in (*program.prepare, *program.steps):
            run.step(step)
            if observe is not None:
                observe(step, {name: run.load(name, run.types[name]).copy() for name in step.results})
    for name, original in zip(program.inputs, inputs, strict=True):
        if name in program.written and isinstance(original, np.ndarray):
            original[...] = run.load(name, run.types[name])
    wanted = (*program.outputs, *(value for _, value in program.updates))
    return [run.load(name, run.types[name]).copy() for name in wanted]


class _Run:
    """One run: the memory of each buffer that is not an alias, as a flat array."""

    def __init__(
        self,
        program: Program,
        wide: DType | None,
        externs: Externs | None,
        nests: Mapping[str, LoopNest],
        vectors: Mapping[str, Function],
        team: int,
        enter: Enter | None,
    ) -> None:
        self.program = program
        self.types = {b.name: b.type for b in program.buffers}
        self.memory: dict[str, Array] = {}
        self.sizes: Mapping[str, int] = {}
        self.wide = wide
        self.externs = externs
        self.nests = nests
        self.vectors, self.team = vectors, team
        self.enter = enter

    def load(self, name: str, type: TensorType) -> Array:
        """The buffer's memory, seen through a type."""
        name = self.program.memory_of(name)
        shape = tuple(evaluate_size(d, self.sizes) for d in type.shape)
        strides = tuple(evaluate_size(s, self.sizes) for s in type.layout)
        needed = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        dtype = self.wide.numpy if self.wide is not None and type.dtype.is_float else type.dtype.numpy
        memory = self.memory.get(name)
        if memory is None or len(memory) < needed:
            fresh = blank((max(needed, math.prod(shape)),), dtype)
            if memory is not None:
                fresh[: len(memory)] = memory
            memory = self.memory[name] = fresh
        return np.lib.stride_tricks.as_strided(memory, shape, tuple(s * memory.itemsize for s in strides))

    def store(self, name: str, type: TensorType, value: Array) -> None:
        self.load(name, type)[...] = value

    def step(self, step: Step) -> None:
        if isinstance(step, Launch):
            self.launch(step)
        elif isinstance(step, Join):
            (joined,) = step.results
            arrays = [self.load(name, self.types[name]) for name in step.arguments]
            self.store(joined, self.types[joined], np.concatenate(arrays, step.axis))
        elif isinstance(step, Branch):
            self.steps(step.then if self.holds(step.condition) else step.orelse)
        elif isinstance(step, Loop):
            self.steps(step.test)
            while self.holds(step.condition):
                self.steps(step.body)
                self.steps(step.test)
        else:
            self.call(step)

    def steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.step(step)

    def holds(self, condition: str) -> bool:
        return bool(self.load(condition, self.types[condition]))

    def launch(self, step: Launch) -> None:
        kernel = self.program.kernels[step.kernel]
        arguments = dict(zip(kernel.signature, step.touched, strict=True))
        arrays = {param.name: self.load(name, param.type) for param, name in arguments.items()}
        if self.enter is not None:
            self.enter(step, {name: array.copy() for name, array in arrays.items()})
        if step.kernel in self.vectors:
            self._run_vectors(self.vectors[step.kernel], {p.name: n for p, n in arguments.items()})
            return
        if step.kernel in self.nests:
            results = run_loops(self.nests[step.kernel], arrays, self.sizes, self.wide)
        else:
            results = run_kernel(kernel, arrays, self.sizes, self.wide)
        for output in kernel.outputs:
            self.store(arguments[output], output.type, results[output.name])

    def _run_vectors(self, function: Function, arguments: Mapping[str, str]) -> None:
        """Run a function on memory as it lies there; `load` has allocated it."""
        memory = {param: self.memory[self.program.memory_of(name)] for param, name in arguments.items()}
        failed = run_vectors(function, memory, self.sizes, self.team)
        if failed:
            number, value, size = failed[0]
            raise InputError(f"@{function.name}: check {number} fails for {value} of {size}")

    def region(self, graph: Graph) -> Callable[..., tuple[Array, ...]]:
        return lambda *inputs: tuple(run_graph(graph, inputs, self.sizes, self.wide))

    def call(self, step: Extern) -> None:
        arrays = [self.load(name, self.types[name]) for name in step.arguments]
        spec = TABLE.get(step.op)
        if spec is not None and spec.reference is not None:
            regions = {"regions": tuple(self.region(r) for r in step.regions)} if step.regions else {}
            found = spec.reference(*arrays, **step.attrs, **regions)
            results = list(found) if isinstance(found, tuple | list) else [found]
        elif self.externs is not None:
            results = list(self.externs(step, arrays))
        else:
            raise UnsupportedError(f"extern {step.op!r} has no NumPy reference; give run_program a callback")
        for name, value in zip(step.results, results, strict=True):
            self.store(name, self.types[name], value)
