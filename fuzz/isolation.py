"""Functions run in a forked process: what crashes there is lost, and no more."""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def forked(function: Callable[[], Result], *, timeout: float | None = None, memory: int | None = None) -> Result | str:
    """What `function` returns in a forked process, which is pickled on the way; or how that process ended instead.

    timeout: seconds after which it is killed. memory: bytes of address space that it may have beyond what this process
    has.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        if memory is not None:
            most = _address_space() + memory
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        with os.fdopen(writing, "wb") as stream:
            pickle.dump(function(), stream)
        os._exit(0)
    os.close(writing)
    late = False
    with os.fdopen(reading, "rb") as stream:
        content = bytearray()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([stream], [], [], left)[0]:
                os.kill(child, signal.SIGKILL)
                late = True
                break
            part = os.read(stream.fileno(), 1 << 16)
            if not part:
                break
            content += part
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if late:
        return f"did not return within {timeout:g} s"
    if code or not content:
        return f"crashed with {'signal' if code < 0 else 'exit code'} {abs(code)}"
    result: Result = pickle.loads(bytes(content))
    return result


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
