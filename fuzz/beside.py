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
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from effcc.fuzz.nursery import Nurseling
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

    def add(self, found: F | str) -> None:
        """Count one."""
        self.counts[found if isinstance(found, str) else "failed"] += 1
        if not isinstance(found, str):
            self.failures.append(found)


@dataclass(frozen=True)
class Kind(Generic[C, F]):
    """A kind of case.

    name: what files begin with. serve: where the function is that answers requests, "package.module:function". draw:
    the case of a seed. smaller: cases that are a little smaller. script: what is written of a failure. lost: the
    failure of a case whose process was. renewed: so many cases, after which the process is a new one, as what Dynamo
    and modules leave adds up.
    """

    name: str
    serve: str
    draw: Callable[[int], C]
    smaller: Callable[[C], Iterator[C]]
    script: Callable[[F], str]
    lost: Callable[[C, str], F]
    renewed: int = 40


def answer_cases(draw: Callable[[int], C], judge: Callable[[C], F | str]) -> None:
    """In the process: judge cases, and those of seeds, until the input ends."""
    answer_requests(lambda asked: judge(draw(asked) if isinstance(asked, int) else asked))


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
            found: F | str = self._worker.ask(case, TIMEOUT)
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
) -> None:
    """Judge the cases of `seed` and following for so long, or until `done`."""
    begin = time.monotonic()
    with Isolated(kind) as isolated:
        while time.monotonic() < begin + 60 * minutes and not done():
            found = isolated.judge(seed)
            if not isinstance(found, str):
                report.files += write(kind, found, report.failures, isolated.judge, output, reduce_seconds)
            report.add(found)
            seed += 1
    report.seconds = time.monotonic() - begin


class Beside(Generic[C, F]):
    """Cases judged beside something else: `poll` begins the next if the last is done, `finish` ends it.

    steadily: whether the next begins by itself, without waiting for `poll`.
    """

    def __init__(self, kind: Kind[C, F], report: Outcomes[F], seed: int, steadily: bool = False) -> None:
        self._kind, self._report, self._seed, self._steadily = kind, report, seed, steadily
        self._begin = time.monotonic()
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
                self._seed += 1
            if not self._steadily:
                break

    def finish(self, output: Path | None, reduce_seconds: float) -> None:
        """Leave the last case if it is not done; reduce and write what failed."""
        self._ended.set()
        while self._pending is not None and not self._pending.done():
            self._isolated.stop()  # again: it may just have begun another
            wait([self._pending], timeout=0.2)
        self._thread.shutdown()
        for number, failure in enumerate(self._report.failures):
            before = self._report.failures[:number]
            self._report.files += write(self._kind, failure, before, self._isolated.judge, output, reduce_seconds)
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


def write(
    kind: Kind[C, F],
    failure: F,
    before: Sequence[F],
    judged: Callable[[C], F | str],
    output: Path | None,
    seconds: float,
) -> list[Path]:
    """The script of a failure, reduced; of three that are alike at most."""
    if output is None or sum(failure.resembles(f) for f in before) >= 3:
        return []
    small = reduce(kind, failure, judged, seconds)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{kind.name}_{failure.case.seed}.py"
    path.write_text(kind.script(small))
    return [path]
