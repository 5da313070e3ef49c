"""Sums of bfloat16 bags, whose results capture misjudges.

Where eager adds bags up at once, it leaves `offset2bag` empty, which its backward half then computes again. PyTorch's
description says so of float32 and float16, but of bfloat16 that it has an element for each index. The operator here is
the same call with its results described as they are:

    effcc::embedding_bag_sum(Tensor weight, Tensor indices, Tensor offsets, bool scale_grad_by_freq, bool sparse,
                             Tensor? per_sample_weights, bool include_last_offset) -> Tensor[]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

_SUM = 0


@torch.library.custom_op("effcc::embedding_bag_sum", mutates_args=())
def embedding_bag_sum(
    weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool, sparse: bool,
    per_sample_weights: Tensor | None, include_last_offset: bool,
) -> list[Tensor]:  # fmt: skip
    """The results of `aten::_embedding_bag` that sums: the bags, offset2bag, their sizes, indices of maxima."""
    return list(
        aten._embedding_bag.default(
            weight, indices, offsets, scale_grad_by_freq, _SUM, sparse, per_sample_weights, include_last_offset
        )
    )


@embedding_bag_sum.register_fake
def _(
    weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool, sparse: bool,
    per_sample_weights: Tensor | None, include_last_offset: bool,
) -> list[Tensor]:  # fmt: skip
    bags = offsets.shape[0] - include_last_offset
    return [
        weight.new_empty(bags, weight.shape[1]), offsets.new_empty(0), offsets.new_empty(bags), offsets.new_empty(bags),
    ]  # fmt: skip


def embedding_bag(
    weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool = False, mode: int = _SUM,
    sparse: bool = False, per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:  # fmt: skip
    """`aten::_embedding_bag`, where its description is wrong; it stays whole elsewhere."""
    at_once = mode == _SUM and padding_idx < 0 and weight.stride(1) == 1
    if (
        weight.dtype != torch.bfloat16
        or not at_once
        or (per_sample_weights is not None and per_sample_weights.stride(0) != 1)
    ):
        return NotImplemented
    return tuple(
        embedding_bag_sum(weight, indices, offsets, scale_grad_by_freq, sparse, per_sample_weights, include_last_offset)
    )
