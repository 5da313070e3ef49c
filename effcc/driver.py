"""One function: a graph in, an executable out. The steps between are `effcc.steps`.

See `effcc.ahead` for `.pt2` files, printed files and packages, and `effcc.backend` for torch.compile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from effcc.codegen.cpp.program import entry_points, pointer_table, size_table
from effcc.errors import ToolchainError, UnsupportedError, facts_of, noting
from effcc.gpu import device_of
from effcc.ir.dims import hints
from effcc.ir.graph import Graph
from effcc.ir.parser.schedules import WrittenSchedule
from effcc.ir.program import Buffer, Extern, Program
from effcc.passes.memory import Plan
from effcc.remembered import key_of, recall, remember, remembering
from effcc.runtime.cache import CompileCache
from effcc.runtime.control import CONTROL
from effcc.runtime.executable import Executable, ExternCall, Segment
from effcc.runtime.library import Library
from effcc.runtime.measure import host_target
from effcc.runtime.objects import Making
from effcc.runtime.toolchain import Compiler, compile_timeout, find_compiler
from effcc.steps import Size, State, run_steps
from effcc.target import GENERIC, Target, cpu_features

log = logging.getLogger(__name__)
"""`TORCH_LOGS=effcc` shows what was compiled, `TORCH_LOGS=+effcc` each step: PyTorch finds loggers by their module."""


@dataclass(frozen=True)
class Options:
    """How to compile.

    target: the machine; default: the one this process runs on, with measured rates if `effcc doctor` has measured them.
    always_prepare: recompute what depends on weights at every call (a training graph's weights change at every step).
    see: called after every step with its name and what came out.
    threads: how many run a call; default: as many as torch.get_num_threads() says then.
    fast_math: also rewrite where results may differ by more than roundings (`effcc.passes.rules` says which rules do).
    schedules: gives schedules to follow for kernels of a program before it is tiled (`effcc.tuning.tuned`).
    remember: whether what the steps make is kept in the compile cache, and taken from there (`effcc.remembered`).
    """

    target: Target | None = None
    always_prepare: bool = False
    see: Callable[[str, State], None] | None = None
    threads: int | None = None
    fast_math: bool = False
    schedules: Callable[[State, Target], Mapping[str, WrittenSchedule]] | None = None
    remember: bool = False

    @property
    def may_remember(self) -> bool:
        """Whether the steps need not run where their result is known: nobody looks at them or changes their way."""
        return self.remember and self.see is None and self.schedules is None and remembering()


@dataclass(frozen=True)
class Compiled:
    """A program that runs, and everything the steps made on the way to it. Call it as its `executable`.

    between: the calls that PyTorch runs after it, for sizes that the next program needs (`effcc.frontend.stages`).
    hints: what sizes were in the call that it was compiled for.
    """

    executable: Executable
    state: State
    target: Target
    between: tuple[Extern, ...] = ()
    hints: Mapping[str, int] = field(default_factory=hints)

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        return self.executable(*inputs)


BindExtern = Callable[[Extern], ExternCall]
"""From an extern step to the PyTorch call that it stands for (`effcc.frontend.extern.bind`)."""


def compile_graph(graph: Graph, options: Options = Options(), externs: BindExtern | None = None) -> Compiled:
    """Compile a graph and load it, for torch tensors in this process.

    Raises UnsupportedError for a call to PyTorch where `externs` is None, and what the steps raise: see `effcc.errors`.
    """
    target = options.target or host_target()
    if _is_empty(graph):
        state = _nothing(graph)
        return Compiled(load(state, target, options, externs), state, target)
    once = not options.always_prepare
    key = key_of(graph, target, fast_math=options.fast_math, prepare_once=once) if options.may_remember else None
    begin = time.perf_counter()
    known: State | None = recall(key) if key is not None else None
    if known is not None:
        state = replace(known, seconds={"recall": time.perf_counter() - begin})
        compiled = _loaded(state, target, options, externs)
        log.info("@%s for %s, recalled: %s, in %.2f s", graph.name, target.name, Size(state), _total(compiled))
        return compiled
    with CompileCache.default().making(target) as making:
        begun, start = State(graph=graph, fast_math=options.fast_math, prepare_once=once), None
        if options.schedules is not None:
            begun, start = run_steps(begun, target, see=options.see, until="settle"), "settle"
            begun = replace(begun, written=options.schedules(begun, target))
        begun = replace(begun, begin=making.add)
        state = replace(run_steps(begun, target, start, see=options.see), begin=None)
        compiled = _loaded(state, target, options, externs, making)
    if key is not None:
        remember(key, replace(state, vectors={}))  # most of it all, and what is made of them is in `units`
    log.info("@%s for %s: %s, in %.2f s", graph.name, target.name, Size(state), _total(compiled))
    for name, times in state.fired.items():
        log.debug("rule %s fired %d times", name, times)
    return compiled


def _total(compiled: Compiled) -> float:
    """Seconds of all steps and of building."""
    return sum(compiled.state.seconds.values())


def _loaded(
    state: State, target: Target, options: Options, externs: BindExtern | None, making: Making | None = None
) -> Compiled:
    """What the steps made, built and loaded."""
    begin = time.perf_counter()
    executable = load(state, target, options, externs, making)
    seconds = {**state.seconds, "build": time.perf_counter() - begin}
    return Compiled(executable, replace(state, seconds=seconds), target)


def _is_empty(graph: Graph) -> bool:
    return not (graph.nodes or graph.outputs or graph.updates)


def _nothing(graph: Graph) -> State:
    """What the steps would give for a graph that computes nothing: PyTorch runs all of the model."""
    buffers = tuple(Buffer(p.name, p.type, "weight" if p.name in graph.weights else "input") for p in graph.params)
    program = Program(graph.name, buffers, tuple(p.name for p in graph.params), (), {}, (), ranges=graph.ranges)
    return State(graph=graph, program=program, plan=Plan({}, 0, 0))


def require_cpu(target: Target) -> None:
    """Raise UnsupportedError for a GPU, whose code is printed and compiled but not loaded or packed."""
    if device_of(target) is not None:
        raise UnsupportedError(
            f"code for {target.name} can be printed (`effcc compile --target {target.name} --print-after emit`); "
            f"programs that run here, and packages, are made for CPUs: expected host, {', '.join(GENERIC)}"
        )


def require_runnable(target: Target) -> None:
    """Raise UnsupportedError for a target whose code this machine cannot run."""
    require_cpu(target)
    if not target.runs_here():
        missing = sorted(set(target.features) - cpu_features())
        raise UnsupportedError(
            f"code for target {target.name!r} cannot run on this machine: its CPU lacks {', '.join(missing)}; "
            "compile for 'host', or ahead of time with `effcc compile --target`"
        )


def require_usable(target: Target) -> None:
    """Raise what the user or the machine has to mend before anything can be compiled and run for `target`.

    UnsupportedError for a target that is not this machine, ToolchainError where there is no compiler, CacheError where
    the cache cannot be used.
    """
    require_runnable(target)
    find_compiler()
    compile_timeout()
    CompileCache.default()


def build(
    state: State, target: Target, *, openmp: bool, making: Making | None = None, compiler: Compiler | None = None
) -> Library:
    """The library of what was emitted. Where the compiler refuses a kernel, the error says of which lines of the model.

    openmp: whether its threads are OpenMP's, as in a process with PyTorch, or its own.
    making: where some of its kernels are under way. compiler: which, if not the one that is found.
    """
    program, source = state.program, state.source
    assert program is not None
    try:
        kernels = [unit.text for unit in source.kernels]
        cache = CompileCache.default()
        return cache.load(source.entry, target, kernels=kernels, openmp=openmp, making=making, compiler=compiler)
    except ToolchainError as error:
        refused = [k for unit in source.kernels if unit.text == facts_of(error).get("unit") for k in unit.kernels]
        places = "; ".join(program.kernels[k].location for k in refused if k in program.kernels)
        with noting(step="build", before=state, location=places):
            raise


def load(
    state: State,
    target: Target,
    options: Options = Options(),
    externs: BindExtern | None = None,
    making: Making | None = None,
    compiler: Compiler | None = None,
) -> Executable:
    """Build the emitted source, or take it from the cache, and make it callable. making, compiler: see `build`.

    Raises UnsupportedError for a target whose code this machine cannot run.
    """
    require_runnable(target)
    program, plan = state.program, state.plan
    assert program is not None and plan is not None
    entries = {(e.stage, e.segment): e.name for e in entry_points(program)}
    library = build(state, target, openmp=True, making=making, compiler=compiler) if entries else None
    stages: dict[str, list[Segment]] = {}
    for stage, steps in (("prepare", program.prepare), ("run", program.steps)):
        stages[stage] = []
        for number, segment in enumerate(program.with_steps(steps).segments()):
            if (stage, number) in entries:
                assert library is not None
                stages[stage].append(Segment(entry=library.entry_point(entries[stage, number])))
                continue
            (call,) = segment
            assert isinstance(call, Extern)
            if call.regions:
                with noting(location=call.location):
                    bodies = [compile_graph(region, options, externs) for region in call.regions]
                stages[stage].append(Segment(call=CONTROL[call.op](bodies, call.attrs), extern=call))
                continue
            if externs is None:
                raise UnsupportedError(f"{call.op} {call.attrs.get('target', '')} needs PyTorch, which is not here")
            stages[stage].append(Segment(call=externs(call), extern=call))
    return Executable(
        program, stages, pointer_table(program), size_table(program), plan.offsets, plan.arena_bytes,
        options.always_prepare, options.threads,
    )  # fmt: skip
