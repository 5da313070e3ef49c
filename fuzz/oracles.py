"""Who says whether a case is right: eager PyTorch, the compiled C++, every step of the compiler interpreted, MLIR.

`examine` takes a case through the steps, every second one with schedules drawn at random. After each step what came out
must verify, and (in one case of forty-seven) its text must parse back to the same text. In one case of seven, and where
there is no C++ to run, the last is interpreted in float64; where it is wrong, so are the earlier ones in turn, to name
the step that broke it; functions of vectors are interpreted where that is quick. `judge` looks at what the compiled
code computed, and blames a step of the compiler in the same way.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from effcc.errors import EffccError, UnsupportedError
from effcc.fuzz.changed_passes import steps_of
from effcc.fuzz.eager import is_refusal, run_spelled
from effcc.fuzz.expected import Array, Expected, difference, expect
from effcc.fuzz.generate import Case
from effcc.fuzz.isolation import forked
from effcc.fuzz.native import Native, Outcome
from effcc.fuzz.schedules import draw_schedules, spread_scatters
from effcc.fuzz.second import second
from effcc.fuzz.sketch import STRUCTURES
from effcc.fuzz.thresholds import SET, thresholds
from effcc.fuzz.torch_text import torch_function
from effcc.ir.dims import evaluate, same_shape
from effcc.ir.dtypes import DType, f64
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.interpreter import run_graph, run_program
from effcc.ir.interpreter.evaluate import bind_sizes
from effcc.ir.parser import parse_any
from effcc.ir.parser.schedules import WrittenSchedule
from effcc.ir.printer import print_any, print_schedule
from effcc.ir.program import Program
from effcc.ir.verifier import verify_any
from effcc.passes.fusion.program import program_of
from effcc.passes.tiling.axes import verify_settled
from effcc.steps import State, run_steps
from effcc.target import Target

TEXT_EVERY = 47  # parsing takes as long as all the steps
FRONT_EVERY = 3  # most go wrong at the end
AGAIN_EVERY = 3  # a second call of what keeps nothing from the first seldom shows more
INTERPRET_EVERY = 7  # so does interpreting the loops, which finds little that running the compiled code does not
MOST_INTERPRETED = 100_000  # points of all index spaces, beyond which interpreting loops takes seconds
VECTORS_EVERY = 3
LINE = 64  # bytes of a cache line, and of the widest vector
MOST_IN_VECTORS = 1_500  # points: vectors are interpreted one by one


@dataclass(frozen=True)
class Failure:
    """A case that failed: at which step (`eager`, `rules`, one of the driver's, `build`, `mlir`, `triton`), and how."""

    case: Case
    step: str
    kind: str
    message: str
    schedules: str = ""  # those that were drawn for it

    def __str__(self) -> str:
        return f"seed {self.case.seed}, {self.step}: {self.kind}: {self.message.splitlines()[0][:200]}"

    def resembles(self, other: Failure) -> bool:
        """Whether both are likely one bug: a reduced case must fail as the whole did."""
        alike = self.message.split(":")[0][:60] == other.message.split(":")[0][:60]
        return (self.step, self.kind) == (other.step, other.kind) and (self.kind != "error" or alike)


@dataclass(frozen=True)
class Examined:
    """A case after all steps: what the compiled code must compute, or the failure so far."""

    case: Case
    expected: Expected
    eager: Sequence[Array] | None = None
    states: tuple[tuple[str, State], ...] = ()
    failure: Failure | None = None

    @functools.cached_property
    def second(self) -> tuple[Case, dict[str, int]] | None:
        """The case as it is called once more, and its run-time sizes then: of some cases only."""
        wanted = self.case.variation.symbols or (self.state is not None and self.state.prepare is not None)
        return second(self.case) if wanted or self.case.seed % AGAIN_EVERY == 0 else None

    @property
    def state(self) -> State | None:
        """What the last step made."""
        return self.states[-1][1] if self.states else None


def examine(case: Case, target: Target, mlir: bool = False) -> Examined:
    """Take a case through eager and all steps of the compiler; stops at the first failure."""
    expected = expect(case)
    found = Examined(case, expected)
    try:
        eager = eager_results(case, expected)
    except Exception as error:  # a text that does not run is wrong, whatever it raises
        return replace(found, failure=Failure(case, "eager", "error", told(error)))
    if eager is not None:
        problem = compare(eager, None, expected, is_eager=True)
        if problem:
            return replace(found, failure=Failure(case, "eager", "interpreter and eager differ", problem))
    found = replace(found, eager=eager)
    states: list[tuple[str, State]] = []
    state = State(graph=case.compiled)
    for name, step in steps_of(case.passes, case.seed).items():
        try:
            if name == "tile" and has_drawn_schedules(case):
                program, written = _drawn(state, case, target)
                state = replace(state, program=program, written=written)
            after = step(state, target)
            if name == "settle":
                verify_settled(_program(after))
            for value in _new(state, after, case.seed % TEXT_EVERY == 0):
                verify_any(value, after.program)
                if case.seed % TEXT_EVERY == 0:
                    _check_text(value)
        except Exception as error:  # a compiler must not raise on a graph that verifies, whatever it raises
            return replace(found, failure=Failure(case, name, "error", told(error)))
        problem = _misplaced(case, after) or _unaligned(after)
        if problem:
            return replace(found, failure=Failure(case, name, "wrong layout", problem))
        state = after
        states.append((name, state))
    found = replace(found, states=tuple(states))
    failure = None
    if case.work <= MOST_INTERPRETED and (case.seed % INTERPRET_EVERY == 1 or native(found) is None):
        failure = interpreted(found)
    if failure is None and case.work <= MOST_IN_VECTORS and case.seed % VECTORS_EVERY == 0:
        failure = _vectors(found)
    if failure is None and mlir:
        failure = _mlir(case, expected, eager)
    return replace(found, failure=failure)


def has_drawn_schedules(case: Case) -> bool:
    """Whether a case is compiled with schedules drawn at random, not with those that the solver chooses."""
    return case.seed % 2 == 1


def drawn_schedules(case: Case, target: Target) -> str:
    """The text of the schedules that were drawn for a case; empty where there were none."""
    if not has_drawn_schedules(case) or any(not c.startswith(SET) for c in case.passes):
        return ""
    try:
        with thresholds(case.passes):
            program, drawn = _drawn(run_steps(State(graph=case.compiled), target, until="settle"), case, target)
    except EffccError as error:
        return f"none fits: {error}"
    scattered = [k for k in program.kernels.values() if any(s.scatter is not None for s in k.statements)]
    return "\n".join([*map(print_any, scattered), *(print_schedule(name, w.schedule) for name, w in drawn.items())])


def _drawn(state: State, case: Case, target: Target) -> tuple[Program, dict[str, WrittenSchedule]]:
    """The program to be scheduled, and schedules that were drawn for it."""
    program = spread_scatters(_program(state), Random(-1 - case.seed))
    return program, draw_schedules(program, target, Random(case.seed))


def _program(state: State) -> Program:
    assert state.program is not None
    return state.program


def eager_results(case: Case, expected: Expected) -> list[Array] | None:
    """What eager computes; None where it has no such call: an op without a spelling, a dtype that its kernels lack.

    Raises what a call raises that eager should have.
    """
    try:
        text = torch_function(case.graph)
    except UnsupportedError:
        return None
    try:
        found = run_spelled(text, case.inputs)
    except (RuntimeError, IndexError, ValueError) as error:
        if not is_refusal(error):
            raise
        return None
    same = all(e.dtype == r.own.dtype for e, r in zip(found, expected.results, strict=True))
    return found if same else None  # eager computes integer convolutions in floats


def judge(examined: Examined, outcome: Outcome) -> Failure | None:
    """What the compiled code did, against what it must do."""
    if outcome.problem:
        return Failure(examined.case, "build", "compiled code fails", outcome.problem)
    problem = compare(outcome.outputs, examined.eager, examined.expected, by_elements=True)
    if not problem:
        return _judge_again(examined, outcome) if outcome.again else None
    earlier = interpreted(examined) if examined.case.work <= 20 * MOST_INTERPRETED else None
    return earlier or Failure(examined.case, "build", "compiled code is wrong", problem)


def _judge_again(examined: Examined, outcome: Outcome) -> Failure | None:
    """The second call: of a program that updates its inputs, it must go on from what the first call left."""
    case = examined.case
    if case.graph.updates:
        left = dict(zip((p for p, _ in case.graph.updates), outcome.outputs[len(case.graph.outputs) :], strict=True))
        inputs = tuple(left.get(p, a) for p, a in zip(case.graph.params, case.inputs, strict=True))
        called = replace(case, inputs=inputs)
    else:
        called, _ = examined.second or (case, {})
    expected = expect(called)
    try:
        eager = eager_results(called, expected) if examined.eager is not None else None
    except (RuntimeError, IndexError, ValueError):
        return None  # eager has no such call at these sizes
    problem = compare(outcome.again, eager, expected, by_elements=True)
    return Failure(case, "build", "a second call is wrong", problem) if problem else None


def team_of(seed: int) -> int:
    """How many threads run the case of a seed, below 0 in the opposite order: another each time a structure comes."""
    return (1, 3, -3, 4, -2)[(seed + seed // (2 * len(STRUCTURES))) % 5]


def native(examined: Examined) -> Native | None:
    """The compiled program to run; None where there is none, or PyTorch would have to take part."""
    state = examined.state
    if examined.failure is not None or state is None or state.program is None or state.program.externs:
        return None
    if not state.source.entry or not state.program.steps:
        return None
    case = examined.case
    threads = team_of(case.seed)
    shapes = {p.name: (p.type.shape, a.shape) for p, a in zip(case.compiled.params, case.inputs, strict=True)}
    updated = tuple(p.name for p, _ in case.graph.updates)
    again, again_sizes = examined.second or (None, {})
    return Native(
        state, case.inputs, threads, bind_sizes(shapes, None), updated, case.seed % FRONT_EVERY == 0,
        case.graph.weights, again.inputs if again else None, again_sizes,
    )  # fmt: skip


def compare(
    results: Sequence[Any],
    eager: Sequence[Array] | None,
    expected: Expected,
    is_eager: bool = False,
    in_sequence: bool = False,
    by_elements: bool = False,
    interpreted: bool = False,
) -> str:
    """How results are wrong; empty where they are right."""
    if len(results) != len(expected.results):
        return f"{len(results)} results, expected {len(expected.results)}"
    for number, result in enumerate(results):
        model = eager[number] if eager is not None else None
        problem = difference(result, model, expected, number, is_eager, in_sequence, by_elements, interpreted)
        if problem:
            return problem
    return ""


def in_child(function: Callable[[], list[Any]]) -> list[Any] | str:
    """What `function` returns in a forked process, or what went wrong there: an engine's crash must not be ours."""

    def answered() -> list[Any] | str:
        try:
            return function()
        except Exception as error:
            return told(error)

    return forked(answered)


def told(error: Exception) -> str:
    """An error in a line: of ours as it is, any other with where it was raised."""
    if isinstance(error, EffccError):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}: {error}"


def _new(before: State, after: State, cascades: bool) -> list[Any]:
    """What a step made; of `cascades`, if they are asked for, the program that their statements are."""
    values: list[Any] = [program_of(after.cascades)] if cascades and after.cascades is not None else []
    for name in ("graph", "prepare", "program"):
        value = getattr(after, name)
        if value is not None and value is not getattr(before, name):
            values.append(value)
    values += [n for key, n in after.nests.items() if before.nests.get(key) is not n]
    functions = {id(f): f for key, f in after.vectors.items() if before.vectors.get(key) is not f}
    return [*values, *functions.values()]


def _misplaced(case: Case, state: State) -> str:
    """How a program's inputs and outputs are stored in another way than the graph says; callers go by the graph."""
    program = state.program
    if program is None:
        return ""
    graph = case.compiled
    pairs = [*zip(program.inputs, graph.params, strict=True), *zip(program.outputs, graph.outputs, strict=True)]
    for name, value in pairs:
        wanted, type = value.type, program.buffer(name).type
        lies = [s for n, s in zip(type.shape, type.layout, strict=True) if n != 1]
        if not same_shape(type.shape, wanted.shape) or not same_shape(
            lies, [s for n, s in zip(wanted.shape, wanted.layout, strict=True) if n != 1]
        ):
            return f"%{value.name} is stored as {type}, expected {wanted}"
    return ""


def _unaligned(state: State) -> str:
    """A buffer in scratch memory that begins within a cache line, which another's end would share."""
    offsets = state.plan.offsets if state.plan is not None else {}
    for name, offset in offsets.items():
        symbols = getattr(offset, "free_symbols", ())
        if evaluate(offset, {str(symbol): 3 + 2 * k for k, symbol in enumerate(symbols)}) % LINE:
            return f"%{name} begins at byte {offset} of the scratch memory, expected a multiple of {LINE}"
    return ""


def _check_text(value: Any) -> None:
    """Print-parse-print is the identity."""
    text = _print(value)
    again = _print(parse_any(text))
    if again != text:
        lines = zip(text.splitlines(), again.splitlines(), strict=False)
        first = next((f"{a!r} became {b!r}" for a, b in lines if a != b), "its end changed")
        raise EffccError(f"the text of a {type(value).__name__} changes when it is parsed and printed: {first}")


def _print(value: Any) -> str:
    from effcc.ir.printer import print_graph, print_program
    from effcc.ir.program import Program

    if isinstance(value, Graph):
        return print_graph(value, locations=False)
    if isinstance(value, Program):
        return print_program(value, locations=False)
    return print_any(value)


def interpreted(examined: Examined) -> Failure | None:
    """Interpret what the last step made; if that is wrong, find the first step whose result is."""
    case, expected, states = examined.case, examined.expected, examined.states
    dtype = None if expected.exact else f64  # in which a cast to less rounds nothing
    problem = wrong_after(case, expected, states[-1][1], dtype=dtype)
    if not problem:
        return None
    for name, state in states:
        earlier = wrong_after(case, expected, replace(state, nests={}) if name != "lower" else state, dtype=dtype)
        if earlier:
            return Failure(case, name, "wrong result", earlier)
    return Failure(case, "lower", "wrong result", problem)


Observe = Callable[[Any, Mapping[str, Array]], None]


def wrong_after(
    case: Case,
    expected: Expected,
    state: State,
    observe: Observe | None = None,
    dtype: DType | None = f64,
    **how: Any,
) -> str:
    """How what a step made is wrong, interpreted in float64 (dtype None: in its own dtypes); empty where it is right.
    observe, how: see `results_after`."""
    try:
        results = results_after(case, state, observe, dtype, **how)
    except Exception as error:
        return told(error)
    return compare(results, None, expected, interpreted=dtype is not None)


def results_after(
    case: Case, state: State, observe: Observe | None = None, dtype: DType | None = None, **how: Any
) -> list[Array]:
    """What a step made of a case, interpreted: its outputs, then what updated inputs hold. observe: called with what
    each node or launch has computed, by name. how: see `run_program`."""

    def seen(node: Node, results: list[Array]) -> list[Array]:
        if observe is not None:
            observe(node, {r.name: a for r, a in zip(node.results, results, strict=True)})
        return results

    program = program_of(state.cascades) if state.cascades is not None else state.program
    if program is not None:
        return _ran(case, program, nests=state.nests, dtype=dtype, observe=observe, **how)
    assert state.graph is not None
    inputs = [a.copy() for a in case.inputs]
    given = [*inputs, *_prepared(state, case, inputs, dtype)]
    results = run_graph(state.graph, given, dtype=dtype, externs=case.for_graph(dtype), observe=seen)
    return [np.asarray(r) for r in results]


def _ran(case: Case, program: Program, **how: Any) -> list[Array]:
    """What a program's outputs and updated inputs are when it is interpreted."""
    inputs = [a.copy() for a in case.inputs]
    results = run_program(program, inputs, externs=case.for_program(program, how.get("dtype")), **how)
    held = dict(zip((p.name for p in case.graph.params), inputs, strict=True))
    return [np.asarray(r) for r in (*results, *(held[p.name] for p, _ in case.graph.updates))]


def _prepared(state: State, case: Case, inputs: Sequence[Array], dtype: DType | None) -> list[Array]:
    """What `prepare` computes from the weights, for the parameters that `main` has besides the graph's."""
    if state.prepare is None:
        return []
    given = dict(zip((p.name for p in case.graph.params), inputs, strict=True))  # weights have known sizes
    weights = [given[p.name] for p in state.prepare.params]
    return run_graph(state.prepare, weights, dtype=dtype, externs=case.for_graph(dtype))


def _vectors(examined: Examined) -> Failure | None:
    """The functions of vectors interpreted, by one thread or a team."""
    case, state = examined.case, examined.states[-1][1]
    if not state.vectors or _program(state).externs:
        return None
    team = 1 + case.seed // VECTORS_EVERY % 3
    try:
        results = _ran(case, _program(state), vectors=state.vectors, team=team)
    except Exception as error:
        return interpreted(examined) or Failure(case, "vectorize", "error", told(error))
    problem = compare(results, examined.eager, examined.expected)
    if not problem:
        return None
    return interpreted(examined) or Failure(case, "vectorize", "wrong result", problem)


def _mlir(case: Case, expected: Expected, eager: Sequence[Array] | None) -> Failure | None:
    """MLIR's execution engine on the graph as linalg, or on those of its results that MLIR spells."""
    try:
        from effcc.codegen.mlir.emit import emit_graph
        from effcc.codegen.mlir.execute import run_module
    except UnsupportedError:
        return None

    def spelled(graph: Graph) -> str | None:
        values = [*graph.params, *(r for n in graph.nodes for r in n.results)]
        if any(v.type.dtype.name in ("bf16", "f16") or 0 in v.type.shape for v in values):
            return None
        try:
            return emit_graph(graph)
        except UnsupportedError:
            return None

    text, graph = spelled(case.graph), case.graph
    if text is None and not graph.updates:
        kept = [k for k, v in enumerate(graph.outputs) if spelled(_cut(graph, (v,))) is not None]
        graph = _cut(graph, tuple(graph.outputs[k] for k in kept))
        text = spelled(graph) if kept else None
        expected = expected.of(kept)
        eager = [eager[k] for k in kept] if eager is not None else None
    if text is None:
        return None
    given = dict(zip(case.graph.params, case.inputs, strict=True))
    found = in_child(lambda: run_module(text, graph, [given[p] for p in graph.params]))
    if isinstance(found, str):
        return Failure(case, "mlir", "error", found)
    problem = compare(found, eager, expected, in_sequence=True)  # its sums have one accumulator
    return Failure(case, "mlir", "wrong result", problem) if problem else None


def _cut(graph: Graph, outputs: tuple[Value, ...]) -> Graph:
    """The graph as far as these results need it."""
    needed, nodes = set(outputs), list[Node]()
    for node in reversed(graph.nodes):
        if needed & set(node.results):
            needed |= set(node.operands)
            nodes.append(node)
    params = tuple(p for p in graph.params if p in needed)
    return replace(graph, params=params, nodes=tuple(reversed(nodes)), outputs=outputs)
