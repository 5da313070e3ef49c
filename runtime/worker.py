"""A process of its own that answers requests: where one crashes or hangs, only that process is lost.

Requests and answers are pickled. The process starts with the first request, and anew with the next after one was lost.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any


class LostError(Exception):
    """Why there is no answer: the process crashed, or did not answer in time."""


class Worker:
    """What `serve`, a function without arguments that calls `answer_requests`, answers; use it as a context manager.

    serve: where it is, "package.module:function". environment: what that process has besides this one's.
    """

    def __init__(self, serve: str, environment: Mapping[str, str] | None = None) -> None:
        self._serve, self._environment = serve, dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def ask(self, request: Any, patience: float) -> Any:
        """The answer. Raises LostError if there is none, or none within `patience` seconds."""
        if self._process is None:
            module, function = self._serve.split(":")
            command = [sys.executable, "-W", "ignore", "-c", f"from {module} import {function}; {function}()"]
            environment = {**os.environ, **self._environment}
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
            if select.select([self._process.stdout], [], [], patience)[0]:
                return pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code = self._process.wait()
            self.stop()
            raise LostError(f"crashed with {'signal' if code < 0 else 'exit code'} {abs(code)}") from None
        self.stop()
        raise LostError(f"did not return within {patience:g} s")

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what it was sent and has not read
                    stream.close()
        self._process = None


def answer_requests(answer: Callable[[Any], Any]) -> None:
    """In the process: answer requests until there are no more. What anything prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(answer(request), answers)
        answers.flush()
