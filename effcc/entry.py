"""The verbs on whole models: compile in this process, ahead of time, and load again. See `effcc` for the list."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from effcc.runtime import weights

if TYPE_CHECKING:
    from effcc.explanation import Explanation
    from effcc.runtime.package import Package
    from effcc.statistics import Stats


def compile(model: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`model` compiled by effcc at its first call: `torch.compile(model, backend="effcc", ...)` in one call.

    options: `dynamic`, `fullgraph` and `mode` go to torch.compile as they are; everything else to effcc (`target`).

    The result takes and gives what `model` does. Errors are effcc's (`effcc.errors.EffccError`), at the first call.
    """
    passed = {name: options.pop(name) for name in ("dynamic", "fullgraph", "mode") if name in options}
    made: Callable[..., Any] = torch.compile(model, backend="effcc", options=options or None, **passed)
    return made


def invalidate(model: Any = None) -> None:
    """Say that weights changed in a way that leaves no trace (a write of a few elements through `.data`).

    What compiled programs computed from weights is computed again at their next call. It costs little to say so of more
    than changed: all compiled programs look again, whatever `model` is.
    """
    weights.advance(model)


def export(model: Any, args: tuple[Any, ...], path: str | os.PathLike[str], **options: Any) -> Path:
    """Compile ahead of time, as called with `args`, into a package that needs no PyTorch: see `effcc.ahead.export`."""
    from effcc import ahead

    return ahead.export(model, args, path, **options)


def load(path: str | os.PathLike[str]) -> Package:
    """Load a package that `export` or `effcc compile` wrote: see `effcc.runtime.package.Package`."""
    from effcc.runtime.package import Package

    return Package(path)


def stats(compiled: Callable[..., Any]) -> Stats:
    """What effcc made of a compiled callable, in numbers: see `effcc.statistics.stats`."""
    from effcc import statistics

    return statistics.stats(compiled)


def explain(compiled: Callable[..., Any], *, measure: bool = True) -> Explanation:
    """What effcc made of a compiled callable, and why: see `effcc.explanation.explain`."""
    from effcc import explanation

    return explanation.explain(compiled, measure=measure)
