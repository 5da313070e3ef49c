"""Runs the calls in a process of its own: one that crashes or hangs is a finding, and the next process goes on."""

from __future__ import annotations

import dataclasses
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator

from benchmarks.op_database.outcome import Outcome


@dataclasses.dataclass(frozen=True)
class Task:
    """All calls of one operator of a kind, in one dtype."""

    name: str
    kind: str
    dtype: str
    limit: int


def run(tasks: Iterable[Task], timeout: float) -> Iterator[tuple[Task, list[Outcome]]]:
    """Every task's outcomes; a call that takes longer than `timeout` seconds, or ends the process, is a crash."""
    worker = _Worker()
    try:
        for task in tasks:
            outcomes: list[Outcome] = []
            failed = worker.run(task, outcomes, timeout)
            if failed:
                outcomes.append(Outcome(f"{task.name} {task.kind} {task.dtype} #{len(outcomes)}", "crash", failed))
                worker.stop()
                worker = _Worker()
            yield task, outcomes
    finally:
        worker.stop()


class _Worker:
    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.op_database.work"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")  # the process has ended

    def run(self, task: Task, outcomes: list[Outcome], timeout: float) -> str:
        """Collect a task's outcomes as they come; the message of what went wrong, or nothing."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(dataclasses.asdict(task)) + "\n")
        self.process.stdin.flush()
        while True:
            try:
                line = self.lines.get(timeout=timeout)
            except queue.Empty:
                return f"no result within {timeout:g} s"
            if not line:
                return f"the process ended with code {self.process.wait()}"
            found = json.loads(line)
            if found is None:
                return ""
            outcomes.append(Outcome(**{**found, "externs": tuple(found["externs"])}))

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
