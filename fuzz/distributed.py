"""A campaign on several machines, by Ray: workers with a corpus in common, of which one that dies loses no find.

    effcc fuzz --ray local --workers 4
    effcc fuzz --ray auto

Each worker is a campaign of its own, with seeds of its own. Every line of its journal, with the files that it names,
goes to a hub at once, and from there to the folder `worker-<k>` of the process that began: what a worker found outlives
it, and one that is lost is begun again where its journal ends. Mutants that reached something new go to the hub, too,
and from there to the other workers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from effcc.errors import InputError
from effcc.fuzz import branches
from effcc.fuzz.journal import NAME, Before, Begun, Find, Journal, read_journal
from effcc.runtime.files import write_whole

if TYPE_CHECKING:
    from effcc.fuzz.campaign import Pace

STRIDE = 10_000_000  # seeds of a worker
EVERY = 0.5  # seconds between two looks at the hub
MOST_RESTARTS = 20  # of one worker: beyond them it dies of something that would kill it again

Kept = Sequence[tuple[str, str]]


class Hub:
    """What workers tell, until it is taken; the corpus that they have in common. An actor."""

    def __init__(self) -> None:
        self._told: list[tuple[int, bytes, dict[str, str]]] = []
        self._kept: list[tuple[int, str, str]] = []
        self._seen: Counter[int] = Counter()
        self._processes: dict[int, int] = {}

    def begin(self, worker: int, process: int) -> None:
        """A worker has begun, with nothing of the corpus."""
        self._processes[worker] = process
        self._seen[worker] = 0

    def tell(self, worker: int, line: bytes, files: dict[str, str]) -> None:
        """A line of a worker's journal, and the files that it names."""
        self._told.append((worker, line, files))

    def exchange(self, worker: int, kept: Kept) -> list[tuple[str, str]]:
        """Take what a worker has kept; what others have since it asked last."""
        self._kept += [(worker, name, text) for name, text in kept]
        new = self._kept[self._seen[worker] :]
        self._seen[worker] = len(self._kept)
        return [(name, text) for other, name, text in new if other != worker]

    def take(self) -> tuple[list[tuple[int, bytes, dict[str, str]]], dict[int, int]]:
        """All that was told since the last call, and each worker's process."""
        told, self._told = self._told, []
        return told, dict(self._processes)


def work(worker: int, begun: Begun, pace: dict[str, Any], how: dict[str, Any], before: Before | None, hub: Any) -> None:
    """One worker's campaign; a Ray task. pace: the fields of a `Pace`, whose module is imported only now."""
    import ray

    with contextlib.suppress(RuntimeError):  # a process that has worked before marks none, or does already
        branches.begin()
    from effcc.fuzz.campaign import Pace, run

    ray.get(hub.begin.remote(worker, os.getpid()))
    with tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as name:
        folder = Path(name)

        def relay(line: bytes, files: Sequence[str]) -> None:
            texts = {f: (folder / f).read_text() for f in files if (folder / f).is_file()}
            ray.get(hub.tell.remote(worker, line, texts))

        def exchange(kept: Kept) -> Kept:
            found: Kept = ray.get(hub.exchange.remote(worker, list(kept)))
            return found

        began = before.began if before is not None else None
        with Journal(folder, begun, began, relay) as journal:
            run(
                begun.minutes, begun.seed, folder, progress=False, pace=Pace(**pace), journal=journal, before=before,
                exchange=exchange, **how,
            )  # fmt: skip


@dataclass
class DistributedReport:
    """What the workers did, by their journals. restarts: how often one was begun again, as it was lost."""

    workers: list[Before]
    restarts: int = 0
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)

    @property
    def cases(self) -> dict[str, int]:
        """Cases by door, of all workers."""
        found: Counter[str] = Counter()
        for worker in self.workers:
            found.update(worker.cases())
        return dict(found)

    @property
    def failures(self) -> list[Find]:
        """What failed, without peers' divergences."""
        return [f for w in self.workers for f in w.finds if f.door != "peer"]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "workers": len(self.workers), "restarts": self.restarts, "lost": self.lost, "seconds": self.seconds,
            "cases": self.cases,
            "failures": [
                {"door": f.door, "seed": f.seed, "files": list(f.files), **f.facts} for f in self.failures
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        cases = ", ".join(f"{n} {door}s" for door, n in self.cases.items()) or "nothing"
        lines = [f"{len(self.workers)} workers in {self.seconds:.0f} s: {cases}; {self.restarts} begun again"]
        lines += self.lost
        if not self.failures:
            return "\n".join([*lines, "no failures"])
        lines.append(f"{len(self.failures)} failures")
        for f in self.failures:
            told = (str(f.facts.get("message", "")).splitlines() or [""])[0]
            lines.append(f"  {f.door} {f.seed}, {f.facts.get('step', f.facts.get('kind', ''))}: {told[:200]}")
        return "\n".join(lines)


class Cluster:
    """Ray, begun or joined; use it as a context manager. address: `local`, or what `ray.init` takes.

    Raises InputError where Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str, workers: int) -> None:
        self._address, self._workers = address, workers

    def __enter__(self) -> Any:
        if importlib.util.find_spec("ray") is None:
            raise InputError("--ray: expected the package ray; pip install 'effcc[distributed]'")
        import ray

        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            if self._address == "local":
                ray.init(address="local", num_cpus=self._workers + 1, include_dashboard=False, log_to_driver=False)
            else:
                ray.init(address=self._address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"--ray {self._address}: expected the address of a cluster, or local: {error}") from error
        return ray

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        ray.shutdown()


def run_distributed(
    begun: Begun,
    output: Path,
    address: str,
    workers: int,
    pace: Pace,
    how: dict[str, Any] | None = None,
    resume: bool = False,
    watch: Callable[[dict[int, int]], None] | None = None,
) -> DistributedReport:
    """Run a campaign on so many workers for its minutes; what they find goes to folders `worker-<k>` of `output`.

    how: what `campaign.run` takes besides. resume: go on where the workers' journals end. watch: called now and then
    with each worker's process, for tests. Raises InputError as `Cluster` does.
    """
    begin = time.monotonic()
    folders = [output / f"worker-{k}" for k in range(workers)]
    if not resume:
        for folder in folders:
            (folder / NAME).unlink(missing_ok=True)
    restarts: Counter[int] = Counter()
    lost: list[str] = []
    with Cluster(address, workers) as ray, ExitStack() as stack:
        hub = ray.remote(num_cpus=0)(Hub).remote()
        task = ray.remote(num_cpus=1, max_retries=0)(work)
        files = [stack.enter_context(_appended(folder)) for folder in folders]

        def start(worker: int) -> Any:
            mine = replace(begun, seed=begun.seed + worker * STRIDE)
            return task.remote(worker, mine, asdict(pace), how or {}, _before(folders[worker]), hub)

        def take() -> dict[int, int]:
            told, processes = ray.get(hub.take.remote())
            for worker, line, texts in told:
                for name, text in texts.items():
                    write_whole(folders[worker] / name, text)
                os.write(files[worker], line)
            found: dict[int, int] = processes
            return found

        running = {start(worker): worker for worker in range(workers)}
        while running:
            done, _ = ray.wait(list(running), timeout=EVERY)
            processes = take()
            if watch is not None:
                watch(processes)
            for ended in done:
                worker = running.pop(ended)
                try:
                    ray.get(ended)
                except ray.exceptions.RayError as error:
                    restarts[worker] += 1
                    told = (str(error).strip().splitlines() or [""])[-1]
                    if isinstance(error, ray.exceptions.RayTaskError) or restarts[worker] > MOST_RESTARTS:
                        lost.append(f"worker {worker} is lost: {told[:300]}")
                    else:
                        running[start(worker)] = worker
    journals = [before for folder in folders if (before := _before(folder)) is not None]
    return DistributedReport(journals, sum(restarts.values()) - len(lost), time.monotonic() - begin, lost)


def _before(folder: Path) -> Before | None:
    """What a worker's journal says, if it has told anything that can be read."""
    try:
        return read_journal(folder)
    except InputError:
        return None


class _appended:
    """A worker's journal here, to be appended to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        return self._file

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
