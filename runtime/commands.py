"""Commands of the toolchain: run in a group of their own, which ends with them, on a timeout, on an interrupt, and with
the process that asked for them.

A compiler driver's children outlive it where nobody ends them, and so does the driver where the process that waits for
it is killed. The command is therefore a child of a shell, beside a second one that reads a pipe whose other end this
process holds: the pipe ends when this process does, whatever ends it, and then so does the group.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from effcc.errors import ToolchainError

INSTALL_HINT = """install one of these:
  Debian, Ubuntu:  apt install g++
  Fedora, RHEL:    dnf install gcc-c++
  Alpine:          apk add g++
  conda:           conda install -c conda-forge cxx-compiler
  macOS:           xcode-select --install
or name one in the environment variable CXX; `effcc doctor` shows what was found"""

_GUARDED = """
exec 3<&0 </dev/null
(trap '' TERM; read -r _ <&3; kill -TERM 0; sleep 0.2; rm -rf -- "$0"; kill -KILL 0) >/dev/null 2>&1 &
guard=$!
exec 3<&-
"$@"
code=$?
exec >/dev/null 2>&1
kill -KILL $guard
wait $guard
exit $code
"""
"""Runs `$@`; where standard input ends first, ends the group and removes the folder `$0`."""
_KILLED = 128
"""What a shell adds to the number of the signal that ended a command."""


class Interrupt:
    """Ends commands that other threads run: those that are running, and those that begin later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._over = False

    def now(self) -> None:
        """End them."""
        with self._lock:
            self._over = True
            for process in self._running:
                _kill_group(process)

    @contextlib.contextmanager
    def watching(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Inside, `process` is ended when the others are."""
        with self._lock:
            self._running.add(process)
            if self._over:
                _kill_group(process)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(process)


def run_command(
    command: Sequence[str], timeout: float, interrupt: Interrupt | None = None, scratch: Path | None = None
) -> str:
    """Run one command of the toolchain and return what it printed (both streams). `interrupt` ends it.

    scratch: the folder for its temporary files, which the caller removes; it goes, too, if this process is killed.

    Raises ToolchainError with that output if it cannot be started, fails, or runs longer than `timeout` seconds. The
    command runs in a process group of its own, which is killed as a whole on a timeout or an interrupt: a compiler
    driver's children would otherwise outlive it.
    """
    if shutil.which(command[0]) is None:
        raise ToolchainError(f"cannot start {command[0]!r}: no such command; {INSTALL_HINT}")
    folder = [] if scratch is None else [str(scratch)]
    ours, alive = os.pipe()
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDED, *(folder or [""]), *command],
            stdin=ours,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C", **({"TMPDIR": folder[0]} if folder else {})},
        )
    except OSError as error:
        os.close(alive)
        raise ToolchainError(f"cannot start {command[0]!r}: {error}; {INSTALL_HINT}") from error
    finally:
        os.close(ours)
    try:
        with interrupt.watching(process) if interrupt is not None else contextlib.nullcontext():
            output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        output = _ended(process)
        ended = f"did not finish within {timeout:g} s and was stopped"
        raise ToolchainError(f"{shlex.join(command)}\n{ended}; its output:\n{_shorten(output)}") from None
    except BaseException:
        _ended(process)
        raise
    finally:
        os.close(alive)
    code = process.returncode
    if code != 0:
        how = f"signal {code - _KILLED}" if code > _KILLED else f"exit code {code}" if code > 0 else f"signal {-code}"
        raise ToolchainError(f"{shlex.join(command)}\nfailed with {how}; its output:\n{_shorten(output)}")
    return output


def _ended(process: subprocess.Popen[str]) -> str:
    """What a process printed until it was ended, together with all that it started."""
    _kill_group(process)
    output, _ = process.communicate()
    return output or ""


def _kill_group(process: subprocess.Popen[str]) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _shorten(output: str, limit: int = 8000) -> str:
    """The first errors are the ones that matter: keep the beginning."""
    if not output.strip():
        return "(nothing)"
    return output if len(output) <= limit else f"{output[:limit]}\n... ({len(output) - limit} more characters)"
