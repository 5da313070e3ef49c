"""bitsandbytes' layers: `Linear8bitLt`, `Linear4bit` and its kin.

Linear8bitLt        CB[N, K] bytes, SCB[N]: v = CB * (SCB / 127)
Linear4bit          two codes to a byte, high half first, in blocks of 64 along rows; the largest magnitude of a
                    block is f32, or (double quantization) itself a code of an 8-bit table, times a number that 256
                    share, plus an offset
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from effcc.checkpoints.weights import Factors, Parts, assemble
from effcc.compression.install import Stored
from effcc.errors import CheckpointError
from effcc.frontend.decode import to_numpy
from effcc.frontend.importer import dtype_of

Array = Any


def is_bitsandbytes(module: nn.Module) -> bool:
    """Whether a module's class is one of bitsandbytes'."""
    return type(module).__module__.startswith("bitsandbytes.")


def changes_inputs(module: nn.Module) -> str:
    """How a module changes its input before it multiplies; empty where it does not."""
    return "LLM.int8() rounds inputs to 8 bits" if type(module).__name__ == "Linear8bitLt" else ""


def take_bitsandbytes(module: nn.Module) -> Stored:
    """The module's weight as components: of the same codes and scales.

    Raises CheckpointError for a class that is not known, or a weight that is not quantized (it is at `.to(device)`).
    """
    match type(module).__name__:
        case "Linear8bitLt":
            return _int8(module)
        case "Linear4bit" | "LinearNF4" | "LinearFP4":
            return _four_bits(module)
    raise CheckpointError(
        f"it is a {type(module).__name__} of bitsandbytes; known are Linear8bitLt, Linear4bit, LinearNF4, LinearFP4"
    )


def _int8(module: Any) -> Stored:
    held, state = module.weight, module.state
    codes, scale = (held.CB, held.SCB) if getattr(held, "CB", None) is not None else (state.CB, state.SCB)
    if codes is None or scale is None:
        raise CheckpointError('its weight is not quantized yet; bitsandbytes does that at `.to("cpu")`')
    # bitsandbytes multiplies by SCB and by 1/127, one after the other; here they are one factor.
    factor = (scale.to(torch.float64) / 127).to(torch.float32)
    return assemble(
        'int8(per="channel",scale="f32")', codes.shape, Parts(to_numpy(codes), Factors(to_numpy(factor))),
        dtype_of(_dtype(module)),
    )  # fmt: skip


def _dtype(module: Any) -> torch.dtype:
    return module.bias.dtype if module.bias is not None else torch.float32


def _four_bits(module: Any) -> Stored:
    state = module.weight.quant_state
    if state is None:
        raise CheckpointError('its weight is not quantized yet; bitsandbytes does that at `.to("cpu")`')
    n, k = state.shape
    scale = to_numpy(state.absmax)
    if state.nested:
        over = np.repeat(to_numpy(state.state2.absmax), state.state2.blocksize)[: len(scale)]
        scale = to_numpy(state.state2.code)[scale] * over + np.float32(state.offset)
    packed = to_numpy(module.weight.data.contiguous().view(torch.uint8))
    encoding, parts = blocks_of_codes(packed, scale.astype(np.float32), to_numpy(state.code), state.blocksize, (n, k))
    return assemble(encoding, (n, k), parts, dtype_of(state.dtype))


def blocks_of_codes(packed: Array, scale: Array, table: Array, block: int, shape: tuple[int, int]) -> tuple[str, Parts]:
    """Codes of 4 bits, two to a byte, the first in the high half, with a scale for each block of a matrix's elements.

    Raises CheckpointError where blocks cross rows.
    """
    n, k = shape
    if k % block:
        raise CheckpointError(f"blocks of {block} elements cross rows of {k}; known are blocks inside a row")
    flat = packed.reshape(-1)
    codes = np.stack([flat >> 4, flat & 15], axis=-1).reshape(-1)[: n * k]
    encoding = f'codebook(bits=4,group={block},scale="f32")'
    return encoding, Parts(codes, Factors(scale.reshape(n, k // block)), table=table.astype(np.float32))
