"""What happens when effcc cannot compile a part of a valid model: the part runs in PyTorch, and a report says why.

Two kinds are told apart. A limitation (`UnsupportedError`) is listed by `effcc.explain`, with its reason. A fault is
whatever else a step raises, or a kernel that the C++ compiler refuses. It is ours: a warning names a file with all that
is needed to reproduce it. What the user or the machine has to mend (an option, the compiler, the cache) is raised.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx

from effcc.errors import (
    CacheError,
    EffccError,
    EncodingError,
    FaultWarning,
    InputError,
    ToolchainError,
    UnknownNameError,
    UnsupportedError,
    facts_of,
)
from effcc.ir.kernel import Kernel
from effcc.ir.printer import print_graph, print_kernel
from effcc.runtime.cache import CompileCache, cache_folder
from effcc.steps import STEPS, State, show
from effcc.target import Target

log = logging.getLogger(__name__)

_THEIRS = (InputError, UnknownNameError, CacheError, EncodingError)
_PROBE = '#include "effcc/vec.h"\n#include "effcc/threads.h"\nextern "C" int effcc_probe() { return 7; }\n'


def is_ours(error: Exception, target: Target) -> bool:
    """Whether compiling failed for a reason that the user and the machine cannot mend."""
    if isinstance(error, ToolchainError):
        return _compiler_works(target)
    dynamo = isinstance(error, torch._dynamo.exc.TorchDynamoException)
    return not isinstance(error, (*_THEIRS, MemoryError)) and not dynamo


def _compiler_works(target: Target) -> bool:
    """Whether the C++ compiler makes a library of the simplest program."""
    try:
        library = CompileCache.default().load(_PROBE, target, openmp=True)
        return bool(library.function("effcc_probe")() == 7)
    except (ToolchainError, CacheError):
        return False


def reason_of(error: Exception, graph: str) -> str:
    """Why a part runs in PyTorch, in a sentence; a fault is reported on the way. `graph` is the text it came from."""
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, UnsupportedError):
        log.info("a part runs in PyTorch: %s", first)
        return first
    file = write_report(error, graph)
    reason = f"a fault of effcc's ({type(error).__name__}: {first}); please send {file}"
    warnings.warn(f"a part of the model runs in PyTorch because of {reason}", FaultWarning, stacklevel=2)
    return reason


@contextmanager
def without_pytorch(target: Target) -> Iterator[None]:
    """Faults raised inside come out as UnsupportedError that names the file to send: a package has no PyTorch to run
    a part of its model."""
    try:
        yield
    except Exception as error:
        typed = isinstance(error, EffccError) and not isinstance(error, ToolchainError)
        if typed or not is_ours(error, target):
            raise
        first = (str(error).splitlines() or [""])[0]
        file = write_report(error, "")
        raise UnsupportedError(
            f"a fault of effcc's ({type(error).__name__}: {first}) keeps this model from becoming a package; "
            f"please send {file}. Under torch.compile(model, backend='effcc') PyTorch runs the part at fault."
        ) from error


def _text(value: Any) -> str:
    """A fact as text: a kernel, or a state of the compiler in the language of the last step that was done."""
    if isinstance(value, Kernel):
        return print_kernel(value)
    if isinstance(value, State):
        done = [step for step in STEPS if step in value.seconds]
        return show(value, done[-1]) if done else "nothing" if value.graph is None else print_graph(value.graph)
    return str(value)


def write_report(error: Exception, graph: str) -> Path:
    """A file with the error and everything that led to it; the same fault is the same file."""
    facts = {name: _text(value) for name, value in facts_of(error).items() if not isinstance(value, fx.Node)}
    parts = {
        "effcc": f"torch {torch.__version__}, Python {platform.python_version()}, {platform.platform()}",
        "error": "".join(traceback.format_exception(error)),
        **facts,
        "graph": graph,
    }
    text = "\n\n".join(f"=== {name} ===\n{value}" for name, value in parts.items())
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
    for folder in (cache_folder() / "faults", None):
        try:
            if folder is None:
                folder = Path(tempfile.mkdtemp(prefix="effcc-fault-"))
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = folder / f"fault-{digest}.txt"
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", errors="replace") as stream:
                stream.write(text)
        except OSError:
            continue
        return file
    return Path(os.devnull)
