"""Tiny GGUF files: a random transformers model, written as llama.cpp's converter writes such models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, dequantize, get_tensor_name_map, quantize
from gguf.constants import MODEL_ARCH_NAMES
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

Array = Any
WRITABLE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
"""The types that the package gguf can make of numbers; blocks of the others are drawn."""


def random_model(kind: str, **sizes: Any) -> nn.Module:
    """A random model of transformers' `kind`, of which no parameter is 0 or 1 throughout."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **copy.deepcopy(sizes))  # which it may change
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def blocks_of(weight: Array, type_: str, rng: np.random.Generator) -> Array:
    """A weight as rows of blocks; drawn where gguf cannot quantize to the type, with scales that are small numbers."""
    kind = GGMLQuantizationType[type_]
    if type_ in WRITABLE:
        return quantize(weight, kind)
    return drawn_blocks(type_, weight.shape[0], weight.shape[1], rng)


def drawn_blocks(type_: str, rows: int, columns: int, rng: np.random.Generator) -> Array:
    """Rows of blocks of random bytes, whose half-precision factors are numbers of a weight's magnitude."""
    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_]]
    blocks = rng.integers(0, 256, (rows, columns // elements, size), dtype=np.uint8)
    places = {"Q6_K": [208], "Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2]}.get(type_, [0])
    for place in places:
        factors = (rng.uniform(-1, 1, blocks.shape[:2]) * 1e-3).astype(np.float16)
        blocks[..., place : place + 2] = factors[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


def turned(rows: Array, heads: int) -> Array:
    """Rows of a query or key projection in llama.cpp's order: the halves of each head interleaved."""
    apart = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return apart.swapaxes(1, 2).reshape(rows.shape)


def write(
    path: Path,
    model: nn.Module,
    architecture: str,
    types: Callable[[str], str] = lambda name: "F32",
    change: Callable[[str, Array], Array] = lambda name, weight: weight,
    entries: Mapping[str, Any] = MappingProxyType({}),
    extra: Mapping[str, Array] = MappingProxyType({}),
    without: str = "",
) -> nn.Module:
    """Write `model` to a file; returns it with the numbers that the file holds.

    types: the type of each tensor with two axes, by the tensor's name. change: a weight as the converter changes it; it
    moves rows only where a tensor is stored as blocks. extra: tensors beside the model's; without: the one left out.
    """
    config, rng = model.config, np.random.default_rng(0)
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_token_list([f"token{i}" for i in range(config.vocab_size)])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in entries.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](f"{architecture}.{key}", value)
    number = {name: number for number, name in MODEL_ARCH_NAMES.items()}[architecture]
    names = get_tensor_name_map(number, config.num_hidden_layers)
    tied = config.tie_word_embeddings
    for name, parameter in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        stem, _, leaf = name.rpartition(".")
        tensor = f"{names.get_name(stem)}.{leaf}"
        if tensor == without:
            continue
        rows = change(tensor, np.arange(len(parameter))[:, None])
        type_ = types(tensor) if parameter.ndim == 2 else "F32"
        if type_ == "F32":
            writer.add_tensor(tensor, change(tensor, parameter.numpy()))
            continue
        blocks = blocks_of(parameter.numpy(), type_, rng)
        kind = GGMLQuantizationType[type_]
        parameter.copy_(torch.from_numpy(dequantize(blocks, kind).reshape(parameter.shape)))
        writer.add_tensor(tensor, np.ascontiguousarray(blocks[rows[:, 0]]), raw_dtype=kind)
    for name, tensor in extra.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model
