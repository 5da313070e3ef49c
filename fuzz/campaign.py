"""A campaign: random cases for some minutes, failures reduced and written down.

Cases go through eager and the steps one by one; their C++ is compiled and run a batch at a time, while the next batch
goes through the steps. Every batch also draws instances of some rewrite rules, which random graphs seldom match.
"""

from __future__ import annotations

import importlib.util
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from effcc.errors import ToolchainError
from effcc.fuzz.beside import Beside, facts_of
from effcc.fuzz.damaged import DAMAGED, DamageReport
from effcc.fuzz.deployed import KINDS, Deployed, scratch_grows
from effcc.fuzz.encoders import EncoderChecks
from effcc.fuzz.faults import judge_fault, native_with_fault
from effcc.fuzz.generate import Case, asks_all, generate
from effcc.fuzz.journal import Before, Find, Journal, counted, paths
from effcc.fuzz.modules.campaign import MODULES, ModuleReport
from effcc.fuzz.mutated.corpus import FOLDER, Corpus, Exchange
from effcc.fuzz.native import Native, Outcome, Runner
from effcc.fuzz.nursery import nursery
from effcc.fuzz.oracles import Examined, Failure, drawn_schedules, examine, interpreted, judge, native
from effcc.fuzz.peers import PeerReport, kind_of
from effcc.fuzz.programs.campaign import PROGRAMS, ProgramReport
from effcc.fuzz.reduce import reduce
from effcc.fuzz.repro import write_failure
from effcc.fuzz.rules import RuleChecks
from effcc.fuzz.sizes import SizeChecks
from effcc.fuzz.triton import Triton
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.ops import TABLE
from effcc.steps import STEPS
from effcc.target import Target

ALONE = ("rules", "encoders", "sizes")  # what is checked without a graph
MLIR_EVERY = 9  # MLIR's engine takes longer than everything else
TRITON_EVERY = 7  # nor is its interpreter fast
TRITON_WORK = 20_000  # points of all loops: more would take Triton's interpreter too long
SANITIZE_EVERY = 6  # batches: compiling for the sanitizers takes five times as long
MOST_SANITIZED = 40_000  # letters of source: a fourth of the programs is longer, and takes three fourths of the time
RACE_EVERY = 3  # batches: on real threads, of which the others are


@dataclass(frozen=True)
class Pace:
    """How a campaign divides its time.

    batch: graphs that are examined, then compiled and run together in the background. deployed: of a batch's programs,
    how many are run as users run them, each with two calls of the optimizing compiler. modules: whether modules whose
    weights are stored are called beside (`effcc.fuzz.modules`), one after the other; programs: whether PyTorch programs
    are (`effcc.fuzz.programs`), of which one follows the other without waiting for graphs. packages:
    whether hostile packages are loaded. against: peers that get PyTorch programs, too (`effcc.fuzz.peers`). mutants:
    how many of a batch's graphs are mutants (`effcc.fuzz.mutated`), its last. rules, encoders, sizes: how many rewrite
    rules, weights for encoders, and
    functions of sizes are checked beside a batch.
    """

    batch: int = 16
    deployed: int = 1
    modules: bool = True
    programs: bool = True
    packages: bool = True
    against: tuple[str, ...] = ()
    mutants: int = 0
    rules: int = 50
    encoders: int = 24
    sizes: int = 100


@dataclass(frozen=True)
class Report:
    """What a campaign did."""

    seed: int
    graphs: int
    nodes: int
    compiled: int
    seconds: float
    ops: dict[str, int]
    failures: tuple[Failure, ...]
    files: tuple[Path, ...] = ()
    modules: ModuleReport = field(default_factory=lambda: ModuleReport(0))
    programs: ProgramReport = field(default_factory=lambda: ProgramReport(0))
    packages: DamageReport = field(default_factory=lambda: DamageReport(0))
    peers: PeerReport | None = None
    found: float | None = None  # seconds until the first failure, before it was reduced
    pairs: int = 0  # of operators of which one reads what the other gives
    mutants: int = 0  # of the graphs
    kept: int = 0  # of the mutants, as they reached something new
    damaged: tuple[str, ...] = ()  # files of the corpus that could not be read, and why

    @property
    def graphs_per_minute(self) -> float:
        """Cases taken through all oracles in a minute, reduction of failures included."""
        return self.graphs / self.seconds * 60 if self.seconds else 0.0

    @property
    def by_step(self) -> dict[str, int]:
        """Failures by the step that broke."""
        return dict(Counter(f.step for f in self.failures))

    def as_json(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "seed": self.seed,
            "graphs": self.graphs,
            "nodes": self.nodes,
            "compiled": self.compiled,
            "seconds": self.seconds,
            "found": self.found,
            "graphs_per_minute": self.graphs_per_minute,
            "ops": self.ops,
            "ops_of_table": len(_drawable()),
            "pairs": self.pairs,
            "mutants": self.mutants,
            "kept": self.kept,
            "damaged": list(self.damaged),
            "by_step": self.by_step,
            "failures": [
                {"seed": f.case.seed, "step": f.step, "kind": f.kind, "message": f.message} for f in self.failures
            ],
            "files": [str(f) for f in self.files],
            "modules": self.modules.as_json(),
            "programs": self.programs.as_json(),
            "packages": self.packages.as_json(),
            "peers": self.peers.as_json() if self.peers is not None else None,
        }

    def __str__(self) -> str:
        drawable = _drawable()
        lines = [
            f"{self.graphs} graphs of {self.nodes} nodes in {self.seconds:.0f} s "
            f"({self.graphs_per_minute:.0f} a minute), {self.compiled} of them compiled and run, from seed {self.seed}",
            f"{sum(op in self.ops for op in drawable)} of {len(drawable)} ops covered, {self.pairs} pairs of them",
            f"{self.mutants} of the graphs are mutants, of which {self.kept} reached something new",
            *([f"{len(self.damaged)} files of the corpus are damaged and left out"] if self.damaged else []),
            *(f"  {told}" for told in self.damaged),
            str(self.modules),
            str(self.programs),
            str(self.packages),
            *([str(self.peers)] if self.peers is not None else []),
        ]
        if not self.failures:
            return "\n".join([*lines, "no failures"])
        steps = ", ".join(f"{step} {count}" for step, count in self.by_step.items())
        lines.append(f"{len(self.failures)} failures by step: {steps}")
        lines += [f"  {failure}" for failure in self.failures]
        lines += [f"  written: {path}" for path in self.files]
        return "\n".join(lines)


def run(
    minutes: float,
    seed: int,
    output: Path | None = None,
    target: Target | None = None,
    most: int | None = None,
    others: bool = True,
    progress: bool = True,
    reduce_seconds: float = 20.0,
    stop_after: int | None = None,
    pace: Pace = Pace(),
    journal: Journal | None = None,
    before: Before | None = None,
    exchange: Exchange | None = None,
) -> Report:
    """Go on for `minutes`, or until `most` graphs, from `seed`; failures go to the folder `output`, if there is one.

    journal: where what is done and found is written down at once. before: of the campaign that is gone on
    with; its time counts, and its failures are among those that are told. exchange: with others' mutants
    (`effcc.fuzz.mutated.corpus`).

    The same seed gives the same graphs; how many of them depends on the machine. `target`: what to compile for, one
    instruction set after the other by default. `others`: ask MLIR's engine and Triton's interpreter too, where they are
    installed. `reduce_seconds`: how long to reduce a failure. `stop_after`: end after so many failures. A first batch
    is taken whatever the time.
    """
    modules, programs, packages = ModuleReport(seed), ProgramReport(seed), DamageReport(seed)
    peers = PeerReport(seed)
    if pace.deployed or pace.modules or pace.programs or pace.packages or pace.against:
        nursery()  # which imports everything meanwhile
    with (
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        Runner() as runner,
        Runner(sanitize=True) as sanitized,
        Runner(race=True) as racing,
        Triton() as triton,
        Deployed() as deployed,
        Beside(MODULES, modules, output, False, journal, before) as called_modules,
        Beside(PROGRAMS, programs, output, True, journal, before) as called_programs,
        Beside(DAMAGED, packages, output, False, journal, before) as damaged_packages,
        Beside(kind_of(pace.against or ("inductor",)), peers, output, True, journal, before) as peers_beside,
        ThreadPoolExecutor(2) as background,
    ):
        warnings.simplefilter("ignore")
        campaign = _Campaign(
            seed, output, runner, sanitized, racing, triton if others and _has_triton() else None, deployed, background,
            target, others and _has_mlir(), reduce_seconds, stop_after, pace,
            [b for b, wanted in ((called_modules, pace.modules), (called_programs, pace.programs),
                                 (damaged_packages, pace.packages), (peers_beside, pace.against)) if wanted],
            journal, Corpus(output / FOLDER if output is not None else None, exchange) if pace.mutants else None,
        )  # fmt: skip
        campaign.go_on_from(before)
        report = campaign.run(minutes, most, progress)
        told = peers if pace.against else None
        return replace(report, modules=modules, programs=programs, packages=packages, peers=told)


@dataclass
class _Campaign:
    seed: int
    output: Path | None
    runner: Runner
    sanitized: Runner
    racing: Runner
    triton: Triton | None
    deployed: Deployed
    background: ThreadPoolExecutor
    target: Target | None
    mlir: bool
    reduce_seconds: float
    stop_after: int | None
    pace: Pace
    beside: Sequence[Beside[Any, Any]]
    journal: Journal | None
    corpus: Corpus | None
    next: int = 0  # the seed that comes after all batches that are judged
    batches: int = 0
    recalled: dict[tuple[Any, ...], Find] = field(default_factory=dict)  # the finds of before
    pairs: set[tuple[str, str]] = field(default_factory=set)
    fresh: set[tuple[str, str]] = field(default_factory=set)  # pairs that the journal does not know yet
    before: float = 0.0  # seconds of the campaign that is gone on with
    graphs: int = 0
    mutants: int = 0
    nodes: int = 0
    compiled: int = 0
    ops: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    told: Mapping[str, Any] | None = None  # what the journal says of graphs
    begin: float = 0.0
    found: float | None = None

    def go_on_from(self, before: Before | None) -> None:
        """Take up the counts and failures of the campaign that is gone on with.

        Failures that were not reduced yet are found again: their batch was not done.
        """
        self.next = self.seed
        if before is None:
            return
        done = before.graphs
        if done:
            self.told = done
            self.next, self.batches = done["next"], done["batches"]
            self.graphs, self.nodes, self.compiled = done["graphs"], done["nodes"], done["compiled"]
            self.ops, self.found, self.mutants = counted(done["ops"]), done["found"], done["mutants"]
        self.before, self.pairs = before.seconds, set(before.pairs)
        nothing = GraphBuilder("nothing").build(())
        for find in before.of("graph"):
            self.recalled[find.key] = find
            self.failures.append(Failure(Case(nothing, (), find.seed), **find.facts))
            self.files += paths(self.output, [find]) if self.output is not None else []

    def run(self, minutes: float, most: int | None, progress: bool) -> Report:
        begin = self.begin = time.monotonic() - self.before
        end = begin + minutes * 60
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=not progress) as bar:
            task = bar.add_task("fuzz", total=minutes * 60)
            number, batches = self.next, 0
            targets = islice(self._targets(), self.batches, None)
            pace, seed = self.pace, self.seed + self.batches
            first = self.batches
            alone: Sequence[tuple[Callable[[int], list[Failure]], int]] = (
                (RuleChecks(seed).some, pace.rules), (EncoderChecks(seed).some, pace.encoders),
                (SizeChecks(seed).some, pace.sizes),
            )  # fmt: skip
            running: _Running | None = None
            while (not batches or time.monotonic() < end) and (most is None or self.graphs < most):
                count = self.pace.batch if most is None else min(self.pace.batch, most - self.graphs)
                target = next(targets)
                examined = self._examine(range(number, number + count), target, end if batches else math.inf)
                wrong = [failure for some, count in alone for failure in some(count)]
                self._finish(running)
                for failure in [*wrong, *(e.failure for e in examined if e.failure is not None)]:
                    self._failed(failure, target)
                running = None
                if self._enough():
                    break
                self._poll()
                if self._enough():
                    break
                number, batches = number + len(examined), batches + 1
                running = self._start(examined, target, self._runner(first + batches - 1), self._done(number))
                told = f"{self.graphs} graphs, {len(self.ops)} ops, {len(self.failures)} failures"
                bar.update(task, completed=time.monotonic() - begin, description=told)
            self._finish(running)
        self._write_down()
        for beside in self.beside:
            beside.finish(self.reduce_seconds)
        if any(beside.failed for beside in self.beside if beside.counts_as_failures):
            self._note()
        return Report(
            self.seed, self.graphs, self.nodes, self.compiled, time.monotonic() - begin, dict(self.ops),
            tuple(self.failures), tuple(self.files), found=self.found, pairs=len(self.pairs),
            mutants=self.mutants, kept=self.corpus.kept if self.corpus is not None else 0,
            damaged=tuple(self.corpus.damaged) if self.corpus is not None else (),
        )  # fmt: skip

    def _poll(self) -> None:
        for beside in self.beside:
            beside.poll()
        if any(beside.failed for beside in self.beside if beside.counts_as_failures):
            self._note()

    def _note(self) -> None:
        """Take note of when the first failure was found."""
        if self.found is None:
            self.found = time.monotonic() - self.begin

    def _enough(self, more: int = 0) -> bool:
        """Whether there are as many failures as are wanted, `more` of them not written down yet."""
        failed = len(self.failures) + sum(beside.failed for beside in self.beside if beside.counts_as_failures)
        return self.stop_after is not None and failed + more >= self.stop_after

    def _targets(self) -> Iterator[Target]:
        host = self.target or Target.detect()
        others = [host] if self.target else [host, host, Target.parse("avx2"), Target.parse("scalar")]
        while True:
            yield from (t for t in others if t.runs_here())

    def _examine(self, seeds: Sequence[int], target: Target, end: float) -> list[Examined]:
        """The cases of some seeds after all steps."""
        done: list[Examined] = []
        for seed in seeds:
            if time.monotonic() > end or self._enough(sum(e.failure is not None for e in done)):
                break
            mutated = self.corpus is not None and len(done) >= self.pace.batch - self.pace.mutants
            case = self.corpus.draw(seed) if mutated and self.corpus is not None else generate(seed)
            self.graphs += 1
            self.mutants += mutated
            self.nodes += len(case.graph.nodes)
            self.ops.update(n.op for n in case.graph.nodes)
            self._pair(case.graph)
            every = asks_all(seed) and not mutated
            found = examine(case, target, self.mlir and (every or seed % MLIR_EVERY == 0))
            if self.triton is not None and (every or seed % TRITON_EVERY == 0) and case.work <= TRITON_WORK:
                found = replace(found, failure=found.failure or self.triton.judge(found))
            if mutated and self.corpus is not None:
                self.corpus.see(found)
            done.append(found)
        return done

    def _pair(self, graph: Graph) -> None:
        """Take note of the pairs of operators of which one reads what the other gives."""
        new = pairs_of(graph) - self.pairs
        self.pairs |= new
        self.fresh |= new

    def _runner(self, batch: int) -> Runner:
        """How a batch is run: in turns, with sanitizers, or on real threads."""
        if batch % SANITIZE_EVERY == SANITIZE_EVERY // 2:
            return self.sanitized
        return self.racing if batch % RACE_EVERY == 1 else self.runner

    def _done(self, number: int) -> dict[str, Any]:
        """What is done once the batch that ends before seed `number` is judged."""
        return {
            "next": number, "batches": self.batches, "graphs": self.graphs, "nodes": self.nodes,
            "compiled": self.compiled, "ops": dict(self.ops), "found": self.found, "mutants": self.mutants,
        }  # fmt: skip

    def _write_down(self, done: Mapping[str, Any] | None = None) -> None:
        """Write the progress to the journal: of graphs, if a batch of them is `done`, and of what runs beside."""
        if self.journal is not None:
            self.told = done or self.told
            fresh, self.fresh = sorted(self.fresh), set()
            doors = dict(beside.door for beside in self.beside)
            self.journal.done(time.monotonic() - self.begin, self.told, doors, fresh)

    def _start(self, examined: Sequence[Examined], target: Target, runner: Runner, done: Mapping[str, Any]) -> _Running:
        """Begin to compile and run what was examined, beside what comes next."""
        programs = [(e, n) for e in examined if (n := native(e)) is not None]
        self.compiled += len(programs)
        faults = [f for e in examined if (f := native_with_fault(e)) is not None]
        called = [n for _, n in (*programs, *faults)]
        outcomes = self.background.submit(self._run, called, target, runner)
        short = [e for e, n in programs if _is_short(n)]  # the optimizing compiler takes its time with others
        at = self.graphs // self.pace.batch % max(len(short), 1)
        chosen = [(e, "") for e in short[at : at + self.pace.deployed]]
        if self.pace.deployed:  # and the smallest of those whose sizes, and scratch memory, may grow and shrink
            growing = [e for e in short if e.case.variation.symbols]
            kind = KINDS[self.graphs // self.pace.batch % len(KINDS)]
            growing.sort(key=lambda e: (not scratch_grows(e), e.case.graph.updates != (), len(e.case.graph.nodes)))
            chosen += [(e, kind) for e in growing[:1]]
        deployed = self.background.submit(lambda: [self.deployed.judge(e, target, k) for e, k in chosen])
        judged = [*((e, judge) for e, _ in programs), *((e, judge_fault) for e, _ in faults)]
        return _Running(judged, outcomes, deployed, target, runner, {**done, "compiled": self.compiled})

    def _run(self, programs: Sequence[Native], target: Target, runner: Runner) -> list[Outcome]:
        """Compile and run programs; with sanitizers, of which the compiler makes much, only those that are short."""
        if runner is not self.sanitized:
            return runner.run(programs, target)
        short = iter(runner.run([p for p in programs if _is_short(p)], target))
        long = iter(self.runner.run([p for p in programs if not _is_short(p)], target))
        return [next(short if _is_short(p) else long) for p in programs]

    def _finish(self, running: _Running | None) -> None:
        """Wait for what runs, and judge it."""
        if running is None:
            return
        if not self._enough():
            for (examined, judged), outcome in zip(running.examined, running.outcomes.result(), strict=True):
                failure = judged(examined, outcome)
                if failure is not None and not self._enough():
                    self._failed(failure, running.target, running.runner)
            if not self._enough():
                for failure in running.deployed.result():
                    if failure is not None and not self._enough():
                        self._failed(failure, running.target)
        if not self._enough():
            self.batches += 1
            self._write_down({**running.done, "batches": self.batches, "found": self.found})

    def _failed(self, failure: Failure, target: Target, runner: Runner | None = None) -> None:
        """Write down, unless the like has been seen often; reduce, and write again."""
        self._note()
        number = len(self.failures)
        known = self.recalled.pop(_key(failure), None)
        if known is not None and (known.reduced or failure.step in ALONE):
            return  # found, and told, before this campaign was killed
        if known is not None:
            number = next(k for k, f in enumerate(self.failures) if _key(f) == known.key)
            del self.failures[number]
        alike = sum(failure.resembles(f) for f in self.failures)
        name = f"{failure.step}_{number}" if failure.step in ALONE else ""
        files = self._written(failure, name, alike < 3, False)
        if alike < 3 and self.reduce_seconds and failure.step not in (*ALONE, "faults"):
            judged = partial(self.check, target=target, sought=failure, runner=runner or self.runner)
            failure = reduce(failure, judged, self.reduce_seconds)
        if failure.step not in ("eager", *ALONE, *list(STEPS)[: list(STEPS).index("tile")]):
            failure = replace(failure, schedules=drawn_schedules(failure.case, target))
        files = self._written(failure, name, alike < 3, True)
        self.files += [f for f in files if f not in self.files]
        self.failures.insert(number, failure)

    def _written(self, failure: Failure, name: str, wanted: bool, reduced: bool) -> tuple[Path, ...]:
        """The files of a failure, if they are wanted, and its line in the journal."""
        files = write_failure(failure, self.output, name) if wanted and self.output is not None else ()
        if self.journal is not None:
            named = tuple(f.name for f in files)
            self.journal.find(Find("graph", failure.case.seed, facts_of(failure), reduced, named))
        return files

    def check(self, case: Case, target: Target, sought: Failure, runner: Runner) -> Failure | None:
        """How one case fails; the compiler is called only where the failure sought is its."""
        examined = examine(case, target, mlir=sought.step == "mlir")
        if sought.step == "triton" and self.triton is not None and examined.failure is None:
            return self.triton.judge(examined)
        if examined.failure is not None:
            return examined.failure
        if sought.step == "deployed":
            return self.deployed.judge(examined, target, sought.kind.split()[0])
        if sought.step != "build":
            return interpreted(examined)
        program = native(examined)
        return judge(examined, runner.run([program], target)[0]) if program is not None else None


@dataclass(frozen=True)
class _Running:
    """A batch that is being compiled and run."""

    examined: Sequence[tuple[Examined, Callable[[Examined, Outcome], Failure | None]]]
    outcomes: Future[list[Outcome]]
    deployed: Future[list[Failure | None]]
    target: Target
    runner: Runner
    done: Mapping[str, Any]  # what is, once it is judged


def _key(failure: Failure) -> tuple[Any, ...]:
    """What a failure has in common with its find in the journal."""
    return Find("graph", failure.case.seed, facts_of(failure)).key


def pairs_of(graph: Graph) -> set[tuple[str, str]]:
    """Pairs of operators of which the second reads what the first gives."""
    producers = graph.producers()
    return {(producers[o].op, n.op) for n in graph.nodes for o in n.operands if o in producers}


def _is_short(program: Native) -> bool:
    return len(str(program.state.source)) <= MOST_SANITIZED


def _drawable() -> list[str]:
    return [op.name for op in TABLE.values() if op.reference is not None and op.kind not in ("control", "opaque")]


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _has_mlir() -> bool:
    try:
        from effcc.codegen.mlir.execute import verify_module

        verify_module("module {}")
    except (ImportError, ToolchainError):
        return False
    return True
