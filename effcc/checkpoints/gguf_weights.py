"""Tensors of GGUF files as stored weights, and as numbers."""

from __future__ import annotations

from typing import Any

from effcc.checkpoints.gguf_blocks import FORMATS, unpack
from effcc.checkpoints.gguf_file import GgufTensor
from effcc.checkpoints.weights import assemble
from effcc.compression.install import Stored
from effcc.errors import CheckpointError
from effcc.ir.dtypes import f32
from effcc.ir.encodings import storage
from effcc.ir.parser import encoding_of

Array = Any
PLAIN = {"F32": ("<f4", "dense"), "F16": ("<f2", "f16"), "BF16": ("<u2", "bf16")}
"""The types whose elements are numbers as they are."""


def stored_tensor(tensor: GgufTensor, order: Array) -> Stored:
    """A matrix of the file as an encoded weight in f32; row i is row `order[i]` of the tensor.

    Raises CheckpointError for types that are not known.
    """
    rows = tensor.blocks[order]
    if tensor.type in PLAIN:
        made = storage(encoding_of(PLAIN[tensor.type][1]), tensor.shape, f32)
        return Stored(made, [rows.view(made.components[0].type.dtype.numpy)])
    encoding, parts = unpack(GgufTensor(tensor.name, tensor.type, tensor.shape, rows))
    return assemble(encoding, tensor.shape, parts, f32)


def decoded_tensor(tensor: GgufTensor) -> Array:
    """A tensor's numbers in f32. Raises CheckpointError for types that are not known."""
    from gguf import GGMLQuantizationType, dequantize

    if tensor.type not in PLAIN and tensor.type not in FORMATS:
        raise CheckpointError(
            f"tensor {tensor.name} is stored as {tensor.type}; known are {', '.join((*PLAIN, *FORMATS))}"
        )
    return dequantize(tensor.blocks, GGMLQuantizationType[tensor.type]).reshape(tensor.shape)
