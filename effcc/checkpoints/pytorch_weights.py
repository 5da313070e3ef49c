"""PyTorch's own int8 modules, of `torch.ao`: weights packed for its kernels, which unpack to quantized tensors.

    quantized.Linear, quantized.Conv2d      between quantized tensors, from `quantized.Quantize` to `DeQuantize`
    quantized.dynamic.Linear                quantizes its input at every call, by one scale and zero point

v = (q - zero) * scale, shared by a channel or the tensor. Scales are held in f64; observers make numbers of f32, and
kernels round others to those, as is done here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.ao.nn import quantized

from effcc.checkpoints.weights import Factors, Parts, assemble
from effcc.compression.install import Stored
from effcc.errors import CheckpointError
from effcc.frontend.decode import to_numpy

PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    quantized.Linear: nn.Linear,
    quantized.Conv2d: nn.Conv2d,
    quantized.dynamic.Linear: nn.Linear,
}
"""What each class computes where nothing but its weight is quantized."""
BORDERS = (quantized.Quantize, quantized.DeQuantize)
"""What stands where tensors become quantized ones, and floating ones again."""
OWN = (*BORDERS, quantized.modules.linear.LinearPackedParams)
"""Modules without a weight to take: borders, and what holds one inside of another."""
CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


def is_pytorch(module: nn.Module) -> bool:
    """Whether a module is one of `torch.ao` whose weight can be taken."""
    return type(module) in PLAIN


def changes_inputs(module: nn.Module) -> str:
    """How a module changes its input before it multiplies."""
    if type(module) is quantized.dynamic.Linear:
        return "a scale and a zero point of all its input, at every call"
    return "it takes quantized tensors and gives quantized ones"


def require_borders(model: nn.Module, taken: Iterable[nn.Module]) -> None:
    """Raise CheckpointError where layers take quantized tensors that no module of the model makes."""
    if any(type(m) in PLAIN and type(m) is not quantized.dynamic.Linear for m in taken) and not any(
        type(m) is quantized.Quantize for m in model.modules()
    ):
        raise CheckpointError(
            f"{type(model).__name__} quantizes tensors outside of modules (of torch.ao.nn.quantized.Quantize), where "
            "that cannot be taken out"
        )


def take_pytorch(module: Any) -> Stored:
    """The module's weight as components: of the same integers, scales and zero points.

    Raises CheckpointError where it is none of 8 bits.
    """
    weight: Tensor = module.weight()
    if weight.dtype != torch.qint8:
        held = getattr(module._packed_params, "dtype", weight.dtype)
        raise CheckpointError(f"its weight is of {held}; known is torch.qint8")
    if weight.qscheme() == torch.per_tensor_affine:
        per, scale, zero = "tensor", torch.tensor([weight.q_scale()]), torch.tensor([weight.q_zero_point()])
    elif weight.qscheme() == torch.per_channel_affine and weight.q_per_channel_axis() == 0:
        per, scale, zero = "channel", weight.q_per_channel_scales(), weight.q_per_channel_zero_points()
    else:
        raise CheckpointError(f"its weight is quantized {weight.qscheme()}; known are by tensor and by output channel")
    codes, factors = to_numpy(weight.int_repr()), Factors(to_numpy(scale.to(torch.float32)))
    if not bool(zero.any()):
        return assemble(f'int8(per="{per}",scale="f32")', weight.shape, Parts(codes, factors))
    parts = Parts(codes.astype(np.int16) + 128, factors, zero=to_numpy(zero).astype(np.int16) + 128)
    return assemble(f'int8(per="{per}",zero=true,scale="f32")', weight.shape, parts)


def become_plain(module: Any) -> None:
    """Make the module PyTorch's floating one, with the same bias, and a weight that is empty."""
    plain, bias, training = PLAIN[type(module)], module.bias(), module.training
    with torch.device("meta"):
        if plain is nn.Linear:
            made: Any = nn.Linear(module.in_features, module.out_features, bias is not None)
        else:
            made = nn.Conv2d(**{n: getattr(module, n) for n in CONV}, bias=bias is not None)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    _replace(module, made.train(training))


def become_identity(module: nn.Module) -> None:
    """Make a border between floating and quantized tensors pass on what it is given."""
    _replace(module, nn.Identity().train(module.training))


def _replace(module: Any, made: nn.Module) -> None:
    """Make the module what another is; its hooks stay."""
    hooks = [n for n in vars(nn.Module()) if "hook" in n]
    state = vars(made) | {n: vars(module)[n] for n in hooks}
    vars(module).clear()
    vars(module).update(state)
    module.__class__ = type(made)
