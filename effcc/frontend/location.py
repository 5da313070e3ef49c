"""Where in the user's code a captured call comes from."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import fx

_TORCH = str(Path(torch.__file__).parent)


def location(node: fx.Node) -> str:
    """`file.py:12: the line` of the user's code that a node comes from, if known: the innermost that is not torch's."""
    trace = node.meta.get("stack_trace") or node.stack_trace or ""
    frames = re.findall(r'File "([^"]*)", line (\d+), in [^\n]*\n\s*([^\n]*)', trace)
    if not frames:
        return ""
    path, line, code = next((f for f in reversed(frames) if not f[0].startswith(_TORCH)), frames[-1])
    return f"{path.rsplit('/', 1)[-1]}:{line}: {code.strip()}"
