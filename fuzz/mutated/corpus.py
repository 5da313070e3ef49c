"""The graphs that mutants are made of: those that once failed, those that reached something new, and fresh ones.

    DIR/corpus/<seed>.ir

What a mutant reached is a branch of passes or codegen that none before had taken, a pair of operators of which one
reads what the other gives, or a pair of a pass, or a rewrite rule, that changed something and an operator that was
there. Such a mutant is kept as a file, written whole, so that the next campaign begins with it; what others have put
there is read now and then. A file that cannot be read is left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from effcc.errors import EffccError
from effcc.fuzz import branches
from effcc.fuzz.changed_passes import draw_passes
from effcc.fuzz.generate import Case, case_of, generate
from effcc.fuzz.mutated.graphs import NO_CASE, mutant
from effcc.fuzz.oracles import Examined
from effcc.ir.graph import Graph
from effcc.ir.parser import parse_graph
from effcc.ir.printer import print_graph
from effcc.runtime.files import write_whole

Exchange = Callable[[Sequence[tuple[str, str]]], Sequence[tuple[str, str]]]

FOLDER = "corpus"
MOST = 2_000  # graphs that are kept
FRESH = 0.3
"""How often a mutant is made of a graph that is drawn for it."""
SHARED_EVERY = 16  # mutants, after which others' files are looked for
_OWN = Path(__file__).absolute().parent.parent / FOLDER


class Corpus:
    """Makes mutants, and keeps those that reach something new. folder: where they are kept; None: nowhere. exchange:
    takes the names and texts of those that were kept since it was called last, and gives those that others kept."""

    def __init__(self, folder: Path | None = None, exchange: Exchange | None = None) -> None:
        self._folder, self._exchange = folder, exchange
        self._fresh: list[tuple[str, str]] = []
        self._cases: list[Case] = []
        self._names: set[Path] = set()
        self._features: set[tuple[str, str, str]] = set()
        self._branches = branches.taken_here()
        self.kept = 0
        self.damaged: list[str] = []
        self._read(_OWN)
        self.read_shared()

    def __len__(self) -> int:
        return len(self._cases)

    def read_shared(self) -> None:
        """Take what others have kept by now."""
        if self._exchange is not None and self._folder is not None:
            fresh, self._fresh = self._fresh, []
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, text in self._exchange(fresh):
                write_whole(self._folder / name, text)
        if self._folder is not None and self._folder.is_dir():
            self._read(self._folder)

    def _read(self, folder: Path) -> None:
        for path in sorted(folder.glob("*.ir")):
            if path in self._names or len(self._cases) >= MOST:
                continue
            self._names.add(path)
            try:
                case = case_of(parse_graph(path.read_text()))
                case.run()
            except (EffccError, OSError, UnicodeDecodeError, *NO_CASE) as error:
                told = (str(error).splitlines() or [""])[0]
                self.damaged.append(f"{path.name}: {type(error).__name__}: {told[:120]}")
                continue
            self._cases.append(case)

    def draw(self, seed: int) -> Case:
        """The mutant of a seed, of what there is by now; its parent, where nothing that is tried is a case."""
        random = Random(seed)
        if seed % SHARED_EVERY == 0:
            self.read_shared()
        parent = self._parent(random)
        try:
            case, changes = mutant(parent, seed, random, lambda: self._parent(random))
        except NO_CASE:
            case, changes = replace(parent, seed=seed), ()
        graph = replace(case.graph, name="_".join(["mutant", *changes]))
        return replace(case, graph=graph, passes=(*draw_passes(random), *case.passes))

    def _parent(self, random: Random) -> Case:
        if not self._cases or random.random() < FRESH:
            return generate(random.randrange(1 << 30))
        late = self._cases[-20:] if random.random() < 0.3 else self._cases
        return random.choice(late)

    def see(self, examined: Examined) -> bool:
        """Keep a mutant that reached something new; whether it did."""
        found = features(examined) - self._features
        now = branches.taken_here()
        new = bool(found) or now > self._branches
        self._features |= found
        self._branches = now
        if not new or examined.failure is not None or len(self._cases) >= MOST:
            return False
        case = replace(examined.case, passes=())
        self._cases.append(case)
        self.kept += 1
        if self._folder is not None:
            self._write(case)
        return True

    def _write(self, case: Case) -> None:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{case.seed}.ir"
        self._names.add(path)
        text = print_graph(case.graph) + "\n"
        write_whole(path, text)
        if self._exchange is not None:
            self._fresh.append((path.name, text))


def features(examined: Examined) -> set[tuple[str, str, str]]:
    """Pairs of operators, and of what changed something (a step, a rewrite rule) and an operator."""
    graph = examined.case.graph
    producers = graph.producers()
    found = {("op", producers[o].op, n.op) for n in graph.nodes for o in n.operands if o in producers}
    ops = {n.op for n in graph.nodes}
    return found | {("pass", name, op) for name in _fired(examined) for op in ops}


def _fired(examined: Examined) -> Sequence[str]:
    """The steps and rules that changed something."""
    names: list[str] = []
    before: Graph | object | None = examined.case.compiled
    for name, state in examined.states:
        now = state.graph if state.program is None and state.cascades is None else state.program or state.cascades
        if now != before:
            names.append(name)
        before = now
    fired = examined.states[-1][1].fired if examined.states else {}
    return [*names, *fired]
