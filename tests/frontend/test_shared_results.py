"""Random programs of views and updates, whose results are then written: each write reaches what eager lets it reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest
import torch
from torch import Tensor

Step = tuple[str, int]
"""An operation by name, and which of the tensors so far it is applied to."""

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "first": lambda t: t[0] if t.dim() > 1 else t,
    "last": lambda t: t[t.shape[0] - 1] if t.dim() > 1 else t,
    "rest": lambda t: t[1:] if t.shape[0] > 2 else t.detach(),
    "every second": lambda t: t[::2],
    "half": lambda t: t.chunk(2)[-1] if t.shape[0] > 3 else t.unsqueeze(0),
    "last axis": lambda t: t[..., 1:] if t.shape[-1] > 2 else t.unsqueeze(-1),
    "swapped": lambda t: t.transpose(0, -1),
    "flat": lambda t: t.flatten(),
    "windows": lambda t: t.unfold(0, 2, 1) if t.shape[0] > 2 else t,
    "spread": lambda t: t.unsqueeze(0).expand(2, *t.shape),
    "diagonal": lambda t: t.diagonal() if t.dim() == 2 else t,
}
VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "twice": lambda t: t * 2,
    "sine": lambda t: t.sin(),
    "clone": lambda t: t.clone(),
    "sum": lambda t: t.cumsum(0),
}
UPDATES: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda t: t.add_(1),
    "scale": lambda t: t.mul_(0.5),
    "zero a row": lambda t: t[0].zero_() if t.dim() > 1 else t.zero_(),
}


def _draw(random: Random, steps: int) -> list[Step]:
    kinds = random.choices([VIEWS, VALUES, UPDATES], [6, 2, 2], k=steps)
    return [(random.choice(list(kind)), random.randrange(2 + n)) for n, kind in enumerate(kinds)]


def _program(steps: Sequence[Step]) -> Callable[..., list[Tensor]]:
    def run(x: Tensor, y: Tensor) -> list[Tensor]:
        tensors = [x, y * 3]
        for name, which in steps:
            of = tensors[which]
            if name in UPDATES:  # which eager refuses where elements share memory
                if 0 not in of.stride() and not any(s == "windows" for s, _ in steps):
                    UPDATES[name](of)
                tensors.append(of)
            else:
                tensors.append({**VIEWS, **VALUES}[name](of))
        return tensors[1:]

    return run


def _is_writable(t: Tensor) -> bool:
    """Whether eager writes it: none of its elements share memory."""
    try:
        t.detach().add_(0)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_writes_reach_what_eager_lets_them_reach(seed: int, dynamic: bool) -> None:
    program = _program(_draw(Random(seed), 9))
    torch.compiler.reset()
    compiled = torch.compile(program, backend="effcc", fullgraph=True, dynamic=dynamic)
    for rows in (6, 8) if dynamic else (6,):
        x, y = torch.randn(rows, 5), torch.randn(rows, 5)
        a, b = [x.clone(), y.clone()], [x.clone(), y.clone()]
        wanted, found = [*a, *program(*a)], [*b, *compiled(*b)]
        assert [t.shape for t in found] == [t.shape for t in wanted]
        for k, (into, also) in enumerate(zip(wanted, found, strict=True)):
            if _is_writable(into):
                into.add_(k + 1)
                also.add_(k + 1)
            torch.testing.assert_close(found, wanted, msg=f"after writing {k}")


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_shuffled_channels_are_new_memory_where_nothing_moves(groups: int) -> None:
    x = torch.randn(2, 4, 3)
    result = torch.compile(lambda x: torch.channel_shuffle(x, groups), backend="effcc")(x)
    assert torch.equal(result, torch.channel_shuffle(x, groups))
    assert result.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
