"""The steps of compiling, in order: each is a function from value to value, and `STEPS` is the table of them.

What a step gives can be printed (`show`), and the text of the first ones taken up again (`effcc.history`).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from effcc.codegen.cpp.program import emit_program, vectorize_program
from effcc.codegen.cpp.units import NOTHING_EMITTED, Source, Unit, kernel_unit
from effcc.codegen.lower import lower
from effcc.codegen.triton import program as triton
from effcc.errors import UnknownNameError, noting
from effcc.frontend.location import model_line
from effcc.gpu import device_of
from effcc.ir.graph import Graph
from effcc.ir.loops import LoopNest
from effcc.ir.parser.schedules import WrittenSchedule
from effcc.ir.printer import print_graph, print_loops, print_program, print_schedule, print_vectors
from effcc.ir.program import Program
from effcc.ir.schedule import Schedule
from effcc.ir.vectors import Function
from effcc.ir.verifier import verify_if_asked, verify_schedule, verifying
from effcc.ir.verifier.schedules import Machine
from effcc.passes.balance import cut_long_spans
from effcc.passes.both_ways import sum_both_ways
from effcc.passes.carried import carry_steps
from effcc.passes.columns import turn_columns
from effcc.passes.control import compile_control
from effcc.passes.dequantized import multiply_integers
from effcc.passes.encodings import Choice, decode_matrices, distribute, encode, spell_out_encodings, sum_by_groups
from effcc.passes.fusion.fuse import CASCADE_STEPS, KERNEL_STEPS, to_cascades, to_clusters
from effcc.passes.fusion.program import Cascades, program_of
from effcc.passes.group_norms import by_channels
from effcc.passes.halves import widen_rows
from effcc.passes.hoist import Hoisted, hoist
from effcc.passes.in_place import store_in_place
from effcc.passes.inputs import share_inputs
from effcc.passes.integers import sum_by_dots
from effcc.passes.kept_codes import keep_codes
from effcc.passes.known_places import known_places
from effcc.passes.layout import arrange
from effcc.passes.memory import Plan, place
from effcc.passes.packed_at_call import pack_at_calls
from effcc.passes.panels import decode_panels
from effcc.passes.parts import share_rows
from effcc.passes.rules.engine import Trace
from effcc.passes.simplify import simplify_counted
from effcc.passes.sub_pixel import sub_pixels
from effcc.passes.tiling.axes import settle, verify_settled
from effcc.passes.tiling.gpu import tile_gpu
from effcc.passes.tiling.tile import tile
from effcc.passes.tiling.written import bounds, device_bounds, follow, require_kernels
from effcc.passes.widen import widen
from effcc.remembered import without_collecting
from effcc.runtime.toolchain import debug_info
from effcc.target import Target

log = logging.getLogger(__name__)
"""`TORCH_LOGS=effcc` shows what was compiled, `TORCH_LOGS=+effcc` each step: PyTorch finds loggers by their module."""


@dataclass(frozen=True)
class State:
    """What the compiler has made so far; each step fills in its field. `seconds` is each step's time.

    cascades: what fusion has made of the graphs, until it is cut into a program (`effcc.passes.fusion.fuse`).
    written: schedules to be followed instead of choosing, by kernel. tiled: the program's kernels read packed operands
    already, and each has such a schedule. fast_math: see `Options`. fired: how often each rewrite rule did.
    units: the C++ of the vectors, by kernel. prepare_once: whether what depends on weights alone is computed only when
    they change. begin: called with the text of each kernel when it is vectorized, for compiling it while others are.
    trace: where what rules do is written down.
    """

    graph: Graph | None = None
    prepare: Graph | None = None
    encodings: tuple[Choice, ...] = ()
    cascades: Cascades | None = None
    program: Program | None = None
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    written: Mapping[str, WrittenSchedule] = field(default_factory=dict)
    tiled: bool = False
    plan: Plan | None = None
    nests: Mapping[str, LoopNest] = field(default_factory=dict)
    vectors: Mapping[str, Function] = field(default_factory=dict)
    units: Mapping[str, Unit] = field(default_factory=dict)
    source: Source = NOTHING_EMITTED
    seconds: Mapping[str, float] = field(default_factory=dict)
    fast_math: bool = False
    fired: Mapping[str, int] = field(default_factory=dict)
    prepare_once: bool = True
    begin: Callable[[str], None] | None = field(default=None, compare=False, repr=False)
    trace: Trace | None = field(default=None, compare=False, repr=False)


Step = Callable[[State, Target], State]


@dataclass(frozen=True)
class Passes:
    """A step of several passes, by name, one after the other; `effcc bisect` looks between them."""

    passes: Mapping[str, Step]

    def __call__(self, state: State, target: Target) -> State:
        for change in self.passes.values():
            state = change(state, target)
        return state


def passes_of(step: str) -> Mapping[str, Step]:
    """The passes that a step consists of, by name; the step alone where it is one."""
    found = STEPS[step]
    return found.passes if isinstance(found, Passes) else {step: found}


def _of_graph(change: Callable[[Graph, Target], Graph], for_gpus: bool = True) -> Step:
    """A change of the graph. for_gpus: whether it is made for a GPU, too."""

    def step(state: State, target: Target) -> State:
        assert state.graph is not None
        skips = not for_gpus and device_of(target) is not None
        return state if skips else replace(state, graph=change(state.graph, target))

    return step


def _simplify(state: State, target: Target) -> State:
    assert state.graph is not None
    simple = simplify_counted(state.graph, state.fast_math, state.trace)
    return replace(state, graph=simple.graph, fired=simple.fired)


def _sum_by_groups(state: State, target: Target) -> State:
    assert state.graph is not None
    if device_of(target) is not None:
        return state
    graph, choices = sum_by_groups(state.graph, target)
    return replace(state, graph=graph, encodings=(*state.encodings, *choices))


def _hoist(state: State, target: Target) -> State:
    assert state.graph is not None
    split = hoist(state.graph)
    prepare = split.prepare
    if prepare is not None and state.fast_math:
        prepare = widen(prepare)
    return replace(state, graph=split.main, prepare=prepare)


def _encode(state: State, target: Target) -> State:
    assert state.graph is not None
    once = state.prepare_once and device_of(target) is None
    split, choices = encode(Hoisted(state.prepare, state.graph), target, once)
    return replace(state, graph=split.main, prepare=split.prepare, encodings=(*state.encodings, *choices))


def _cascade(state: State, target: Target) -> State:
    assert state.graph is not None
    return replace(state, cascades=to_cascades(state.graph, target, state.prepare))


def _of_cascades(change: Callable[[Cascades], Cascades]) -> Step:
    def step(state: State, target: Target) -> State:
        assert state.cascades is not None
        return replace(state, cascades=change(state.cascades))

    return step


def _cluster(state: State, target: Target) -> State:
    assert state.cascades is not None
    return replace(state, program=to_clusters(state.cascades, target), cascades=None)


def _of_program(change: Callable[[Program], Program]) -> Step:
    def step(state: State, target: Target) -> State:
        assert state.program is not None
        return replace(state, program=change(state.program))

    return step


def _for_cpus(change: Callable[[Program, Target], Program]) -> Step:
    """A change of the program that no GPU needs."""

    def step(state: State, target: Target) -> State:
        assert state.program is not None
        return state if device_of(target) is not None else replace(state, program=change(state.program, target))

    return step


def _decode_panels(state: State, target: Target) -> State:
    once = state.prepare_once
    return _for_cpus(lambda program, target: decode_panels(program, target, once))(state, target)


def _control(state: State, target: Target) -> State:
    """Control flow as steps of the program; its bodies go through the steps up to this one on their own."""
    assert state.program is not None
    if device_of(target) is not None or state.tiled:
        return state
    found = [state]

    def compile_body(body: Graph) -> Program:
        begun = State(graph=body, fast_math=state.fast_math, prepare_once=state.prepare_once)
        made = run_steps(begun, target, until="control")
        assert made.program is not None
        fired = Counter(found[-1].fired) + Counter(made.fired)
        found.append(replace(state, encodings=(*found[-1].encodings, *made.encodings), fired=fired))
        return made.program

    program = compile_control(state.program, compile_body)
    return replace(found[-1], program=program)


def _settle(state: State, target: Target) -> State:
    assert state.program is not None
    return state if state.tiled else replace(state, program=settle(state.program, target))


def _tile(state: State, target: Target) -> State:
    assert state.program is not None
    device = device_of(target)
    machine = _machine(target)
    if state.tiled:
        return replace(state, schedules=follow(state.program, state.written, machine))
    if device is not None:
        program, schedules = tile_gpu(state.program, device)
        require_kernels(state.written, program)
        checked = {n: w.check(program.kernels[n], machine) for n, w in state.written.items()}
        return replace(state, program=program, schedules={**schedules, **checked})
    tiled = tile(state.program, target, state.written, state.prepare_once)
    return replace(state, program=tiled.program, schedules=tiled.schedules)


def _place(state: State, target: Target) -> State:
    assert state.program is not None
    if device_of(target) is not None:
        return state
    program, plan = place(state.program)
    return replace(state, program=program, plan=plan)


def _lower(state: State, target: Target) -> State:
    assert state.program is not None
    nests = {}
    for name, kernel in state.program.kernels.items():
        with noting(location=kernel.location, kernel=kernel):
            nests[name] = lower(kernel, state.schedules[name])
    return replace(state, nests=nests)


def _vectorize(state: State, target: Target) -> State:
    assert state.program is not None
    if device_of(target) is not None:
        return state
    units: dict[int, Unit] = {}

    kernels = state.program.kernels

    def done(name: str, function: Function) -> None:
        place = model_line(kernels[name].location) if debug_info() and name in kernels else None
        unit = units[id(function)] = kernel_unit(function, place)
        if state.begin is not None:
            state.begin(unit.text)

    alone = _unshared(state.program)
    vectors = vectorize_program(state.program, state.nests, target, alone, done, state.prepare_once)
    return replace(state, vectors=vectors, units={name: units[id(f)] for name, f in vectors.items()})


def with_vectors(state: State, target: Target) -> State:
    """The state with its functions of vectors, made again where it was recalled without."""
    return state if state.vectors else _vectorize(state, target)


def _unshared(program: Program) -> frozenset[str]:
    """The buffers whose memory no other buffer shares."""
    return frozenset(b.name for b in program.buffers if b.space == "prepared")


def _emit(state: State, target: Target) -> State:
    assert state.program is not None
    device = device_of(target)
    if device is not None:
        text = triton.emit_program(state.program, state.schedules, state.nests, device)
        return replace(state, source=Source(text))
    assert state.plan is not None
    source = emit_program(
        state.program,
        state.nests,
        target,
        offsets=state.plan.offsets,
        no_alias=_unshared(state.program),
        functions=state.vectors,
        units=state.units,
    )
    return replace(state, source=source)


STEPS: dict[str, Step] = {
    "simplify": Passes({
        "spell_out_encodings": _of_graph(lambda graph, _: spell_out_encodings(graph)),
        "distribute": _of_graph(distribute),
        "decode_matrices": _of_graph(lambda graph, _: decode_matrices(graph)),
        "sub_pixels": _of_graph(lambda graph, _: sub_pixels(graph)),
        "known_places": _of_graph(lambda graph, _: known_places(graph)),
        "by_channels": _of_graph(by_channels, for_gpus=False),
        "simplify": _simplify,
    }),
    "hoist": Passes({
        "multiply_integers": _of_graph(multiply_integers, for_gpus=False),
        "sum_by_dots": _of_graph(sum_by_dots, for_gpus=False),
        "sum_by_groups": _sum_by_groups,
        "keep_codes": _of_graph(lambda graph, _: keep_codes(graph)),
        "hoist": _hoist,
    }),
    "encode": _encode,
    "cascade": _cascade,
    **{name: _of_cascades(change) for name, change in CASCADE_STEPS.items()},
    "cluster": _cluster,
    **{name: _of_program(change) for name, change in KERNEL_STEPS.items()},
    "both_ways": _for_cpus(sum_both_ways),
    "in_place": _of_program(store_in_place),
    "arrange": Passes({
        "decode_panels": _decode_panels,
        "carry_steps": _for_cpus(lambda program, _: carry_steps(program)),
        "arrange": _for_cpus(arrange),
        "pack_at_calls": _for_cpus(pack_at_calls),
        "widen_rows": _for_cpus(widen_rows),
        "share_rows": _for_cpus(share_rows),
        "share_inputs": _for_cpus(share_inputs),
        "cut_long_spans": _for_cpus(lambda program, target: cut_long_spans(program, target.cores)),
        "turn_columns": _for_cpus(lambda program, _: turn_columns(program)),
    }),
    "control": _control,
    "settle": _settle,
    "tile": _tile,
    "place": _place,
    "lower": _lower,
    "vectorize": _vectorize,
    "emit": _emit,
}  # fmt: skip


def show(state: State, step: str) -> str:
    """What came out of a step, as text: the last language that the state has reached."""
    if state.cascades is not None:
        return print_program(program_of(state.cascades))
    if step in ("simplify", "hoist", "encode"):
        assert state.graph is not None
        texts = [print_graph(g) for g in (state.prepare, state.graph) if g is not None]
        return "\n".join(texts)
    if step == "lower":
        return "\n".join(print_loops(n) for n in state.nests.values())
    if step == "vectorize":
        distinct = {id(f): replace(f, name=name) for name, f in reversed(list(state.vectors.items()))}
        return "\n".join(print_vectors(f) for f in reversed(list(distinct.values())))
    if step == "emit":
        return str(state.source)
    assert state.program is not None
    schedules = (print_schedule(name, schedule) for name, schedule in state.schedules.items())
    return "\n".join([print_program(state.program), *schedules])


def _verify_if_asked(state: State, step: str) -> None:
    if not verifying():
        return
    cascades = program_of(state.cascades) if state.cascades is not None else None
    for value in (state.graph, cascades, state.program, *state.nests.values(), *state.vectors.values()):
        if value is not None:
            verify_if_asked(value, step, state.program)


def _verify_schedules(state: State, target: Target) -> None:
    assert state.program is not None
    machine = _machine(target)
    for name, schedule in state.schedules.items():
        verify_schedule(state.program.kernels[name], schedule, machine)


def _machine(target: Target) -> Machine:
    device = device_of(target)
    return bounds(target) if device is None else device_bounds(device)


@dataclass(frozen=True)
class Size:
    """How large what a step made is, for logs: in words, when they are asked for."""

    state: State

    def __str__(self) -> str:
        program, graph = self.state.program, self.state.graph
        if program is None:
            return f"{len(graph.nodes) if graph is not None else 0} ops"
        calls = f", {len(program.externs)} calls of PyTorch" if program.externs else ""
        return f"{len(program.steps)} steps, {len(program.kernels)} kernels{calls}"


def run_steps(
    state: State,
    target: Target,
    start: str | None = None,
    see: Callable[[str, State], None] | None = None,
    until: str | None = None,
) -> State:
    """The steps after `start` (from the first, if None) up to `until` (the last, if None), in order.

    `see` is called with each step's name and what came out. Raises UnknownNameError if there is no such step.
    """
    names = list(STEPS)
    for name in (start, until):
        if name is not None and name not in names:
            raise UnknownNameError("step", name, names)
    first = names.index(start) + 1 if start is not None else 0
    last = names.index(until) + 1 if until is not None else len(names)
    for name in names[first:last]:
        begin = time.perf_counter()
        with without_collecting(), noting(step=name, before=state):
            state = STEPS[name](state, target)
            _verify_if_asked(state, name)
            if name == "settle" and verifying() and state.program is not None:
                verify_settled(state.program)
            if name == "tile" and verifying():
                _verify_schedules(state, target)
        seconds = time.perf_counter() - begin
        state = replace(state, seconds={**state.seconds, name: seconds})
        log.debug("step %s: %.1f ms, %s", name, 1e3 * seconds, Size(state))
        if see is not None:
            see(name, state)
    return state
