"""Cases of one kind judged in a process of their own, alone or beside something else; failures written, reduced.

What a kind of case is says `Kind`: modules with stored weights (`effcc.fuzz.modules`), PyTorch programs
(`effcc.fuzz.programs`).
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from effcc.fuzz.journal import Before, Door, Find, Journal, paths
from effcc.fuzz.nursery import Nurseling
from effcc.runtime.files import write_whole
from effcc.runtime.worker import LostError, answer_requests

TIMEOUT = 240.0  # seconds a case may take


class Failing(Protocol):
    """A failure of a case."""

    @property
    def case(self) -> Any:
        """The case, which has a `seed`."""

    def resembles(self, other: Any) -> bool:
        """Whether both are likely one bug."""


C = TypeVar("C")
F = TypeVar("F", bound=Failing)


@dataclass
class Outcomes(Generic[F]):
    """What became of the cases, counted, and the failures with their files."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[F] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    seconds: float = 0.0
    recalled: int = 0  # failures of a campaign that is gone on with, which are the first

    def add(self, found: F | str) -> None:
        """Count one; one that was found before, by a campaign that was killed before it counted it, is found once."""
        self.counts[found if isinstance(found, str) else "failed"] += 1
        if isinstance(found, str):
            return
        known = [k for k, f in enumerate(self.failures) if f.case.seed == found.case.seed]
        if known:
            self.failures[known[0]] = found
        else:
            self.failures.append(found)


@dataclass(frozen=True)
class Kind(Generic[C, F]):
    """A kind of case.

    name: what files begin with. serve: where the function is that answers requests, "package.module:function". draw:
    the case of a seed. smaller: cases that are a little smaller. script: what is written of a failure. lost: the
    failure of a case whose process was. renewed: so many cases, after which the process is a new one, as what Dynamo
    and modules leave adds up. asked: what the process is asked for the case of a seed; default: the seed. others:
    whether failures are other compilers'.
    """

    name: str
    serve: str
    draw: Callable[[int], C]
    smaller: Callable[[C], Iterator[C]]
    script: Callable[[F], str]
    lost: Callable[[C, str], F]
    renewed: int = 40
    asked: Callable[[int], Any] = int
    others: bool = False


def answer_cases(draw: Callable[[int], C], judge: Callable[[C], F | str]) -> None:
    """In the process: judge cases, and those of seeds, until the input ends."""
    answer_requests(lambda asked: judge(draw(asked) if isinstance(asked, int) else asked))


def facts_of(failure: Any) -> dict[str, Any]:
    """The fields of a failure besides its case."""
    return {f.name: getattr(failure, f.name) for f in fields(failure) if f.name != "case"}


def recall(kind: Kind[C, F], report: Outcomes[F], before: Before | None, output: Path | None) -> int:
    """Go on where a campaign ended: counts, failures and files as they were, and the next seed."""
    if before is None:
        return report.seed
    finds = before.of(kind.name)
    for find in finds:
        lost: Any = kind.lost(kind.draw(find.seed), "")
        known = {f.name for f in fields(lost)}
        report.failures.append(replace(lost, **{n: v for n, v in find.facts.items() if n in known}))
    report.recalled = sum(f.reduced for f in finds)
    report.failures.sort(key=lambda f: not any(d.reduced and d.seed == f.case.seed for d in finds))
    report.files += paths(output, [f for f in finds if f.reduced]) if output is not None else []
    door = before.doors.get(kind.name, Door(report.seed, {}))
    report.counts.update(door.counts)
    report.seconds = door.seconds
    return door.next


class Isolated(Generic[C, F]):
    """Judges cases in a process of its own, whose compile cache goes with it: a crash is a failure like others."""

    def __init__(self, kind: Kind[C, F]) -> None:
        self._kind = kind
        self._folder = tempfile.TemporaryDirectory(prefix="effcc-fuzz-")
        self._worker = Nurseling(kind.serve, {"EFFCC_CACHE_DIR": str(Path(self._folder.name) / "cache")})
        self._answered = 0

    def __enter__(self) -> Isolated[C, F]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def stop(self) -> None:
        """End the process, whatever it does; the next case begins another."""
        self._worker.stop()

    def judge(self, case: C | int) -> F | str:
        """As the kind's own `judge` does; the case of a seed is drawn in the process."""
        self._answered += 1
        if self._answered % self._kind.renewed == 0:
            self._worker.stop()
        try:
            asked = self._kind.asked(case) if isinstance(case, int) else case
            found: F | str = self._worker.ask(asked, TIMEOUT)
        except LostError as lost:
            return self._kind.lost(self._kind.draw(case) if isinstance(case, int) else case, str(lost))
        return found


def run_cases(
    kind: Kind[C, F],
    report: Outcomes[F],
    done: Callable[[], bool],
    minutes: float,
    seed: int,
    output: Path | None,
    reduce_seconds: float,
    journal: Journal | None = None,
    before: Before | None = None,
) -> None:
    """Judge the cases of `seed` and following for so long, or until `done`. before: of the campaign that is gone on
    with."""
    seed = recall(kind, report, before, output)
    begin = time.monotonic() - report.seconds
    with Isolated(kind) as isolated:
        _reduce_found(kind, report, isolated.judge, output, reduce_seconds, journal)
        while time.monotonic() < begin + 60 * minutes and not done():
            found = isolated.judge(seed)
            report.add(found)
            if not isinstance(found, str):
                note(kind, found, report, output, journal)
                _reduce_found(kind, report, isolated.judge, output, reduce_seconds, journal)
            seed += 1
            report.seconds = time.monotonic() - begin
            if journal is not None:
                journal.done(report.seconds, doors={kind.name: Door(seed, report.counts, report.seconds)})


def note(kind: Kind[C, F], failure: F, report: Outcomes[F], output: Path | None, journal: Journal | None) -> None:
    """Write a failure down as it was found, so that it outlives this process; it is reduced later."""
    files: tuple[str, ...] = ()
    if output is not None and not _is_often(failure, [f for f in report.failures if f is not failure]):
        files = (_script_of(kind, failure, output, failure.case.seed).name,)
    if journal is not None:
        journal.find(Find(kind.name, failure.case.seed, facts_of(failure), False, files))


def _is_often(failure: Failing, before: Sequence[Failing]) -> bool:
    """Whether three that are alike were found before."""
    return sum(failure.resembles(f) for f in before) >= 3


def _script_of(kind: Kind[C, F], failure: F, output: Path, seed: int) -> Path:
    output.mkdir(parents=True, exist_ok=True)
    return write_whole(output / f"{kind.name}_{seed}.py", kind.script(failure))


def _reduce_found(
    kind: Kind[C, F],
    report: Outcomes[F],
    judged: Callable[[C], F | str],
    output: Path | None,
    seconds: float,
    journal: Journal | None,
) -> None:
    """Reduce the failures that are not yet, and write them again; of those that are alike three at most."""
    for number in range(report.recalled, len(report.failures)):
        failure = report.failures[number]
        files: tuple[str, ...] = ()
        if output is not None and not _is_often(failure, report.failures[:number]):
            seed = failure.case.seed
            small = reduce(kind, failure, judged, seconds)
            path = _script_of(kind, small, output, seed)
            report.files.append(path)
            files = (path.name,)
        if journal is not None:
            journal.find(Find(kind.name, failure.case.seed, facts_of(failure), True, files))
    report.recalled = len(report.failures)


class Beside(Generic[C, F]):
    """Cases judged beside something else: `poll` begins the next if the last is done, `finish` ends it.

    steadily: whether the next begins by itself, without waiting for `poll`. output: the folder of failures, where they
    are written as they are found. before: of the campaign that is gone on with.
    """

    def __init__(
        self,
        kind: Kind[C, F],
        report: Outcomes[F],
        output: Path | None = None,
        steadily: bool = False,
        journal: Journal | None = None,
        before: Before | None = None,
    ) -> None:
        self._kind, self._report, self._steadily = kind, report, steadily
        self._output, self._journal = output, journal
        self._seed = recall(kind, report, before, output)
        self._begin = time.monotonic() - report.seconds
        self._isolated = Isolated(kind)
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._ended = Event()

    def __enter__(self) -> Beside[C, F]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._isolated.__exit__(kind, error, trace)  # ends what is pending, too
        self._thread.shutdown()

    @property
    def failed(self) -> int:
        """How many have failed so far."""
        return len(self._report.failures)

    @property
    def counts_as_failures(self) -> bool:
        """Whether what fails is effcc's."""
        return not self._kind.others

    @property
    def door(self) -> tuple[str, Door]:
        """How far it has come, by the kind's name."""
        return self._kind.name, Door(self._seed, dict(self._report.counts), time.monotonic() - self._begin)

    def poll(self) -> None:
        """Begin the next case, if the last one is done."""
        if self._pending is None or self._pending.done():
            if self._pending is not None:
                self._pending.result()  # raises what the thread raised
            self._pending = self._thread.submit(self._go_on)

    def _go_on(self) -> None:
        while not self._ended.is_set():
            found = self._isolated.judge(self._seed)
            if not self._ended.is_set():  # else its process was ended
                self._report.add(found)
                if not isinstance(found, str):
                    note(self._kind, found, self._report, self._output, self._journal)
                self._seed += 1
            if not self._steadily:
                break

    def finish(self, reduce_seconds: float) -> None:
        """Leave the last case if it is not done; reduce what failed and write it again."""
        self._ended.set()
        while self._pending is not None and not self._pending.done():
            self._isolated.stop()  # again: it may just have begun another
            wait([self._pending], timeout=0.2)
        self._thread.shutdown()
        judged = self._isolated.judge
        _reduce_found(self._kind, self._report, judged, self._output, reduce_seconds, self._journal)
        self._report.seconds = time.monotonic() - self._begin


def reduce(kind: Kind[C, F], failure: F, judged: Callable[[C], F | str], seconds: float) -> F:
    """The smallest case found within the time that fails alike."""
    end = time.monotonic() + seconds
    again = True
    while again:
        again = False
        for case in kind.smaller(failure.case):
            if time.monotonic() > end:
                return failure
            found = judged(case)
            if not isinstance(found, str) and found.resembles(failure):
                failure, again = found, True
                break
    return failure
