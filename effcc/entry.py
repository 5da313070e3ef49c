"""The verbs on whole models: compile in this process, ahead of time, and load again. See `effcc` for the list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from effcc.runtime import weights


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


def export(model: Any, *args: Any, **options: Any) -> Any:
    """Compile ahead of time, to a package that needs no PyTorch: see `effcc.driver.export`."""
    from effcc import driver

    return driver.export(model, *args, **options)  # type: ignore[attr-defined]


def load(package: Any, *args: Any, **options: Any) -> Any:
    """Load a package that `export` or `effcc compile` wrote: see `effcc.driver.load_package`."""
    from effcc import driver

    return driver.load_package(package, *args, **options)  # type: ignore[attr-defined]


def stats(compiled: Callable[..., Any]) -> Any:
    """What effcc made of a compiled callable: see `effcc.driver.stats`."""
    from effcc import driver

    return driver.stats(compiled)  # type: ignore[attr-defined]
