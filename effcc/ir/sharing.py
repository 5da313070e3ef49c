"""What threads of a team do once for all: a function all of whose work is shared out asks none of them to have come."""

from __future__ import annotations

from effcc.ir.vectors import (
    Barrier,
    Branch,
    Check,
    FirstThread,
    Function,
    Line,
    Load,
    Share,
    Store,
    StoreRows,
    TileLoad,
    TileStore,
    Value,
    bodies,
    parts,
)  # fmt: skip


def is_all_shared(function: Function) -> bool:
    """Whether nothing touches memory but what some thread of the team does for all: a share, or what stands in
    `if first`. A thread that comes when all is done then passes through, whatever is in the buffers by then."""
    if function.first_only:
        return not any(isinstance(line, Barrier) for line in function.lines)
    return _is_shared(function.body)


def _is_shared(body: tuple[Line, ...]) -> bool:
    for line in body:
        match line:
            case Store() | StoreRows() | TileStore() | Check():
                return False
            case Share(_, count):
                if _reads(count):
                    return False
            case Branch(FirstThread(), _, ()):
                pass
            case _:
                if any(map(_reads, parts(line))) or not all(map(_is_shared, bodies(line))):
                    return False
    return True


def _reads(value: Value) -> bool:
    return isinstance(value, Load | TileLoad | FirstThread) or any(map(_reads, parts(value)))


__all__ = ["is_all_shared"]
