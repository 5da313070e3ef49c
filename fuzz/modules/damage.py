"""Components damaged after the fact: what a file says, or a stray write left. No read may leave its buffer by that."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from effcc.compression.modules import EncodedModule

TIMES = 3
HOSTILE = (-(2**31), -1, 2**31 - 1, 2**30, 7919, 0)


def damaged(model: nn.Module, seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Some components one after the other: name, tensor (now damaged), and what it was, to be put back."""
    random = Random(seed)
    parts = [
        (f"{m.encoding}: {name}", getattr(m, name))
        for m in model.modules()
        if isinstance(m, EncodedModule)
        for name in m.weight_components
    ]
    indices = [p for p in parts if not p[1].is_floating_point()]
    for _ in range(TIMES):
        name, tensor = random.choice(indices if indices and random.random() < 0.8 else parts)
        before = tensor.detach().clone()
        _harm(tensor, random)
        yield name, tensor, before


def _harm(tensor: Tensor, random: Random) -> None:
    """Write what does not belong there: everywhere, or in one place."""
    flat: Any = tensor.detach().view(-1)
    with torch.no_grad():
        if tensor.is_floating_point():
            flat[random.randrange(flat.numel())] = random.choice((float("nan"), float("inf"), -1e38, 0.0))
        elif tensor.dtype == torch.int32:
            value = random.choice(HOSTILE)
            if random.random() < 0.5:
                flat.fill_(value)
            else:
                flat[random.randrange(flat.numel())] = value
        else:
            flat.copy_(torch.randint(0, 256, flat.shape).to(torch.uint8).view(tensor.dtype))
