"""PyTorch's fused encoder layer, taken apart.

In eval mode `nn.TransformerEncoderLayer` calls one operator, for which core ATen has no decomposition.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def encoder_layer(
    x: Tensor, width: int, heads: int, qkv_weight: Tensor, qkv_bias: Tensor, out_weight: Tensor, out_bias: Tensor,
    gelu: bool, norm_first: bool, eps: float, norm_weight_1: Tensor, norm_bias_1: Tensor, norm_weight_2: Tensor,
    norm_bias_2: Tensor, ffn_weight_1: Tensor, ffn_bias_1: Tensor, ffn_weight_2: Tensor, ffn_bias_2: Tensor,
    mask: Tensor | None = None, mask_type: int | None = None,
) -> Any:  # fmt: skip
    """`aten::_transformer_encoder_layer_fwd` without a mask; with one it stays whole."""
    if mask is not None:
        return NotImplemented

    def attend(y: Tensor) -> Tensor:
        batch, length, _ = y.shape
        split = F.linear(y, qkv_weight, qkv_bias).view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(split[0], split[1], split[2])
        return F.linear(seen.transpose(1, 2).reshape(batch, length, width), out_weight, out_bias)

    def feed_forward(y: Tensor) -> Tensor:
        inner = F.linear(y, ffn_weight_1, ffn_bias_1)
        return F.linear(F.gelu(inner) if gelu else torch.relu(inner), ffn_weight_2, ffn_bias_2)

    def first(y: Tensor) -> Tensor:
        return F.layer_norm(y, (width,), norm_weight_1, norm_bias_1, eps)

    def second(y: Tensor) -> Tensor:
        return F.layer_norm(y, (width,), norm_weight_2, norm_bias_2, eps)

    if norm_first:
        x = x + attend(first(x))
        return x + feed_forward(second(x))
    x = first(x + attend(x))
    return second(x + feed_forward(x))
