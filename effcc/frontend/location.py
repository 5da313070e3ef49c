"""Where in the user's code a captured call comes from."""

from __future__ import annotations

import linecache
import re
import sys
from pathlib import Path

import torch
from torch import fx

_TORCH = str(Path(torch.__file__).parent)


def location(node: fx.Node) -> str:
    """`file.py:12: the line` of the user's code that a node comes from, if known: the innermost that is not torch's,
    nor in what torch wrote on its way (`<eval_with_key>`)."""
    trace = node.meta.get("stack_trace") or node.stack_trace or ""
    frames = re.findall(r'File "([^"]*)", line (\d+), in [^\n]*\n\s*([^\n]*)', trace)
    if not frames:
        return ""
    own = (f for f in reversed(frames) if not f[0].startswith((_TORCH, "<")))
    path, line, code = next(own, frames[-1])
    return f"{path.rsplit('/', 1)[-1]}:{line}: {code.strip()}"


def model_line(locations: str) -> tuple[str, int] | None:
    """The file, by its whole path where a module of this process has it, and the line of the first of some locations
    (`model.py:12: y = f(x); model.py:13: ...`); None where there is none."""
    found = re.match(r"(.*?):(\d+): ?([^;]*)", locations)
    if found is None:
        return None
    name, line, code = found[1], int(found[2]), found[3].strip()
    paths = {getattr(m, "__file__", None) for m in list(sys.modules.values())}
    for path in sorted(p for p in paths if isinstance(p, str) and Path(p).name == name):
        if linecache.getline(path, line).strip().startswith(code):
            return str(Path(path).absolute()), line
    return name, line
