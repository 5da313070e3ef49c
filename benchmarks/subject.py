"""What the benchmarks ask a program that effcc compiled, beyond running it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class ProgramStats:
    """Sizes and contents of a compiled program.

    arena_bytes: the workspace of one call.
    live_bytes: the largest sum of intermediates alive at once, which no placement can undercut.
    kernels: launches in one call.
    externs: what PyTorch runs, by operator.
    """

    arena_bytes: int
    live_bytes: int
    kernels: int
    externs: Mapping[str, int]


def stats(compiled: Callable[..., Any]) -> ProgramStats | None:
    """Ask `effcc.stats` about a callable that torch.compile gave; None where effcc does not answer yet."""
    import effcc

    ask = getattr(effcc, "stats", None)
    if ask is None:
        return None
    answer = ask(compiled)
    return ProgramStats(answer.arena_bytes, answer.live_bytes, answer.kernels, dict(answer.externs))
