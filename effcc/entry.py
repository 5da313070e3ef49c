"""The verbs on whole models: compile in this process, ahead of time, and load again. See `effcc` for the list."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from effcc.runtime import weights

if TYPE_CHECKING:
    from effcc.explanation import Explanation
    from effcc.runtime.package import Package
    from effcc.statistics import Stats
    from effcc.target import Target


def compile(
    model: Callable[..., Any],
    *,
    dynamic: bool | None = None,
    fullgraph: bool = False,
    mode: str | None = None,
    **options: Any,
) -> Callable[..., Any]:
    """`model` compiled by effcc at its first call: `torch.compile(model, backend="effcc", ...)` in one call.

    dynamic, fullgraph: as torch.compile takes them. mode: None, "default" or "max-autotune" (time the best few
        schedules of each kernel on this machine). options: `target` ("avx2", or a Target;
        default: this machine), `threads` (default: torch.get_num_threads() at each call), `fast_math` (True: rewrite
        also where results may differ by more than roundings), `print_after` ("fuse", or a list of steps, printed to
        standard error).

    The result takes and gives what `model` does. Raises UnknownNameError or InputError for options that do not exist
    or do not fit; other errors of effcc's (`effcc.errors.EffccError`) come at the first call.

        >>> model = compile(nn.Linear(3, 2), threads=1)
        >>> tuple(model(torch.zeros(5, 3)).shape)
        (5, 2)
    """
    from effcc.backend import read_options

    if mode is not None:
        options["mode"] = mode
    read_options(None, options)
    made: Callable[..., Any] = torch.compile(
        model, backend="effcc", dynamic=dynamic, fullgraph=fullgraph, options=options or None
    )
    return made


def invalidate(model: Any = None) -> None:
    """Have what compiled programs computed from weights computed again at their next call, whatever `model` is.

    Changes are seen without it, however they are made; one exception needs it: a device that writes on its own into
    memory that was pinned for it before (a network card, `io_uring` with registered buffers).
    """
    weights.advance(model)


def export(
    model: nn.Module,
    args: tuple[Any, ...],
    path: str | os.PathLike[str],
    *,
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    target: Target | str | None = None,
    sign: str | os.PathLike[str] | None = None,
    fast_math: bool = False,
    mode: str | None = None,
) -> Path:
    """Compile ahead of time, as called with `args`, into a package that needs no PyTorch: see `effcc.ahead.export`.

    >>> print(export(nn.Linear(3, 2), (torch.zeros(5, 3),), "model.effcc"))
    model.effcc
    >>> tuple(load("model.effcc")(torch.zeros(5, 3)).shape)
    (5, 2)
    """
    from effcc import ahead

    return ahead.export(
        model,
        args,
        path,
        kwargs=kwargs,
        dynamic_shapes=dynamic_shapes,
        target=target,
        sign=sign,
        fast_math=fast_math,
        mode=mode,
    )


def load(
    path: str | os.PathLike[str], *, threads: int | None = None, verify: str | os.PathLike[str] | None = None
) -> Package:
    """Load a package that `export` or `effcc compile` wrote: see `effcc.runtime.package.Package`.

    threads: how many run each call; default: all physical cores. verify: a PEM file with the public key that must have
    signed the package.

        >>> path = export(nn.Linear(3, 2), (torch.zeros(5, 3),), "linear.effcc")
        >>> load(path, threads=1).inputs
        {'input': 'f32[5,3]'}
    """
    from effcc.runtime.package import Package

    return Package(path, threads=threads, verify=verify)


def stats(compiled: Callable[..., Any]) -> Stats:
    """What effcc made of a compiled callable, in numbers: see `effcc.statistics.stats`."""
    from effcc import statistics

    return statistics.stats(compiled)


def explain(
    compiled: Callable[..., Any], *, measure: bool = True, details: bool = False, trace: bool = False
) -> Explanation:
    """What effcc made of a compiled callable, and why: see `effcc.explanation.explain`.

    >>> model = compile(nn.Softmax(-1))
    >>> y = model(torch.zeros(5, 3))
    >>> (program,) = explain(model, measure=False).programs
    >>> len(program.kernels), program.externs
    (1, ())
    """
    from effcc import explanation

    return explanation.explain(compiled, measure=measure, details=details, trace=trace)
