"""Inputs by formula: a shape, a dtype, the kind of numbers, and how they lie in memory.

    x = tensor((3, 5), torch.float32, "vast", 7)                  # magnitudes 1e-45 to 1e38
    y = laid(tensor((3, 5), torch.uint8, "full", 8), "transposed")

Scripts of failures import this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

LAYOUTS = ("transposed", "offset", "stepped", "expanded", "channels_last", "tail")


def tensor(shape: Sequence[int], dtype: torch.dtype, kind: str = "normal", seed: int = 0) -> Tensor:
    """Numbers of a kind, the same for the same seed; kinds are those of `FLOATS`, `INTEGERS` and `BOOLS`."""
    generator = Generator().manual_seed(seed)
    count = math.prod(shape)
    if dtype == torch.bool:
        return BOOLS[kind](count, generator).reshape(tuple(shape))
    if dtype.is_floating_point:
        return FLOATS[kind](count, generator).to(dtype).reshape(tuple(shape))
    info = torch.iinfo(dtype)
    return INTEGERS[kind](count, generator, info.min, info.max).to(dtype).reshape(tuple(shape))


def indices(shape: Sequence[int], below: int, kind: str = "any", seed: int = 0) -> Tensor:
    """Indices into an axis of `below` elements: `any`, `negative` ones too, `equal` (all one) or `distinct`."""
    generator = Generator().manual_seed(seed)
    count, size = math.prod(shape), max(below, 1)
    found = torch.randint(0, size, (count,), generator=generator)
    if kind == "negative":
        found = found - size * (torch.rand(count, generator=generator) < 0.5)
    elif kind == "equal":
        found = found[:1].expand(count).clone()
    elif kind == "distinct":
        found = torch.randperm(size, generator=generator).repeat(count // size + 1)[:count]
    return found.reshape(tuple(shape))


def indices_beyond(shape: Sequence[int], below: int, kind: str = "any", seed: int = 0) -> Tensor:
    """`indices` of which the last is the first beyond the axis, at one end or the other: eager refuses most."""
    found = indices(shape, below, kind, seed).contiguous()
    found.view(-1)[-1:] = -below - 1 if seed % 3 == 0 else below
    return found


def laid(given: Tensor, how: str) -> Tensor:
    """The same numbers in other memory: `transposed`, at an `offset`, each second element (`stepped`), every element
    of an axis the same one (`expanded`: numbers change), `channels_last`, or the `tail` of longer rows."""
    shape = given.shape
    if how == "transposed" and given.dim() > 1:
        return given.transpose(0, -1).contiguous().transpose(0, -1)
    if how == "offset":
        whole = torch.zeros(given.numel() + 5, dtype=given.dtype)
        return whole[3 : 3 + given.numel()].view(shape).copy_(given)
    if how == "stepped" and given.dim():
        return given.new_zeros((*shape[:-1], 2 * shape[-1]))[..., ::2].copy_(given)
    if how == "tail" and given.dim():
        return given.new_zeros((*shape[:-1], shape[-1] + 3))[..., 3:].copy_(given)
    if how == "expanded" and given.dim() and shape[0]:
        return given[:1].clone().expand(shape)
    if how == "channels_last" and given.dim() == 4:
        return given.contiguous(memory_format=torch.channels_last)
    return given


def _normal(count: int, generator: Generator) -> Tensor:
    return torch.randn(count, generator=generator, dtype=torch.float64)


def _uniform(count: int, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _sign(count: int, generator: Generator) -> Tensor:
    return torch.randint(0, 2, (count,), generator=generator).double() * 2 - 1


def _chosen(among: Sequence[float], count: int, generator: Generator) -> Tensor:
    return torch.tensor(among, dtype=torch.float64)[torch.randint(0, len(among), (count,), generator=generator)]


def _vast(count: int, generator: Generator) -> Tensor:
    return _sign(count, generator) * 10.0 ** (_uniform(count, generator) * 83 - 45)


def _near(count: int, generator: Generator) -> Tensor:
    return _sign(count, generator) * (
        _chosen((2.0**24, 2.0**31, 2.0**11, 65504.0, 255.0), count, generator)
        + _chosen((-2, -1, -0.5, 0, 0.5, 1, 2, 3), count, generator)
    )


def _special(count: int, generator: Generator) -> Tensor:
    odd = _chosen((math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 6e-8, 3e38), count, generator)
    return torch.where(_uniform(count, generator) < 0.3, odd, _normal(count, generator))


def _flat(count: int, generator: Generator) -> Tensor:
    """Three stretches of equal numbers: deviations of 0, ties of maxima."""
    return _normal(3, generator).repeat_interleave(count // 3 + 1)[:count]


FLOATS: dict[str, Callable[[int, Generator], Tensor]] = {
    "normal": _normal,
    "positive": lambda n, g: _uniform(n, g) * 2 + 0.01,
    "whole": lambda n, g: torch.randint(-3, 4, (n,), generator=g).double(),
    "halves": lambda n, g: torch.randint(-5, 6, (n,), generator=g).double() / 2,
    "large": lambda n, g: _normal(n, g) * 1e4,
    "near": _near,
    "vast": _vast,
    "special": _special,
    "flat": _flat,
    "zeros": lambda n, g: _chosen((0.0, -0.0, 1.0, -1.0), n, g),
}


def _full(count: int, generator: Generator, least: int, most: int) -> Tensor:
    wide = torch.randint(-(2**62), 2**62, (count,), generator=generator) * 2
    return wide if most >= 2**62 else wide.remainder(most - least + 1) + least


def _extreme(count: int, generator: Generator, least: int, most: int) -> Tensor:
    edges = [least, least + 1, -1, 0, 1, most - 1, most, 2**24 + 1, 2**31 - 1, -(2**31)]
    fitting = torch.tensor([e for e in edges if least <= e <= most])
    return fitting[torch.randint(0, len(fitting), (count,), generator=generator)]


INTEGERS: dict[str, Callable[[int, Generator, int, int], Tensor]] = {
    "normal": lambda n, g, a, b: torch.randint(max(a, -9), 10, (n,), generator=g),
    "positive": lambda n, g, a, b: torch.randint(1, 10, (n,), generator=g),
    "whole": lambda n, g, a, b: torch.randint(max(a, -1), 3, (n,), generator=g),
    "full": _full,
    "extreme": _extreme,
}

BOOLS: dict[str, Callable[[int, Generator], Tensor]] = {
    "normal": lambda n, g: _uniform(n, g) < 0.5,
    "seldom": lambda n, g: _uniform(n, g) < 0.1,
    "none": lambda n, g: torch.zeros(n, dtype=torch.bool),
    "all": lambda n, g: torch.ones(n, dtype=torch.bool),
}
