"""A call of one compiled program: what it was given, what it must give, and the ways to run it.

What it must give is the project's own measure (`effcc.fuzz.expected`): the graph interpreted in float64, and how far
roundings alone can move that.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effcc.driver import Options, load
from effcc.frontend.extern import bind
from effcc.fuzz.eager import to_numpy, to_torch
from effcc.fuzz.expected import Array, Expected, expect
from effcc.fuzz.generate import Case, points_of
from effcc.fuzz.oracles import compare, told, wrong_after
from effcc.ir.dims import evaluate
from effcc.ir.dtypes import DType, f64
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.interpreter.evaluate import bind_sizes
from effcc.ir.ops import TABLE
from effcc.ir.program import Extern
from effcc.ir.types import TensorType
from effcc.runtime.executable import TORCH_DTYPES, Executable
from effcc.runtime.measure import host_target
from effcc.runtime.toolchain import Compiler
from effcc.steps import State, run_steps
from effcc.target import Target


@dataclass(frozen=True)
class Call:
    """One call of a compiled graph.

    case: the graph and its inputs. generator: the state of PyTorch's generator before the call, from which the graph's
    random numbers come. always_prepare: as in a training program, whose weights change at every step.
    """

    case: Case
    target: Target
    fast_math: bool = False
    always_prepare: bool = False
    threads: int | None = None
    generator: Tensor = field(default_factory=torch.get_rng_state)

    @staticmethod
    def of(graph: Graph, inputs: Sequence[Tensor], options: Options, generator: Tensor, role: str) -> Call:
        """A call as a program was given it."""
        arrays = tuple(to_numpy(t.resolve_neg()) for t in inputs)
        case = Case(graph, arrays, seed=0, call=Drawn(generator, sizes_of(graph, arrays)))
        target = options.target or host_target()
        return Call(case, target, options.fast_math, role != "inference", options.threads, generator)

    @functools.cached_property
    def expected(self) -> Expected:
        return expect(self.case)

    @functools.cached_property
    def begun(self) -> State:
        """What the steps start from."""
        return State(graph=self.case.graph, fast_math=self.fast_math, prepare_once=not self.always_prepare)

    @functools.cached_property
    def states(self) -> tuple[tuple[str, State], ...]:
        """What came out of every step. Raises what a step raises."""
        found: list[tuple[str, State]] = []
        run_steps(self.begun, self.target, see=lambda name, state: found.append((name, state)))
        return tuple(found)

    @property
    def compiled(self) -> State:
        return self.states[-1][1]

    @property
    def work(self) -> int:
        """The points of all index spaces, about: how long it takes to interpret loops."""

        def known(values: Sequence[Value]) -> list[TensorType]:
            shapes = (tuple(evaluate(d, self.sizes) for d in v.type.shape) for v in values)
            return [TensorType(v.type.dtype, shape) for v, shape in zip(values, shapes, strict=True)]

        nodes = self.case.graph.nodes
        return sum(points_of(TABLE[n.op], known(n.operands), known(n.results)) for n in nodes if n.op in TABLE)

    @property
    def sizes(self) -> dict[str, int]:
        """The values of the size symbols."""
        return sizes_of(self.case.graph, self.case.inputs)

    def tensors(self) -> list[Tensor]:
        """The inputs, as the graph's types say that they lie in memory."""
        pairs = zip(self.case.graph.params, self.case.inputs, strict=True)
        return [laid(array, param.type, self.sizes) for param, array in pairs]

    def executable(self, state: State, compiler: Compiler | None = None) -> Executable:
        """What the steps made, built and loaded."""
        return load(state, self.target, Options(always_prepare=self.always_prepare), bind, compiler=compiler)

    def run(self, executable: Executable, threads: int | None = None) -> list[Array]:
        """The outputs of a call, and what updated inputs hold afterwards."""
        given = self.tensors()
        executable.threads = self.threads if threads is None else threads
        before = torch.get_rng_state()
        torch.set_rng_state(self.generator)
        try:
            outputs = executable(*given)
        finally:
            torch.set_rng_state(before)
        held = dict(zip(self.case.graph.params, given, strict=True))
        return [to_numpy(t) for t in (*outputs, *(held[p] for p, _ in self.case.graph.updates))]

    def wrong_after(self, state: State, observe: Any = None, **how: Any) -> str:
        """How what a step made is wrong, interpreted; empty where it is right. In float64, but for a program of which
        every bit is defined: that is held to its bits."""
        return wrong_after(self.case, self.expected, state, observe, None if self.expected.exact else f64, **how)

    def wrong(self, results: Sequence[Array]) -> str:
        """How results of compiled code are wrong; empty where they are right."""
        return compare(results, None, self.expected, by_elements=True)

    def native(self, state: State, threads: int | None = None, compiler: Compiler | None = None) -> str:
        """How a first call of what the steps made is wrong; empty where it is right."""
        try:
            return self.wrong(self.run(self.executable(state, compiler), threads))
        except Exception as error:  # whatever it is: the call of the user's raised nothing
            return told(error)


def sizes_of(graph: Graph, arrays: Sequence[Array]) -> dict[str, int]:
    return bind_sizes({p.name: (p.type.shape, a.shape) for p, a in zip(graph.params, arrays, strict=True)}, None)


def laid(array: Array, type: TensorType, sizes: dict[str, int]) -> Tensor:
    """A new tensor that lies in memory as its type says."""
    strides = [int(evaluate(s, sizes)) for s in type.layout]
    held = torch.empty_strided(array.shape, strides, dtype=TORCH_DTYPES[type.dtype.name])
    if 0 in strides and array.size:  # an expanded axis: one element stands for all
        held.as_strided([n if s else 1 for n, s in zip(array.shape, strides, strict=True)], strides).copy_(
            to_torch(array[tuple(slice(None) if s else slice(1) for s in strides)])
        )
        return held
    return held.copy_(to_torch(array))


class Drawn:
    """Calls to PyTorch while a program is interpreted. Random numbers are drawn once, in the order in which the graph's
    interpreter first meets them, and are the same in every further run of the call."""

    def __init__(self, generator: Tensor, sizes: dict[str, int]) -> None:
        self._generator, self._sizes = generator, sizes
        self._known: dict[tuple[str, ...], list[Tensor]] = {}

    def __call__(
        self, call: Node | Extern, arrays: Sequence[Array], types: Sequence[TensorType], wide: DType | None
    ) -> list[Array]:
        names = tuple(r if isinstance(r, str) else r.name for r in call.results)
        random = is_random(call)
        if not random or names not in self._known:
            given = [
                laid(np.asarray(a).astype(t.dtype.numpy), t, self._sizes) for a, t in zip(arrays, types, strict=True)
            ]
            before = torch.get_rng_state()
            torch.set_rng_state(self._generator)
            try:
                found = bind(call)(given, self._sizes)
            finally:
                if random:
                    self._generator = torch.get_rng_state()
                torch.set_rng_state(before)
            self._known[names] = found
        return [_widened(to_numpy(t), wide) for t in self._known[names]]


def is_random(call: Any) -> bool:
    """Whether a call to PyTorch draws random numbers."""
    from effcc.frontend import draws
    from effcc.frontend.extern import find_target

    return "target" in call.attrs and draws.is_random(find_target(call.attrs["target"]))


def _widened(array: Array, wide: DType | None) -> Array:
    is_float = array.dtype.kind in "fV" or array.dtype.name == "bfloat16"
    return array.astype(wide.numpy) if wide is not None and is_float else array
