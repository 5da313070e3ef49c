"""Processes that answer requests, forked from one that has imported everything: importing takes longer than judging.

A campaign of two minutes has five such processes, each of which would spend five seconds of a core on its imports, and
again whenever it is renewed.
"""

from __future__ import annotations

import importlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from threading import Lock
from types import TracebackType
from typing import Any, BinaryIO

from effcc.fuzz import branches
from effcc.runtime.worker import LostError

_IMPORTED = (
    "torch._dynamo", "torch._functorch.aot_autograd", "effcc.backend", "effcc.fuzz.deployed", "effcc.fuzz.damaged",
    "effcc.fuzz.modules.campaign", "effcc.fuzz.programs.campaign",
)  # fmt: skip
_LARGEST = 1 << 16  # bytes of a request to the nursery


class Nurseling:
    """What `serve`, a function without arguments that calls `answer_requests`, answers in a forked process; asked as
    `effcc.runtime.worker.Worker` is.

    serve: where it is, "package.module:function". environment: what that process has besides this one's.
    """

    def __init__(self, serve: str, environment: Mapping[str, str] | None = None) -> None:
        self._serve, self._environment = serve, dict(environment or {})
        self._process = 0
        self._socket: socket.socket | None = None
        self._answers: BinaryIO | None = None
        self._asking = False

    def __enter__(self) -> Nurseling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def ask(self, request: Any, patience: float) -> Any:
        """The answer. Raises LostError if there is none, or none within `patience` seconds."""
        self._asking = True
        try:
            return self._asked(request, patience)
        finally:
            self._asking = False

    def _asked(self, request: Any, patience: float) -> Any:
        if self._socket is None:
            self._process, self._socket = nursery().fork(self._serve, self._environment)
            self._answers = self._socket.makefile("rb")
        process, connection, answers = self._process, self._socket, self._answers
        assert answers is not None
        try:
            connection.sendall(pickle.dumps(request))
            if select.select([connection], [], [], patience)[0]:
                return pickle.load(answers)
        except (EOFError, OSError, pickle.UnpicklingError):
            code = nursery().end(process)
            self._forget()
            raise LostError(f"crashed with {'signal' if code < 0 else 'exit code'} {abs(code)}") from None
        nursery().kill(process)
        self._forget()
        raise LostError(f"did not return within {patience:g} s")

    def stop(self) -> None:
        """End the process, whatever it does; a thread that waits for its answer then gets LostError."""
        if self._process:
            nursery().kill(self._process)
            if not self._asking:
                self._forget()

    def _forget(self) -> None:
        self._process = 0
        if self._answers is not None:
            self._answers.close()
        if self._socket is not None:
            self._socket.close()
        self._answers = self._socket = None


class _Nursery:
    """The process that the others are forked from; with `alike` a fork of this one, in place of a fresh one."""

    def __init__(self, alike: bool = False) -> None:
        self._socket, other = socket.socketpair()
        self._lock = Lock()
        if alike and os.fork() == 0:
            self._socket.close()
            try:
                main(other.detach())
            finally:
                os._exit(0)
        if not alike:
            command = [sys.executable, "-W", "ignore", "-c", f"from {__name__} import main; main({other.fileno()})"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[other.fileno()])
        other.close()

    def fork(self, serve: str, environment: Mapping[str, str]) -> tuple[int, socket.socket]:
        """A new process, and what connects with it."""
        mine, other = socket.socketpair()
        with other:
            return self._asked(("fork", serve, dict(environment)), [other.fileno()]), mine

    def end(self, process: int) -> int:
        """The exit code of a process that is ending."""
        return self._asked(("wait", process))

    def kill(self, process: int) -> None:
        """End a process."""
        self._asked(("kill", process))

    def _asked(self, request: Any, files: list[int] | None = None) -> int:
        with self._lock:
            socket.send_fds(self._socket, [pickle.dumps(request)], files or [])
            said = self._socket.recv(_LARGEST)
        if not said:
            raise LostError("the process that others are forked from has ended")
        answer: int = pickle.loads(said)
        return answer


_begun: list[_Nursery] = []


def nursery() -> _Nursery:
    """The nursery of this process; the first call begins it."""
    if not _begun:
        _begun.append(_Nursery())
    return _begun[0]


def begin_forked() -> None:
    """Begin this process's nursery as a fork of it, which has imported everything already and has no threads."""
    _begun.append(_Nursery(alike=True))


# In its process -------------------------------------------------------------------------------------------------------


def main(file: int) -> None:
    """Fork processes, as asked, until the asking process ends."""
    branches.begin_if_asked()
    for name in _IMPORTED:
        importlib.import_module(name)
    codes: dict[int, int] = {}
    with socket.socket(fileno=file) as asked:
        while True:
            said, files, _, _ = socket.recv_fds(asked, _LARGEST, 1)
            if not said:
                return
            match pickle.loads(said):
                case ("fork", serve, environment):
                    answer = os.fork()
                    if answer == 0:
                        asked.close()
                        _serve(serve, environment, files[0])
                    codes.pop(answer, None)
                    os.close(files[0])
                case (what, process):
                    if what == "kill" and process not in codes:
                        os.kill(process, signal.SIGKILL)
                    if process not in codes:
                        codes[process] = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                    answer = codes[process]
            asked.sendall(pickle.dumps(answer))


def _serve(serve: str, environment: Mapping[str, str], file: int) -> None:
    """In a forked process: answer what comes through a socket."""
    os.environ.update(environment)
    os.dup2(file, 0)
    os.dup2(file, 1)
    os.close(file)
    sys.stdin = os.fdopen(0)
    module, function = serve.split(":")
    try:
        getattr(importlib.import_module(module), function)()
    finally:
        os._exit(0)
