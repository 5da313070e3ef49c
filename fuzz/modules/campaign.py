"""Modules one after the other, each in a process of its own; what fails is reduced and written down as a script.

effcc fuzz --modules --minutes 10
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from effcc.fuzz.modules.case import Case
from effcc.fuzz.modules.checks import Failure, judge
from effcc.fuzz.modules.draw import draw
from effcc.fuzz.modules.script import script
from effcc.runtime.worker import LostError, Worker, answer_requests

TIMEOUT = 240.0  # seconds a case may take
RENEWED = 40  # cases, after which the process is a new one: what Dynamo and modules leave adds up

Judge = Callable[[Case], Failure | str]


@dataclass
class ModuleReport:
    """What became of the cases, counted, and the failures with their files."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, found: Failure | str) -> None:
        """Count one."""
        self.counts[found if isinstance(found, str) else "failed"] += 1
        if isinstance(found, Failure):
            self.failures.append(found)

    @property
    def modules(self) -> int:
        """How many were stored and called."""
        return self.counts[""] + self.counts["failed"]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "seed": self.seed, "modules": self.modules, "refused": self.counts["refused"], "seconds": self.seconds,
            "failures": [{"seed": f.case.seed, "step": f.step, "message": f.message} for f in self.failures],
            "files": [str(f) for f in self.files],
        }  # fmt: skip

    def __str__(self) -> str:
        told = f"{self.modules} modules in {self.seconds:.0f} s, {self.counts['refused']} refused to be stored as asked"
        written = [f"  written: {path}" for path in self.files]
        return "\n".join(
            [told, *(f"  {f}" for f in self.failures), *written] if self.failures else [told, "no failures"]
        )


def run_modules(
    minutes: float, seed: int = 0, output: Path | None = None, *, most: int | None = None, reduce_seconds: float = 60.0
) -> ModuleReport:
    """Take the modules of `seed` and following through all checks, for so long or until `most` were called."""
    report, begin = ModuleReport(seed), time.monotonic()
    with Isolated() as isolated:
        for case in cases(seed):
            if time.monotonic() > begin + 60 * minutes or (most is not None and report.modules >= most):
                break
            found = isolated.judge(case)
            if isinstance(found, Failure):
                report.files += _written(found, report.failures, isolated.judge, output, reduce_seconds)
            report.add(found)
    report.seconds = time.monotonic() - begin
    return report


def cases(seed: int) -> Iterator[Case]:
    """The cases from a seed on."""
    while True:
        yield draw(seed)
        seed += 1


class Isolated:
    """Judges cases in a process of its own, whose compile cache goes with it: a crash is a failure like others."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="effcc-fuzz-")
        cache = str(Path(self._folder.name) / "cache")
        self._worker = Worker("effcc.fuzz.modules.campaign:main", {"EFFCC_CACHE_DIR": cache})
        self._answered = 0

    def __enter__(self) -> Isolated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def stop(self) -> None:
        """End the process, whatever it does; the next case begins another."""
        self._worker.stop()

    def judge(self, case: Case) -> Failure | str:
        """As `judge` does."""
        self._answered += 1
        if self._answered % RENEWED == 0:
            self._worker.stop()
        try:
            found: Failure | str = self._worker.ask(case, TIMEOUT)
        except LostError as lost:
            return Failure(case, "process", str(lost))
        return found


class Beside:
    """Cases judged beside something else: `poll` takes what is ready and goes on to the next, `finish` ends it."""

    def __init__(self, seed: int) -> None:
        self._report, self._cases, self._begin = ModuleReport(seed), cases(seed), time.monotonic()
        self._isolated = Isolated()
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[Failure | str] | None = None

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._isolated.__exit__(kind, error, trace)  # ends what is pending, too
        self._thread.shutdown()

    @property
    def failed(self) -> int:
        """How many have failed so far."""
        return len(self._report.failures)

    def poll(self) -> None:
        """Count the last case if it is done, and begin the next."""
        if self._pending is None or self._pending.done():
            if self._pending is not None:
                self._report.add(self._pending.result())
            self._pending = self._thread.submit(self._isolated.judge, next(self._cases))

    def finish(self, output: Path | None, reduce_seconds: float) -> ModuleReport:
        """Leave the last case if it is not done; reduce and write what failed."""
        if self._pending is not None:
            done = self._pending.done()
            self._isolated.stop()
            if done:
                self._report.add(self._pending.result())
            self._thread.shutdown()
            self._pending = None
        for number, failure in enumerate(self._report.failures):
            before = self._report.failures[:number]
            self._report.files += _written(failure, before, self._isolated.judge, output, reduce_seconds)
        self._report.seconds = time.monotonic() - self._begin
        return self._report


def main() -> None:
    """In the process: answer requests until the input ends."""
    answer_requests(judge)


def reduce(failure: Failure, judged: Judge, seconds: float) -> Failure:
    """The smallest case found within the time that fails alike."""
    end = time.monotonic() + seconds
    again = True
    while again:
        again = False
        for smaller in _smaller(failure.case):
            if time.monotonic() > end:
                return failure
            found = judged(smaller)
            if isinstance(found, Failure) and found.resembles(failure):
                failure, again = found, True
                break
    return failure


def _smaller(case: Case) -> Iterator[Case]:
    if len(case.batches) > 1:
        yield replace(case, batches=case.batches[:1])
        yield replace(case, batches=case.batches[1:])
    for k, block in enumerate(case.blocks):
        if not block.needed and len(case.blocks) > 1:
            yield replace(case, blocks=case.blocks[:k] + case.blocks[k + 1 :])
    for k in range(len(case.storing)):
        if len(case.storing) > 1:
            yield replace(case, storing=case.storing[:k] + case.storing[k + 1 :])
    for k in range(len(case.setup)):
        yield replace(case, setup=case.setup[:k] + case.setup[k + 1 :])
    for k in range(len(case.checks)):
        yield replace(case, checks=case.checks[:k] + case.checks[k + 1 :])
    if ".to(torch" not in case.input and case.dtype != "float32":
        yield replace(case, dtype="float32")
    if case.target != "host":
        yield replace(case, target="host")
    if case.dynamic is not None:
        yield replace(case, dynamic=None)


def _written(failure: Failure, before: list[Failure], judged: Judge, output: Path | None, seconds: float) -> list[Path]:
    """The script of a failure, reduced; of three that are alike at most."""
    if output is None or sum(failure.resembles(f) for f in before) >= 3:
        return []
    small = reduce(failure, judged, seconds)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"module_{failure.case.seed}.py"
    path.write_text(script(small))
    return [path]
