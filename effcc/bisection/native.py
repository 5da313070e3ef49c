"""Of compiled code that is wrong though all steps are right: what about it is.

Asked in this order: whether a call gives the same twice, on one thread and on many; whether it is right where no two
buffers share memory; whether the first call is right and later ones are not; which kernel, run alone on what the
interpreter gives it, is wrong; and of that kernel, whether its vectors are (interpreted), whether it is right without
the compiler's optimizer, and whether plain code is (`target="scalar"`).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from effcc.accuracy import check_output
from effcc.bisection.call import Call, laid
from effcc.bisection.verdict import Verdict
from effcc.codegen.cpp.program import emit_program
from effcc.errors import EffccError
from effcc.fuzz.eager import to_numpy, to_torch
from effcc.fuzz.expected import Array
from effcc.fuzz.isolation import forked
from effcc.fuzz.oracles import told
from effcc.fuzz.steps import same_bits
from effcc.ir.dims import evaluate
from effcc.ir.dtypes import f64
from effcc.ir.interpreter import run_kernel, run_vectors
from effcc.ir.kernel import Kernel
from effcc.ir.program import Buffer, Launch, Program
from effcc.ir.types import TensorType
from effcc.passes.memory import Plan
from effcc.runtime.toolchain import Compiler, find_compiler
from effcc.steps import State, run_steps
from effcc.target import Target

CALLS = 6
"""How often a call is made to see whether it always gives the same."""
MOST_IN_VECTORS = 300_000
"""Points, beyond which interpreting vectors takes minutes."""
ROOM = 4.0
"""Times its bound that a kernel must be off to be blamed: NumPy's products, which the bound is made of, are more exact
than a sum in order."""
HANGS = 120.0
"""Seconds after which compiled code counts as hanging."""
_CRASH = re.compile(r"crashed with|did not return within")
_ALIGNED = 64

Say = Callable[[str], None]


def blame_native(call: Call, say: Say) -> Verdict | None:
    """What in compiled code makes the call's result wrong; None where it is right."""
    try:
        return _blame(call, say)
    except EffccError as error:
        return Verdict("step", "build", f"compiled code fails: {told(error)}", told(error), before=call.compiled)


def _blame(call: Call, say: Say) -> Verdict | None:
    state = call.compiled
    program = state.program
    assert program is not None
    say("all steps are right: running compiled code")
    executable = call.executable(state)
    first = call.run(executable)
    again = [call.run(executable) for _ in range(CALLS - 1)]
    unlike = sum(not same_results(first, other) for other in again)
    alone = call.wrong(call.run(call.executable(state), threads=1))
    problem = next((p for p in map(call.wrong, (first, *again)) if p), "")
    if unlike and _is_race(call, state):
        ends = "right on one thread" if not alone else "on one thread it is wrong, too"
        return Verdict(
            "race", "build", f"a race: {unlike} of {CALLS - 1} further calls with the same inputs give another result; "
            f"{ends}", problem or "two calls differ", before=state,
        )  # fmt: skip
    if not problem:
        return None
    if not call.wrong(first):
        kept = "what is kept from call to call (weights that were packed, states that are updated)"
        sentence = f"the first call is right, a later one with the same inputs is not: {kept}"
        return Verdict("calls", "build", sentence, problem, before=state)
    if not alone:
        return Verdict("race", "build", "wrong on several threads, right on one", problem, before=state)
    say("looking for buffers that share memory while both are needed")
    if (found := _blame_memory(call, state, problem)) is not None:
        return found
    found = _blame_kernel(call, state, problem, say)
    return found or Verdict(
        "kernel", "build", "the program is wrong as a whole, and each of its kernels alone is right", problem,
        before=state,
    )  # fmt: skip


def blame_crash(call: Call, say: Say) -> Verdict | None:
    """Which kernel crashes, alone and in a process of its own; None where the call does not crash again."""
    state = call.compiled
    say("all steps are right: running compiled code in processes of its own")
    problem = forked(lambda: call.native(state), timeout=HANGS)
    if not _CRASH.match(problem):
        return None
    seen: set[str] = set()
    for launched in launches(call, state):
        name = launched.launch.kernel
        if name in seen:
            continue
        seen.add(name)
        found = forked(functools.partial(run_alone, launched, state, call), timeout=HANGS)
        say(f"  @{name} alone: {found or 'right'}")
        if _CRASH.match(found):
            sentence = f"the kernel @{name}, compiled, {found}"
            return Verdict("crash", "build", sentence, problem, launched.kernel.location, name, before=state)
    sentence = f"compiled code {problem}, and none of its kernels alone does"
    return Verdict("crash", "build", sentence, problem, before=state)


def same_results(a: list[Array], b: list[Array]) -> bool:
    """Whether two calls gave the same bits."""
    return all(x.shape == y.shape and bool(same_bits(x, y).all()) for x, y in zip(a, b, strict=True))


def _is_race(call: Call, state: State) -> bool:
    """Whether calls of fresh code, which keeps nothing from an earlier call, differ."""
    first, *others = (call.run(call.executable(state)) for _ in range(CALLS))
    return not all(same_results(first, other) for other in others)


# Memory ---------------------------------------------------------------------------------------------------------------


def _blame_memory(call: Call, state: State, problem: str) -> Verdict | None:
    """Whether the result is right where each buffer has memory of its own, and which of them must have it."""
    program, plan = state.program, state.plan
    assert program is not None and plan is not None
    names = list(plan.offsets)
    if not names or call.native(apart(call, state, names)):
        return None
    needed = list(names)
    for name in names:  # those that may share after all
        without = [n for n in needed if n != name]
        if without and not call.native(apart(call, state, without)):
            needed = without
    places = [(n, int(evaluate(plan.offsets[n], call.sizes))) for n in needed]
    shown = ", ".join(f"{n} (at byte {at} of the arena)" for n, at in places)
    sentence = f"the step `place` puts buffers in memory that others still need: right as soon as {shown} lies apart"
    return Verdict("memory", "place", sentence, problem, before=state, location=_written_by(program, needed[0]))


def _written_by(program: Program, buffer: str) -> str:
    for step in program.steps:
        if isinstance(step, Launch) and buffer in map(program.memory_of, step.results):
            return program.kernels[step.kernel].location
    return ""


def apart(call: Call, state: State, names: list[str]) -> State:
    """The program with memory of their own, behind the arena, for these buffers."""
    program, plan = state.program, state.plan
    assert program is not None and plan is not None
    end = _rounded(int(evaluate(plan.arena_bytes, call.sizes)))
    offsets = {n: int(evaluate(o, call.sizes)) for n, o in plan.offsets.items()}
    for name in names:
        offsets[name] = end
        type = program.buffer(name).type
        last = sum(
            (int(evaluate(n, call.sizes)) - 1) * int(evaluate(s, call.sizes))
            for n, s in zip(type.shape, type.layout, strict=True)
        )
        end += _rounded((max(last, 0) + 1) * type.dtype.bytes)
    source = emit_program(
        program, state.nests, call.target, offsets=offsets, functions=state.vectors, units=state.units,
        no_alias=frozenset(b.name for b in program.buffers if b.space == "prepared"),
    )  # fmt: skip
    return replace(state, source=source, plan=Plan(offsets, end, None))


def _rounded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


# Kernels --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launched:
    """A launch of the program, and what the interpreter gives the kernel, in its own dtypes."""

    launch: Launch
    kernel: Kernel
    arrays: Mapping[str, Array]


def _blame_kernel(call: Call, state: State, problem: str, say: Say) -> Verdict | None:
    """The kernel that, compiled alone, is furthest from what its interpreter gives."""
    worst: tuple[float, str, Launched] | None = None
    distinct = {launched.launch.kernel: launched for launched in reversed(launches(call, state))}
    for name, launched in reversed(distinct.items()):
        excess, wrong = alone_by(launched, state, call)
        say(f"  @{name} alone: {'wrong: ' + wrong if excess > ROOM else 'right'}")
        if excess > max(ROOM, worst[0] if worst is not None else 0.0):
            worst = excess, wrong, launched
    if worst is None:
        return None
    _, wrong, launched = worst
    name = launched.launch.kernel
    step, why = _why(launched, state, call)
    sentence = f"the kernel @{name}, compiled, gives something else than its interpreter: {why}"
    return Verdict(
        "kernel", step, sentence, wrong, location=launched.kernel.location, kernel=name, before=state,
        details=(f"of the program: {problem}",),
    )  # fmt: skip


def launches(call: Call, state: State) -> list[Launched]:
    """The launches of a program, in order, with what its interpreter hands them."""
    program = state.program
    assert program is not None
    found: list[Launched] = []

    def enter(launch: Launch, arrays: Mapping[str, Array]) -> None:
        kernel = program.kernels[launch.kernel]
        found.append(Launched(launch, kernel, {p.name: _as(arrays[p.name], p.type) for p in kernel.signature}))

    call.wrong_after(replace(state, nests={}), enter=enter)
    return found


def _as(array: Array, type: TensorType) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(array).astype(type.dtype.numpy)


def alone(launched: Launched, state: State, target: Target) -> State:
    """A program of one launch, under the schedule that it has in the whole."""
    program, kernel = state.program, launched.kernel
    assert program is not None
    buffers = (
        *(Buffer(p.name, p.type, "input") for p in kernel.params),
        *(Buffer(o.name, o.type, "output") for o in kernel.outputs),
    )
    names = tuple(p.name for p in kernel.params), tuple(o.name for o in kernel.outputs)
    launch = replace(launched.launch, arguments=names[0], results=names[1])
    one = Program(program.name, buffers, names[0], names[1], {launch.kernel: kernel}, (launch,), ranges=program.ranges)
    begun = State(program=one, schedules={launch.kernel: state.schedules[launch.kernel]}, tiled=True)
    return run_steps(begun, target, "tile")


def run_alone(launched: Launched, state: State, call: Call, compiler: Compiler | None = None) -> str:
    """How a kernel that is compiled alone is wrong; empty where it is right."""
    excess, wrong = alone_by(launched, state, call, compiler)
    return wrong if excess > ROOM else ""


def alone_by(launched: Launched, state: State, call: Call, compiler: Compiler | None = None) -> tuple[float, str]:
    """By how much a kernel that is compiled alone is off, of its bound, and how."""
    results = _run_native(launched, alone(launched, state, call.target), call, compiler)
    return off_by(launched, results, call)


def _run_native(launched: Launched, made: State, call: Call, compiler: Compiler | None) -> dict[str, Array]:

    given = [laid(launched.arrays[p.name], p.type, call.sizes) for p in launched.kernel.params]
    executable = call.executable(made, compiler)
    executable.threads = call.threads or torch.get_num_threads()
    results = executable(*given)
    return {o.name: to_numpy(t) for o, t in zip(launched.kernel.outputs, results, strict=True)}


def off_by(launched: Launched, got: Mapping[str, Array], call: Call) -> tuple[float, str]:
    """By how much a kernel's results are off, of the bound that the project's measure (`effcc.accuracy`) sets beside
    the interpreter in the kernel's dtypes and in float64, and how; infinite where integers or special values differ."""
    wide = run_kernel(launched.kernel, launched.arrays, call.sizes, dtype=f64)
    own = run_kernel(launched.kernel, launched.arrays, call.sizes)
    worst = (0.0, "")
    for name, exact in wide.items():
        report = check_output(name, to_torch(exact), to_torch(own[name]), to_torch(got[name]))
        if not report.ok:
            errors = (report.max_error, report.max_bound), (report.rms_error, report.rms_bound)
            excess = max(error / bound if bound else math.inf for error, bound in errors)
            counted = "error too large" in report.problem
            worst = max(worst, (excess if counted else math.inf, str(report)))
    return worst


def _why(launched: Launched, state: State, call: Call) -> tuple[str, str]:
    """The room in which a kernel's compiled code goes wrong, and why that is known."""
    made = alone(launched, state, call.target)
    points = call.work
    function = made.vectors[launched.launch.kernel]
    if points <= MOST_IN_VECTORS:
        memory = {p.name: _flat(launched.arrays.get(p.name), p, call) for p in launched.kernel.signature}
        try:
            run_vectors(function, memory, call.sizes, 1)
            seen = {o.name: _seen(memory[o.name], o, call) for o in launched.kernel.outputs}
            excess, _ = off_by(launched, seen, call)
        except Exception:  # vectors that cannot even be interpreted
            excess = math.inf
        if excess > ROOM:
            return (
                "vectorize",
                "its vectors, interpreted, are wrong already, so the step `vectorize` (codegen) is at fault",
            )
    unoptimized = run_alone(launched, state, call, _unoptimized())
    scalar = _scalar_agrees(launched, state, call)
    plain = (
        f"code for the target `scalar` is {'right' if scalar else 'wrong, too' if scalar is False else 'not to be had'}"
    )
    if not unoptimized:
        return "build", f"right with -O0, wrong with -O3: g++'s optimizer, or code whose meaning is undefined; {plain}"
    return "emit", f"wrong without g++'s optimizer, too: its C++ (the step `emit`, or a header of the runtime); {plain}"


def _scalar_agrees(launched: Launched, state: State, call: Call) -> bool | None:
    """Whether the kernel is right in plain C++; None where its schedule is for this machine alone."""
    try:
        one = alone(launched, state, call.target)
        assert one.program is not None
        plain = Target.parse("scalar")
        made = run_steps(State(program=one.program), plain, "settle")
        results = _run_native(launched, made, replace(call, target=plain), None)
    except EffccError:
        return None
    return off_by(launched, results, call)[0] <= ROOM


def _flat(array: Array | None, param: Any, call: Call) -> Array:
    """Memory of a parameter, from its first element to past its last, with the array in it."""
    shape, strides, size = _lies(param, call)
    memory = np.zeros(size, param.type.dtype.numpy)
    if array is not None and array.size:
        np.lib.stride_tricks.as_strided(memory, shape, [s * memory.itemsize for s in strides])[...] = array
    return memory


def _seen(memory: Array, param: Any, call: Call) -> Array:
    shape, strides, _ = _lies(param, call)
    return np.lib.stride_tricks.as_strided(memory, shape, [s * memory.itemsize for s in strides]).copy()


def _lies(param: Any, call: Call) -> tuple[list[int], list[int], int]:
    shape = [int(evaluate(n, call.sizes)) for n in param.type.shape]
    strides = [int(evaluate(s, call.sizes)) for s in param.type.layout]
    size = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    return shape, strides, size


class _Unoptimized(Compiler):
    """The compiler, told last not to optimize."""

    @property
    def flags(self) -> tuple[str, ...]:
        return (*super().flags, "-O0")


def _unoptimized() -> Compiler:
    found = find_compiler()
    return _Unoptimized(found.command, found.family, f"{found.version} -O0")  # what the cache knows it by
