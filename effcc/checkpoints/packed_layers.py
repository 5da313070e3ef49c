"""How GPTQ, AWQ, compressed-tensors and bitsandbytes lay out a linear layer in a checkpoint, as integers and scales.

    GPTQ                 qweight[K*b/32, N], along K; qzeros[G, N*b/32]; scales[G, N]; g_idx[K] says each column's group
    AWQ                  qweight[K, N*4/32], along N in the order 0 2 4 6 1 3 5 7; qzeros likewise; scales[G, N]
    compressed-tensors   weight_packed[N, K*b/32], codes moved up by 2^(b-1); weight_scale[N, G]; weight_zero_point
    bitsandbytes         weight[N*K/2], high half first; absmax of blocks of 64, itself coded in double quantization

Each becomes codes[N, K], a scale for each group of columns, and a zero point where there are any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.checkpoints.bitsandbytes_weights import blocks_of_codes
from effcc.checkpoints.weights import Factors, Parts
from effcc.errors import CheckpointError

Array = Any
Tensors = Mapping[str, Array]
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word each of eight neighbours stands."""


@dataclass(frozen=True)
class Layer:
    """A weight as found: its shape, notation and integers. `order[i]` is the column that stored column i is; None where
    columns lie as they are multiplied."""

    shape: tuple[int, int]
    encoding: str
    parts: Parts
    order: Array | None = None


def words_apart(words: Array, bits: int, count: int) -> Array:
    """Integers of `bits` bits that follow each other without gaps in 32-bit words of the last axis, low bits first.

    The first `count` of each row: [..., count].
    """
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    if stream.shape[-1] < count * bits:
        raise CheckpointError(f"{count} integers of {bits} bits need {count * bits} bits a row, got {stream.shape[-1]}")
    parts = stream[..., : count * bits].reshape(*stream.shape[:-1], count, bits)
    return np.packbits(parts, axis=-1, bitorder="little")[..., 0]


def gptq(tensors: Tensors, settings: Mapping[str, Any]) -> Layer:
    """A layer of GPTQ; `settings` are bits, group_size, sym, and checkpoint_format: the first stores zeros less 1."""
    bits = int(settings["bits"])
    scales, g_idx = tensors["scales"], tensors.get("g_idx")
    groups, n = scales.shape
    k = tensors["qweight"].shape[0] * 32 // bits if g_idx is None else len(g_idx)
    codes = words_apart(tensors["qweight"].T, bits, k)
    zeros = words_apart(tensors["qzeros"], bits, n).astype(np.int16)
    if settings.get("checkpoint_format", "gptq") != "gptq_v2":
        zeros = zeros + 1 & (1 << bits) - 1
    group = int(settings.get("group_size", -1))
    group = k if group == -1 else group
    order = None if g_idx is None else _order(g_idx, group, groups)
    encoding, parts = _from_zero(bits, group, k, codes if order is None else codes[:, order], scales.T, zeros.T)
    return Layer((n, k), encoding, parts, order)


def _order(g_idx: Array, group: int, groups: int) -> Array | None:
    """The columns group by group, those of one in their order; None where they lie so (without act-order)."""
    k = len(g_idx)
    order = np.argsort(g_idx, kind="stable").astype(np.int32)
    if not np.array_equal(g_idx[order], np.arange(k) // group):
        raise CheckpointError(f"g_idx puts other than {group} columns into each of {groups} groups")
    return None if np.array_equal(order, np.arange(k)) else order


def awq(tensors: Tensors, settings: Mapping[str, Any]) -> Layer:
    """A layer of AWQ in its `gemm` layout; `settings` are bits (4) and group_size."""
    bits = int(settings["bits"])
    if bits != 4 or settings.get("version", "gemm") != "gemm":
        raise CheckpointError(f"AWQ of {bits} bits, version {settings.get('version')}; known is 4 bits, gemm")
    k, n = tensors["qweight"].shape[0], tensors["scales"].shape[1]
    codes, zeros = (_eight_apart(tensors[name], n) for name in ("qweight", "qzeros"))
    group = int(settings.get("group_size", -1))
    encoding, parts = _from_zero(4, k if group == -1 else group, k, codes.T, tensors["scales"].T, zeros.T)
    return Layer((n, k), encoding, parts)


def _eight_apart(words: Array, count: int) -> Array:
    apart = words_apart(words, 4, words.shape[1] * 8).reshape(words.shape[0], -1, 8)
    return apart[..., AWQ_ORDER].reshape(words.shape[0], -1)[:, :count]


def compressed(tensors: Tensors, settings: Mapping[str, Any]) -> Layer:
    """A layer of compressed-tensors; `settings` are its `weights` arguments (num_bits, type, strategy, group_size)."""
    bits, kind, strategy = (settings[name] for name in ("num_bits", "type", "strategy"))
    scale = tensors["weight_scale"]
    if strategy not in ("tensor", "channel", "group"):
        raise CheckpointError(f"scales are shared by the strategy {strategy!r}; known are tensor, channel and group")
    if "weight_g_idx" in tensors:
        raise CheckpointError("columns are in the order of weight_g_idx, which is not known here")
    packed = tensors.get("weight_packed")
    shape = tuple(int(s) for s in tensors["weight_shape"]) if packed is not None else tensors["weight"].shape
    n, k = shape
    sharing = {"tensor": 'per="tensor"', "channel": 'per="channel"'}.get(strategy, f"group={settings['group_size']}")
    shared = scale if strategy == "group" else scale.reshape(-1)
    if kind == "float":
        if packed is not None or bits != 8:
            raise CheckpointError(f"packed floats of {bits} bits are not known")
        encoding = f'fp8("e4m3",{sharing},scale="{_name(scale)}")'
        return Layer((n, k), encoding, Parts(tensors["weight"].view(np.uint8), Factors(shared)))
    half = 1 << (bits - 1)
    codes = tensors["weight"].astype(np.int16) + half if packed is None else words_apart(packed, bits, k)
    zero = tensors.get("weight_zero_point")
    if zero is None:
        encoding = f'int{bits}({sharing},scale="{_name(scale)}")'
        return Layer((n, k), encoding, Parts(codes.astype(np.int16) - half, Factors(shared)))
    if packed is not None and strategy != "tensor":
        zero = words_apart(zero.T, bits, n).T
    else:
        zero = zero.astype(np.int16) + half
    encoding = f'int{bits}({sharing},zero=true,scale="{_name(scale)}")'
    zero = zero if strategy == "group" else zero.reshape(-1)
    return Layer((n, k), encoding, Parts(codes, Factors(shared), zero=zero))


def bitsandbytes4(tensors: Tensors, shape: Sequence[int]) -> Layer:
    """A layer of bitsandbytes in 4 bits: `weight`, `absmax`, `quant_map`, and what nested scales need.

    `quant_state` is the JSON that stands beside them.
    """
    n, k = shape
    state = json.loads(bytes(tensors["quant_state"]))
    scale = tensors["absmax"]
    if "nested_absmax" in tensors:
        over = np.repeat(tensors["nested_absmax"], int(state["nested_blocksize"]))[: len(scale)]
        scale = tensors["nested_quant_map"][scale] * over + np.float32(state["nested_offset"])
    block = int(state["blocksize"])
    encoding, parts = blocks_of_codes(tensors["weight"], scale, tensors["quant_map"], block, (n, k))
    return Layer((n, k), encoding, parts)


def _from_zero(bits: int, group: int, k: int, codes: Array, scales: Array, zeros: Array) -> tuple[str, Parts]:
    """Codes from 0 on; without zero points where all of them are the middle, which codes of a sign count from."""
    half = 1 << (bits - 1)
    sharing = f"group={group}" if group < k else 'per="channel"'
    shared, zero = (a if group < k else a.reshape(-1) for a in (scales, zeros))
    scale = Factors(np.ascontiguousarray(shared))
    if (zero == half).all():
        return f'int{bits}({sharing},scale="{_name(scales)}")', Parts(codes.astype(np.int16) - half, scale)
    return f'int{bits}({sharing},zero=true,scale="{_name(scales)}")', Parts(codes, scale, zero=zero)


def _name(scales: Array) -> str:
    return {"float16": "f16", "bfloat16": "bf16", "float32": "f32"}[scales.dtype.name]
