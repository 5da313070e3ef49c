"""torchao's weights: tensors of its own classes in ordinary modules.

    Int8Tensor, IntxUnpackedToInt8Tensor    (q - z) * s, a byte for each integer of 1 to 8 bits
    Float8Tensor                            q * s, q an 8-bit float

Scales and zero points are shared by blocks of columns, rows, or all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effcc.checkpoints.weights import Factors, Parts, assemble
from effcc.compression.install import Stored
from effcc.errors import CheckpointError
from effcc.frontend.decode import to_numpy
from effcc.frontend.importer import dtype_of

Array = Any
ACTIVATIONS = ("act_quant_kwargs", "act_quant_scale", "act_pre_scale", "activation_quantization")
"""What torchao's tensors do with a layer's input, where it is not None."""
DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


def is_torchao(module: nn.Module) -> bool:
    """Whether a module's weight is a tensor of torchao's."""
    return type(getattr(module, "weight", None)).__module__.startswith("torchao.")


def quantizes_inputs(module: nn.Module) -> str:
    """How torchao changes the input of a module; empty where it does not."""
    found = {name: getattr(module.weight, name, None) for name in ACTIVATIONS}
    return ", ".join(f"{name}={value}" for name, value in found.items() if value is not None)


def take_torchao(module: nn.Module) -> Stored:
    """The module's weight as components: of the same integers, scales and zero points.

    Raises CheckpointError for a class of tensors that is not known, or blocks that are not runs of columns.
    """
    weight: Any = module.weight
    match type(weight).__name__:
        case "Int8Tensor":
            return _integers(weight, 8)
        case "IntxUnpackedToInt8Tensor":
            bits = int(str(weight.target_dtype).removeprefix("torch.int"))
            return _integers(weight, max(bits, 2))
        case "Float8Tensor":
            return _floats(weight)
    known = "Int8Tensor, IntxUnpackedToInt8Tensor, Float8Tensor"
    raise CheckpointError(f"its weight is torchao's {type(weight).__name__}; known are {known}")


def _integers(weight: Any, bits: int) -> Stored:
    codes = to_numpy(weight.qdata)
    zero = None if weight.zero_point is None else weight.zero_point
    if zero is not None and zero.dtype.is_floating_point:
        raise CheckpointError("its zero points are floating numbers; known are integers")
    scale = _shared(weight.scale)
    if zero is None or not bool(zero.any()):
        encoding = f"int{bits}({_sharing(weight)},scale={_scale_dtype(weight)})"
        return assemble(encoding, weight.shape, Parts(codes, Factors(scale)), dtype_of(weight.dtype))
    half = 1 << (bits - 1)  # codes and zero points alike are moved to 0 and above
    parts = Parts(codes.astype(np.int16) + half, Factors(scale), zero=_shared(zero).astype(np.int16) + half)
    encoding = f"int{bits}({_sharing(weight)},zero=true,scale={_scale_dtype(weight)})"
    return assemble(encoding, weight.shape, parts, dtype_of(weight.dtype))


def _floats(weight: Any) -> Stored:
    kinds = {torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2"}
    if weight.qdata.dtype not in kinds:
        raise CheckpointError(f"its elements are {weight.qdata.dtype}; known are {', '.join(map(str, kinds))}")
    codes = to_numpy(weight.qdata.view(torch.uint8))
    encoding = f'fp8("{kinds[weight.qdata.dtype]}",{_sharing(weight)},scale={_scale_dtype(weight)})'
    return assemble(encoding, weight.shape, Parts(codes, Factors(_shared(weight.scale))), dtype_of(weight.dtype))


def _scale_dtype(weight: Any) -> str:
    return f'"{DTYPES[weight.scale.dtype]}"'


def _sharing(weight: Any) -> str:
    """Who shares a scale, in the notation."""
    shape, block = tuple(weight.shape), tuple(weight.block_size)
    rest = shape[1:]
    if block == shape and shape[0] > 1:
        return 'per="tensor"'
    if block == (1, *rest):
        return 'per="channel"'
    if len(shape) == 2 and block[0] == 1:
        return f"group={block[1]}"
    raise CheckpointError(f"its scales are shared by blocks of {list(block)}; known are runs of one row, rows, and all")


def _shared(parameters: Tensor) -> Array:
    """Scales or zero points in the grid's shape: [1], [N] or [N, groups]."""
    found = to_numpy(parameters)
    return found if found.ndim == 2 and found.shape[1] > 1 else found.reshape(-1)
