"""Reflected and replicated borders: concatenations of what lies at the ends, axis by axis.

    x: [..., n], padding (low, high)
    reflected     cat(flip(x[1 : low + 1]), x, flip(x[n - 1 - high : n - 1]))
    replicated    cat(x[0] low times, x, x[n - 1] high times)

PyTorch's own decompositions compute an index for every element and gather; of a concatenation all lanes but those at a
border read neighbours, whether sizes are known or not. A negative padding cuts elements off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

aten = torch.ops.aten

Border = Callable[[Tensor, int, int, bool], Tensor]
"""Of a tensor, along an axis, so many elements, at the axis's end or at its begin."""


def _reflection(x: Tensor, axis: int, count: int, at_end: bool) -> Tensor:
    return x.narrow(axis, x.shape[axis] - 1 - count if at_end else 1, count).flip(axis)


def _replication(x: Tensor, axis: int, count: int, at_end: bool) -> Tensor:
    shape = list(x.shape)
    shape[axis] = count
    return x.narrow(axis, x.shape[axis] - 1 if at_end else 0, 1).expand(shape)


def _bordered(border: Border) -> Callable[[Tensor, Sequence[int]], Tensor]:
    def pad(x: Tensor, padding: Sequence[int]) -> Tensor:
        """`padding`: low and high of the last axis, then of the one before it, and so on. Strides are eager's."""
        result = x
        for k in range(len(padding) // 2):
            axis, low, high = x.dim() - 1 - k, padding[2 * k], padding[2 * k + 1]
            cut_low, cut_high = max(-low, 0), max(-high, 0)
            before = [border(result, axis, low, False)] if low > 0 else []
            after = [border(result, axis, high, True)] if high > 0 else []
            if cut_low or cut_high:
                result = result.narrow(axis, cut_low, result.shape[axis] - cut_low - cut_high)
            if before or after:
                result = torch.cat([*before, result, *after], axis)
        return result.clone(memory_format=suggest_memory_format(x))

    return pad


def border_decompositions() -> dict[Any, Callable[..., Tensor]]:
    """Overload -> how to write it."""
    reflected, replicated = _bordered(_reflection), _bordered(_replication)
    return {
        **{getattr(aten, f"reflection_pad{n}d").default: reflected for n in (1, 2, 3)},
        **{getattr(aten, f"replication_pad{n}d").default: replicated for n in (1, 2, 3)},
    }


__all__ = ["border_decompositions"]
