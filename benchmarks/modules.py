"""What surrounds the zoo's networks: weights under which activations keep their scale, modules that return tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def initialise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every weight of `model` from N(0, 1/fan_in), biases from N(0, 0.01), norm gains from N(1, 0.01).

    Raw parameters outside the layers named here (Mamba's `A_log` and `D`, class tokens) keep what the model gave them.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor | None, std: float, mean: float = 0.0) -> None:
        if tensor is not None:
            with torch.no_grad():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding):
            draw(module.weight, 1.0 / math.sqrt(module.weight[0].numel()))
            draw(getattr(module, "bias", None), 0.1)
        elif type(module).__name__ == "Conv1D":  # transformers' GPT-2 stores its linear weights transposed
            draw(module.weight, 1.0 / math.sqrt(module.weight.shape[0]))  # type: ignore[arg-type, index]
            draw(module.bias, 0.1)  # type: ignore[arg-type]
        elif isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters(recurse=False):
                draw(parameter, 1.0 / math.sqrt(parameter.shape[-1]) if name.startswith("weight") else 0.1)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d | nn.GroupNorm) or "RMSNorm" in type(module).__name__:
            draw(module.weight, 0.1, mean=1.0)  # type: ignore[arg-type]
            draw(getattr(module, "bias", None), 0.1)
        layer_scale = getattr(module, "layer_scale_parameter", None)
        if isinstance(layer_scale, nn.Parameter):  # ConvNeXt starts at 1e-6, under which a block does nothing
            draw(layer_scale, 0.1, mean=1.0)
    return model


def calibrate_batch_norms(model: nn.Module, *inputs: Tensor) -> nn.Module:
    """Set running means and variances to those of one batch, as training would have left them."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average: after one batch, that batch's own statistics
    model.train()
    with torch.no_grad():
        model(*inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


class HiddenStates(nn.Module):
    """A transformers model from token ids (and mask) to its last hidden state."""

    def __init__(self, model: nn.Module, **options: object) -> None:
        super().__init__()
        self.model, self.options = model, options

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, **self.options).last_hidden_state


class Logits(nn.Module):
    """A transformers classifier from pixels to its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits


class SentenceEncoder(nn.Module):
    """A BERT whose token vectors are averaged under the mask and scaled to length 1, as sentence-transformers does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=-1)


class NextToken(nn.Module):
    """A decoder from prompt ids to the logits of the token that follows (prefill)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, use_cache=False, logits_to_keep=1).logits


class DecodeStep(nn.Module):
    """A decoder from one token to the logits of the next, over a key-value cache that already holds `filled` tokens.

    The cache's tensors are buffers of the module and are written in place at `position`, so that calling twice with the
    same arguments gives the same result.
    """

    def __init__(self, model: nn.Module, layers: int, heads: int, head_dim: int, length: int, filled: int) -> None:
        super().__init__()
        self.model, self.layers = model, layers
        generator = torch.Generator().manual_seed(1)
        live = (torch.arange(length) < filled).view(1, 1, length, 1)
        for layer in range(layers):
            for kind in ("keys", "values"):
                cache = torch.randn(1, heads, length, head_dim, generator=generator) * live
                self.register_buffer(f"{kind}_{layer}", cache, persistent=False)

    def forward(self, input_ids: Tensor, position: Tensor) -> Tensor:
        caches = [(getattr(self, f"keys_{i}"), getattr(self, f"values_{i}")) for i in range(self.layers)]
        mask = torch.arange(caches[0][0].shape[2])[None, None, None, :] <= position
        output = self.model(
            input_ids=input_ids,
            position_ids=position[None, :],
            attention_mask=mask,
            past_key_values=InPlaceCache(caches, position),
            use_cache=True,
        )
        return output.logits


class InPlaceCache:
    """The part of transformers' cache interface that a decoder calls, over tensors that somebody else owns."""

    is_compileable = True

    def __init__(self, caches: list[tuple[Tensor, Tensor]], position: Tensor) -> None:
        self.caches, self.position = caches, position

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        stored_keys, stored_values = self.caches[layer]
        stored_keys.index_copy_(2, self.position, keys)
        stored_values.index_copy_(2, self.position, values)
        return stored_keys, stored_values

    def get_seq_length(self, layer: int = 0) -> Tensor:
        return self.position[0]


class Recurrence(nn.Module):
    """An LSTM from a sequence to its outputs and final states."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, size, layers, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x)
        return y, h, c
