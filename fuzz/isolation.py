"""Functions run in a forked process: what crashes there is lost, and no more."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def forked(function: Callable[[], Result]) -> Result | str:
    """What `function` returns in a forked process, which is pickled on the way; or how that process ended instead."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as stream:
            pickle.dump(function(), stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        content = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code or not content:
        return f"crashed with {'signal' if code < 0 else 'exit code'} {abs(code)}"
    result: Result = pickle.loads(content)
    return result
