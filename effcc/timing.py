"""How long each launch of a program takes: the program again, with a mark for the clock between its launches."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from effcc.codegen.cpp.program import emit_program
from effcc.driver import BindExtern, load
from effcc.errors import OutOfRangeError, RefusedValueError, ZeroDivisorError
from effcc.ir.dims import evaluate
from effcc.ir.dtypes import f32
from effcc.ir.graph import GraphBuilder
from effcc.ir.program import Buffer, Extern, Program, Step
from effcc.ir.types import tensor
from effcc.runtime.executable import TORCH_DTYPES, Executable, ExternCall
from effcc.steps import State, run_steps
from effcc.target import Target

_MARK = Extern("extern", (), (), reason="the clock is read here")


def time_steps(
    state: State,
    target: Target,
    sizes: Mapping[str, int],
    given: Mapping[str, torch.Tensor],
    budget_s: float = 1.0,
) -> list[float]:
    """Median seconds of every step of `state.program.steps`, run in order as a call runs them.

    sizes: of the size symbols. given: inputs by name, such as the weights; those left out are random (integers are 0,
    so that they index anything). A launch pays for a parallel region of its own here, some microseconds, which it
    shares with its neighbours in a real call.
    """
    program = state.program
    assert program is not None
    return Clocked(state, target).seconds(random_inputs(program, sizes, given), budget_s, statistics.median)


@functools.cache
def start_seconds(target: Target) -> float:
    """What a launch takes here at least, between two readings of the clock: that of one which does next to nothing."""
    b = GraphBuilder("start")
    x = b.param("x", tensor(f32, 1))
    state = run_steps(State(graph=b.build((b.emit("neg", x),))), target)
    assert state.program is not None
    (seconds,) = Clocked(state, target).seconds(random_inputs(state.program, {}, {}), 0.1, min)
    return seconds


def time_what_runs(
    state: State, target: Target, sizes: Mapping[str, int], given: Mapping[str, torch.Tensor]
) -> tuple[list[float], Mapping[str, torch.Tensor], str]:
    """What `time_steps` gives, the inputs that it was given for that, and why it gave nothing, where it did not.

    A model may refuse random inputs: zeros are no divisors. Integers are 1 where they cannot be 0.
    """
    program = state.program
    assert program is not None
    problem = ""
    for integer in (0, 1):
        inputs = random_inputs(program, sizes, given, integer)
        named = dict(zip(program.inputs, inputs, strict=True))
        try:
            return time_steps(state, target, sizes, named), named, ""
        except (OutOfRangeError, RefusedValueError, ZeroDivisorError) as error:
            problem = problem or str(error)
    return [], given, f"the model refuses random inputs: {problem}"


def random_inputs(
    program: Program, sizes: Mapping[str, int], given: Mapping[str, torch.Tensor], integer: int = 0
) -> list[torch.Tensor]:
    """A program's inputs: those given by name, and random ones."""
    return [given[n] if n in given else random_tensor(program.buffer(n), sizes, integer) for n in program.inputs]


class Clocked:
    """A program that reads the clock before and after each of its steps."""

    def __init__(self, state: State, target: Target) -> None:
        assert state.program is not None
        self._times: list[float] = []
        self._executable = _with_marks(state, target, self._times)
        written = state.program.written
        self._written = [i for i, n in enumerate(state.program.inputs) if n in written]

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return self._executable(*inputs)

    def seconds(
        self, inputs: Sequence[torch.Tensor], budget_s: float, of_all: Callable[[Iterable[float]], float]
    ) -> list[float]:
        """Seconds of every step: `of_all` calls but the first two. What the program writes to an input is undone after
        each: a cache's position would leave the cache."""
        rounds: list[list[float]] = []
        before_calls = {i: inputs[i].clone() for i in self._written}
        started = time.perf_counter()
        with torch.no_grad():
            while len(rounds) < 5 or (len(rounds) < 200 and time.perf_counter() - started < budget_s):
                self._times.clear()
                self._executable(*inputs)
                rounds.append([after - before for before, after in pairwise(self._times)])
                for i, value in before_calls.items():
                    inputs[i].copy_(value)
        return [of_all(column) for column in zip(*rounds[2:], strict=True)]


def _with_marks(state: State, target: Target, times: list[float]) -> Executable:
    assert state.program is not None
    marked: list[Step] = [_MARK]
    for step in state.program.steps:
        marked += [step, _MARK]
    return with_calls(state, target, marked, lambda call: _bind(call, times))


def with_calls(state: State, target: Target, steps: Sequence[Step], bind: BindExtern) -> Executable:
    """The program with other `steps`: its own, and calls between them that look at it. Each launch beside a call has an
    entry point of its own; the kernels' code stays as it is."""
    program, plan = state.program, state.plan
    assert program is not None and plan is not None
    separated = program.with_steps(tuple(steps))
    inside = frozenset(b.name for b in program.buffers if b.space == "prepared")
    source = emit_program(separated, state.nests, target, offsets=plan.offsets, no_alias=inside)
    return load(dataclasses.replace(state, program=separated, source=source), target, externs=bind)


def _bind(call: Extern, times: list[float]) -> ExternCall:
    """A mark reads the clock; any other call is PyTorch's."""
    if call is not _MARK:
        from effcc.frontend.extern import bind

        return bind(call)

    def mark(operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> list[Any]:
        times.append(time.perf_counter())
        return []

    return mark


def random_tensor(buffer: Buffer, sizes: Mapping[str, int], integer: int = 0) -> torch.Tensor:
    """A tensor for an input: normal numbers, the same `integer` everywhere, True."""
    shape = [evaluate(d, sizes) for d in buffer.type.shape]
    strides = [evaluate(s, sizes) for s in buffer.type.layout]
    dtype = TORCH_DTYPES[buffer.type.dtype.name]
    made = torch.empty_strided(shape, strides, dtype=dtype)
    if dtype.is_floating_point:
        return made.normal_()
    return made.fill_(True if dtype == torch.bool else integer)
