"""`effcc version`: what is installed."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Annotated

import typer

from effcc.commands.output import print_json
from effcc.runtime.cache_keys import torch_version


def version(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the versions of effcc, PyTorch and Python."""
    found = {
        "effcc": importlib.metadata.version("effcc"),
        "torch": torch_version(),
        "python": platform.python_version(),
    }
    if json:
        print_json(found)
    else:
        print(", ".join(f"{name} {number}" for name, number in found.items()))
