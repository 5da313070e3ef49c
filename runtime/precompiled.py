"""What every kernel includes, compiled once a process: reading those headers takes a quarter of a small kernel's time.

g++ reads a precompiled header from a file of its own format. It is kept in memory here, as a file without a name: it
goes with the process, and nobody else can have written it. A compiler that does not take it (for other flags, say)
reads the headers as text.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from effcc.errors import ToolchainError
from effcc.runtime.fork import Lock

HEADERS = ("vec.h", "guarded.h", "worker.h")
"""Those that every kernel includes, and nothing before them but each other."""
TEXT = "".join(f'#include "effcc/{header}"\n' for header in HEADERS)
_PAYS_AFTER = 6
"""Kernels that take as long for their headers as it takes to precompile them."""


class Precompiled:
    """Precompiled headers by what they are compiled with (anything that can be a key).

    make: compiles `TEXT` to a header, given that.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._asked: Counter[object] = Counter()
        self._files: dict[object, int] = {}

    def flags(self, key: object, text: str, folder: Path, make: Callable[[], bytes]) -> Sequence[str]:
        """The flags with which a kernel is compiled, which may be none; what they name is put into `folder`.

        `make` precompiles `TEXT` for everything that has `key`; it is called once, when that begins to pay. Raises what
        `make` raises, but for ToolchainError: the kernel's own call says what is wrong with the compiler.
        """
        if not hasattr(os, "memfd_create") or not text.startswith(f'#include "effcc/{HEADERS[0]}"\n'):
            return ()
        with self._lock:
            self._asked[key] += 1
            begins = self._asked[key] == _PAYS_AFTER
            file = self._files.get(key)
        if begins:
            with contextlib.suppress(ToolchainError):
                file = _in_memory(make())
                with self._lock:
                    self._files[key] = file
        if file is None:
            return ()
        header = folder / "kernel.h"
        header.write_text(TEXT)
        header.with_suffix(".h.gch").symlink_to(f"/proc/{os.getpid()}/fd/{file}")
        return ("-include", str(header))


def _in_memory(content: bytes) -> int:
    """The descriptor of a file without a name."""
    file = os.memfd_create("effcc-headers", os.MFD_CLOEXEC)
    with open(os.dup(file), "wb") as writer:
        writer.write(content)
    return file
