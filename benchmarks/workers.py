"""Runs tasks in processes of their own: one that crashes or hangs is a finding, and the next process goes on.

A worker is a module whose `main` calls `serve`. Tasks and answers are lines of JSON; `null` ends a task's answers.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Task = dict[str, Any]
Answer = dict[str, Any]


def serve(answers_to: Callable[[Task], Iterable[Answer]]) -> None:
    """In a worker: serve tasks until the input ends. What they print goes to standard error."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        for answer in itertools.chain(answers_to(json.loads(line)), [None]):
            pipe.write(json.dumps(answer) + "\n")
            pipe.flush()


def run(
    module: str, tasks: Iterable[Task], timeout: float, processes: int = 1
) -> Iterator[tuple[Task, list[Answer], str]]:
    """Every task with its answers from `python -m module`, as they are done, and what went wrong, if anything: no
    answer within `timeout` seconds, or an end of the process. A new process does the rest."""
    waiting = iter(tasks)
    lock = threading.Lock()
    done: queue.Queue[tuple[Task, list[Answer], str] | None] = queue.Queue()
    workers: list[_Worker] = []

    def work() -> None:
        worker = None
        try:
            while True:
                with lock:
                    task = next(waiting, None)
                if task is None:
                    return
                if worker is None:
                    worker = _Worker(module)
                    workers.append(worker)
                answers: list[Answer] = []
                failed = worker.run(task, answers, timeout)
                if failed:
                    worker.stop()
                    worker = None
                done.put((task, answers, failed))
        finally:
            done.put(None)

    for _ in range(processes):
        threading.Thread(target=work, daemon=True).start()
    try:
        ended = 0
        while ended < processes:
            found = done.get()
            if found is None:
                ended += 1
            else:
                yield found
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    def __init__(self, module: str) -> None:
        command = [sys.executable, "-m", module]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")  # the process has ended

    def run(self, task: Task, answers: list[Answer], timeout: float) -> str:
        """Collect a task's answers as they come; the message of what went wrong, or nothing."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(task) + "\n")
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
            answers.append(found)

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
