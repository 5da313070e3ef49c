"""What effcc made of a model, in numbers: `effcc.stats(compiled)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effcc.driver import Compiled
from effcc.errors import InputError
from effcc.ir.dims import hinted
from effcc.ir.program import Extern, size_hints


@dataclass(frozen=True)
class Stats:
    """Of all programs behind one compiled callable together.

    programs: how many there are (graph breaks and recompilations make several).
    arena_bytes: scratch memory of one call; of the largest program.
    live_bytes: the largest sum of intermediates alive at once, which no placement can undercut; of the same program.
    prepared_bytes: what was computed from weights and is kept beside them.
    kernels: launches in one call.
    externs: calls that PyTorch runs, by operator.
    seconds: compile time by step.
    """

    programs: int
    arena_bytes: int
    live_bytes: int
    prepared_bytes: int
    kernels: int
    externs: Mapping[str, int]
    seconds: Mapping[str, float]


def stats(compiled: Callable[..., Any]) -> Stats:
    """Numbers about a callable that torch.compile or `effcc.compile` gave and that has been called.

    Raises InputError where effcc has compiled nothing for it.

        >>> import torch
        >>> compiled = torch.compile(torch.nn.Softmax(-1), backend="effcc")
        >>> y = compiled(torch.zeros(5, 3))
        >>> stats(compiled).externs
        {}
    """
    return summarize(require_programs(compiled))


def require_programs(compiled: Callable[..., Any]) -> list[Compiled]:
    """The programs behind a callable. Raises InputError where there are none."""
    from effcc.backend import programs_of

    if isinstance(compiled, Compiled):
        return [compiled]
    found = programs_of(compiled)
    if not found:
        raise InputError(
            "effcc has compiled nothing for this callable: expected the result of effcc.compile or of "
            f"torch.compile(..., backend='effcc') after its first call, got {type(compiled).__name__}"
        )
    return found


def summarize(programs: Sequence[Compiled]) -> Stats:
    """The sum of what `stats` tells about each program."""
    seconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    arenas = []
    for one in programs:
        plan, program = one.state.plan, one.state.program
        assert plan is not None and program is not None
        with hinted(one.hints):
            arena = plan.bytes_at(size_hints(program))
        arenas.append((arena, arena if plan.lower_bound is None else plan.lower_bound))
        seconds.update(one.state.seconds)
        calls.update(extern_name(s) for s in (*program.externs, *one.between))
    arena_bytes, live_bytes = max(arenas, default=(0, 0))
    return Stats(
        programs=len(programs),
        arena_bytes=arena_bytes,
        live_bytes=live_bytes,
        prepared_bytes=sum(one.executable.prepared_bytes for one in programs),
        kernels=sum(len(one.executable.program.launches) for one in programs),
        externs=dict(calls),
        seconds=dict(seconds),
    )


def extern_name(call: Extern) -> str:
    """The operator that PyTorch runs."""
    return str(call.attrs.get("target", call.op))
