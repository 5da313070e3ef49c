"""What the compiler made of a model, and why: kernels, what fused into them, schedules, time against the roofline."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effcc.compression.report import LayerReport, layer_reports, layers_text
from effcc.deviations import Deviation, deviations
from effcc.errors import InputError
from effcc.history import History, history_of
from effcc.ir.contraction import contractions
from effcc.ir.dims import evaluate, hinted
from effcc.ir.printer import print_graph, print_kernel, print_loops, print_schedule, show_node
from effcc.ir.program import Branch, Extern, Launch, Loop, Program, Step, size_hints, within
from effcc.origins import origins
from effcc.roofline import bandwidth, work
from effcc.runtime.measure import recalled
from effcc.sources import Source, read_model
from effcc.statistics import extern_name, require_programs
from effcc.steps import State, run_steps
from effcc.target import Target, detect
from effcc.timing import start_seconds, time_what_runs
from effcc.trace import Tick, ticks, trace_events, write_trace
from effcc.traffic import traffic
from effcc.verdict import Facts, verdict


@dataclass(frozen=True)
class KernelReport:
    """One distinct kernel. Times are seconds of all its launches in a call together.

    text: the cascade. location: the ops and lines of the user's model that it stands for. notes: its schedule and why.
    predicted: by the cost model that chose the schedule, where it gives a time. roofline: what the machine's peak and
    bandwidths allow, and `bound_by` which of them limits it. measured: None where it was not measured.
    verdict: what holds it up, and the next step, in words. deviation: from float64, if `details` were asked for.
    schedule, loops: their texts. unit: its C++, a key of the program's `code`. history: each step that made or changed
    it, with the cascade that came out; empty unless `details` were asked for.
    """

    name: str
    launches: int
    text: str
    location: str
    notes: tuple[str, ...]
    flops: float
    bytes: float
    roofline: float
    bound_by: str
    predicted: float | None
    measured: float | None
    verdict: str = ""
    deviation: Deviation | None = None
    schedule: str = ""
    loops: str = ""
    unit: str = ""
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class NodeReport:
    """One node of the graph: its text, the op, the line of the user's model, and the steps that compute it, by their
    numbers in `ProgramReport.steps`."""

    text: str
    op: str
    location: str
    steps: tuple[int, ...]


@dataclass(frozen=True)
class StepReport:
    """One step of a call: the kernel that it launches, or the number of the call to PyTorch among `externs` (neither:
    buffers are joined), and its measured seconds."""

    kernel: str
    extern: int | None
    measured: float | None


@dataclass(frozen=True)
class ExternReport:
    """A call that PyTorch runs: the operator, why it is not effcc's, where in the model, and its measured seconds."""

    operator: str
    reason: str
    location: str
    measured: float | None


@dataclass(frozen=True)
class ProgramReport:
    """One program: kernels in the order of their first launch, calls to PyTorch, memory in bytes, seconds by step.

    memory: `arena` of one call, the `bound` that no placement can undercut (None where sizes are dynamic), `weights`,
    what was `prepared` from them, and `originals`, the weights that only preparing reads (kept all the same).
    fast_math: whether that option was on. rules: how often each rewrite rule fired.
    nodes: the graph that was fused, and `head` its parameters. steps: what a call does, in order. code: the C++ of
    kernels, by unit; equal kernels share one. limits: `peak` in operations and `bandwidth` in bytes a second, which the
    roofline takes; `start` is what a launch takes by itself, in seconds, where kernels were measured. ticks: when each
    thread ran what in one call, if a `trace` was asked for. problem: why kernels could not be run.
    """

    name: str
    target: str
    kernels: tuple[KernelReport, ...]
    externs: tuple[ExternReport, ...]
    encodings: tuple[str, ...]
    memory: Mapping[str, int | None]
    seconds: Mapping[str, float]
    sizes: Mapping[str, int]
    source: str
    fast_math: bool = False
    rules: Mapping[str, int] = dataclasses.field(default_factory=dict)
    head: str = ""
    nodes: tuple[NodeReport, ...] = ()
    steps: tuple[StepReport, ...] = ()
    code: Mapping[str, str] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ticks: tuple[Tick, ...] = ()
    problem: str = ""

    def __str__(self) -> str:
        from effcc.explanation_text import program_text

        return program_text(self)


@dataclass(frozen=True)
class Explanation:
    """All programs behind a model. `graph_breaks`: reasons that Dynamo gave in this process, with how often.

    layers: how the model's weights are stored, where `effcc.quantize` or its like stored some.
    """

    programs: tuple[ProgramReport, ...]
    graph_breaks: Mapping[str, int]
    layers: tuple[LayerReport, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return dataclasses.asdict(self)

    def html(self, path: str | os.PathLike[str], against: Explanation | None = None, title: str = "") -> Path:
        """Write it as a page that a browser opens, in one file that loads no other; the file is whole or absent.

        against: another compile, of the same model or another version of it: the page tells what changed since.
        title: the page's; default: the programs' names.

        Raises InputError where the file cannot be written.
        """
        from effcc.page import write_page

        return write_page(self, Path(path), against, title)

    def trace(self, path: str | os.PathLike[str]) -> Path:
        """Write the ticks of one call as a trace, which ui.perfetto.dev opens; the file is whole or absent.

        Raises InputError where no trace was asked for, kernels were not run, or the file cannot be written.
        """
        if not any(p.ticks for p in self.programs):
            raise InputError(
                f"{path}: there is nothing to trace; expected an explanation with trace=True, of kernels that this "
                "machine can run and that were measured"
            )
        told = [{k.name: {"model": k.location, "verdict": k.verdict} for k in p.kernels} for p in self.programs]
        programs = [(p.name, p.ticks, about) for p, about in zip(self.programs, told, strict=True)]
        return write_trace(trace_events(programs), Path(path))

    def _repr_html_(self) -> str:
        """The page in a frame, as notebooks show it."""
        from effcc.page import page_text

        frame = 'sandbox="allow-scripts" style="width: 100%; height: 900px; border: 0"'
        return f'<iframe {frame} srcdoc="{escape(page_text(self))}"></iframe>'

    def __str__(self) -> str:
        from effcc.explanation_text import breaks_text

        layers = [layers_text(self.layers)] if self.layers else []
        return "\n\n".join([*layers, *map(str, self.programs), *breaks_text(self.graph_breaks)])


def explain(
    compiled: Callable[..., Any],
    *,
    measure: bool = True,
    source: bool = False,
    details: bool = False,
    trace: bool = False,
) -> Explanation:
    """What effcc made of a callable that `effcc.compile` or torch.compile gave, after its first call.

    Of a model whose weights are stored it says how, a line a layer; also before it is compiled.

    measure: run the kernels on random data and say how long each takes. source: keep the generated C++ of the whole
    program as one text. details: tell how each step changed a kernel, too, for which the steps run once more, and
    where kernels are measured, how far each is from float64. trace: where kernels are measured, note when each thread
    runs what.

    Raises InputError where effcc has compiled nothing for it.
    """
    from torch._dynamo.utils import counters

    from effcc.backend import programs_of

    model = getattr(compiled, "_orig_mod", compiled)
    layers = layer_reports(model, recalled(detect())) if isinstance(model, torch.nn.Module) else ()
    reports = []
    for one in programs_of(compiled) if layers else require_programs(compiled):
        with hinted(one.hints):
            history = history_of(one.state, one.target) if details else None
            made = report(
                one.state, one.target, {}, measure=measure, source=source, history=history, compare=details, trace=trace
            )
        between = tuple(ExternReport(extern_name(c), c.reason, c.location, None) for c in one.between)
        reports.append(dataclasses.replace(made, externs=(*made.externs, *between)))
    breaks = {str(k).split("\n")[0]: v for k, v in counters["graph_break"].items()}
    return Explanation(tuple(reports), breaks if reports else {}, layers)


def explain_file(
    path: Path,
    *,
    target: Target | None = None,
    measure: bool = True,
    source: bool = False,
    fast_math: bool = False,
    details: bool = False,
    trace: bool = False,
) -> Explanation:
    """What effcc makes of a `.pt2` or printed IR file; raises what `effcc.ahead.compile_file` raises for files."""
    model = read_model(path)
    model = dataclasses.replace(model, state=dataclasses.replace(model.state, fast_math=fast_math))
    machine = recalled(target or detect())
    return explain_source(model, machine, measure=measure, source=source, details=details, trace=trace)


def explain_source(
    model: Source,
    target: Target,
    *,
    measure: bool = True,
    source: bool = False,
    details: bool = False,
    trace: bool = False,
) -> Explanation:
    """What effcc makes of a model that was read; kernels are measured only where this machine can run the code."""
    history = History()
    known = {
        n: torch.from_numpy(a) for n, a in model.weights.items() if a.dtype.kind in "fiub" and a.dtype != np.uint16
    }
    measure = measure and target.runs_here()
    with hinted(model.hints):
        state = run_steps(model.state, target, model.start, history.see)
        made = report(
            state, target, known, measure=measure, source=source, history=history, compare=details, trace=trace
        )
    return Explanation((made,), {})


def report(
    state: State,
    target: Target,
    weights: Mapping[str, torch.Tensor],
    *,
    measure: bool,
    source: bool,
    history: History | None = None,
    compare: bool = False,
    trace: bool = False,
) -> ProgramReport:
    """The report on a state that all steps have run on. compare: also with float64; trace: also when each thread runs
    what; both where kernels are measured."""
    program, plan = state.program, state.plan
    assert program is not None and plan is not None
    sizes = size_hints(program)
    times: list[float] = []
    given, problem = weights, ""
    if measure and program.steps:
        times, given, problem = time_what_runs(state, target, sizes, weights)
    seconds: Counter[str] = Counter()
    for step, taken in zip(program.steps, times, strict=False):
        if isinstance(step, Launch):
            seconds[step.kernel] += taken  # type: ignore[assignment]
    launches = Counter(s.kernel for s in program.launches)
    control = [s for s in program.steps if isinstance(s, Branch | Loop)]  # timed as a whole
    timed = set(launches) - {s.kernel for s in within(control) if isinstance(s, Launch)}
    cached = _working_set(program, sizes) <= target.l3_bytes
    works = {name: work(program.kernels[name], sizes) for name in launches}
    moved = traffic(program, works)
    limits = {"peak": target.peak_flops, "bandwidth": bandwidth(target, cached)}
    if times:
        quickest = min((seconds[name] / count for name, count in launches.items() if name in timed), default=0.0)
        limits["start"] = min(start_seconds(target), quickest)
    apart = deviations(state, target, sizes, given) if times and compare else {}
    kernels = []
    for name, count in launches.items():
        kernel, schedule, does = program.kernels[name], state.schedules[name], works[name]
        facts = Facts(
            launches=count,
            measured=seconds[name] if times and name in timed else None,
            compute=does.flops * count / limits["peak"],
            memory=does.bytes * count / limits["bandwidth"],
            start=limits.get("start", 0.0),
            call=sum(times),
            predicted=schedule.seconds * count if schedule.seconds else None,
            bytes=does.bytes * count,
            weights=moved[name].weights,
            weight_bytes=moved[name].weight_bytes,
            partner=moved[name].partner,
            between=moved[name].between.get(moved[name].partner, 0.0),
            saved_launches=moved[name].pairs[moved[name].partner],
            integer_dots=target.sums_bytes and moved[name].weight_bytes > 1 and bool(contractions(kernel)),
            measured_rates=target.measured,
        )
        kernels.append(
            KernelReport(
                name=name,
                launches=count,
                text=print_kernel(kernel, locations=False),
                location=kernel.location,
                notes=schedule.notes,
                flops=does.flops * count,
                bytes=does.bytes * count,
                roofline=does.seconds(target, cached) * count,
                bound_by=does.bound_by(target, cached),
                predicted=facts.predicted,
                measured=facts.measured,
                verdict=verdict(facts),
                deviation=apart.get(name),
                schedule=print_schedule(name, schedule),
                loops=print_loops(state.nests[name]),
                unit=state.units[name].namespace,
                history=history.of(name) if history is not None else (),
            )
        )
    externs = [
        ExternReport(extern_name(s), s.reason, s.location, times[i] if times else None)
        for i, s in enumerate(program.steps)
        if isinstance(s, Extern)
    ]
    rates = "measured" if target.measured else "assumed"
    return ProgramReport(
        name=program.name,
        target=f"{target.name} ({target.isa}, {target.cores} cores, rates {rates})",
        kernels=tuple(kernels),
        externs=tuple(externs),
        encodings=tuple(map(str, state.encodings)),
        memory=_memory(state, program, sizes),
        seconds=dict(state.seconds),
        sizes=sizes,
        source=str(state.source) if source else "",
        fast_math=state.fast_math,
        rules=dict(state.fired),
        head=print_graph(state.graph.with_nodes(()), locations=False) if state.graph is not None else "",
        nodes=_nodes(state, program),
        steps=_steps(program.steps, times),
        code={state.units[name].namespace: state.units[name].text for name in launches},
        limits=limits,
        ticks=ticks(state, target, sizes, given) if times and trace else (),
        problem=problem,
    )


def _nodes(state: State, program: Program) -> tuple[NodeReport, ...]:
    """The graph's nodes, each with the steps that compute it."""
    if state.graph is None:
        return ()
    steps: dict[int, list[int]] = {}
    for number, nodes in enumerate(origins(state.graph, program)):
        for k in nodes:
            steps.setdefault(k, []).append(number)
    return tuple(
        NodeReport(show_node(node, locations=False), node.op, node.location, tuple(steps.get(k, ())))
        for k, node in enumerate(state.graph.nodes)
    )


def _steps(steps: Sequence[Step], times: Sequence[float]) -> tuple[StepReport, ...]:
    """What a call does, in order."""
    found, externs = [], 0
    for number, step in enumerate(steps):
        is_extern = isinstance(step, Extern)
        kernel = step.kernel if isinstance(step, Launch) else ""
        found.append(StepReport(kernel, externs if is_extern else None, times[number] if times else None))
        externs += is_extern
    return tuple(found)


def _memory(state: State, program: Program, sizes: Mapping[str, int]) -> dict[str, int | None]:
    assert state.plan is not None

    def total(names: Sequence[str]) -> int:
        types = [program.buffer(n).type for n in names]
        return sum(evaluate(t.size, sizes) * t.dtype.bytes for t in types)

    weights = [b.name for b in program.buffers if b.space == "weight"]
    read = {n for s in program.steps for n in s.arguments}
    return {
        "arena": state.plan.bytes_at(sizes),
        "bound": state.plan.lower_bound,
        "weights": total(weights),
        "prepared": total([b.name for b in program.buffers if b.space == "prepared"]),
        "originals": total([n for n in weights if n not in read]),
    }


def _working_set(program: Program, sizes: Mapping[str, int]) -> int:
    """Bytes that one call touches at most, but for originals of prepared weights."""
    used = {n for s in program.steps for n in (*s.arguments, *s.results)}
    types = [b.type for b in program.buffers if b.name in used]
    return sum(evaluate(t.size, sizes) * t.dtype.bytes for t in types)
