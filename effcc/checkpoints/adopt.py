"""`adopt`: weights that another library has quantized, in a model at hand, become effcc's encodings in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from effcc.checkpoints import bitsandbytes_weights, pytorch_weights, torchao_weights
from effcc.checkpoints.weights import tensors_of
from effcc.compression.install import Stored, install
from effcc.compression.modules import ENCODED
from effcc.errors import CheckpointError, EncodingError, InputError

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Library:
    """One whose modules are known: which are its, how they change what they are given, what they store, and what makes
    one of them PyTorch's own, in place."""

    name: str
    owns: Callable[[nn.Module], bool]
    changes_inputs: Callable[[nn.Module], str]
    take: Callable[[nn.Module], Stored]
    become_plain: Callable[[nn.Module], None]


def _plain_class(module: nn.Module) -> type[nn.Module] | None:
    """PyTorch's class that a module's class extends."""
    return next((c for c in type(module).__mro__ if c in ENCODED), None)


def _without_additions(module: nn.Module) -> None:
    """Make the module one of the class that its class extends, without what the library added to it."""
    plain = _plain_class(module)
    assert plain is not None
    if type(module) is not plain:
        with torch.device("meta"):
            known = vars(nn.Linear(1, 1))
        for name in [n for n in vars(module) if n not in known and not hasattr(plain, n)]:
            delattr(module, name)
        module._load_state_dict_pre_hooks.clear()
        module.__class__ = plain
    vars(module).pop("extra_repr", None)  # torchao's, which shows its tensor


LIBRARIES = (
    Library(
        "torchao", torchao_weights.is_torchao, torchao_weights.quantizes_inputs, torchao_weights.take_torchao,
        _without_additions,
    ),
    Library(
        "bitsandbytes", bitsandbytes_weights.is_bitsandbytes, bitsandbytes_weights.changes_inputs,
        bitsandbytes_weights.take_bitsandbytes, _without_additions,
    ),
    Library(
        "torch.ao", pytorch_weights.is_pytorch, pytorch_weights.changes_inputs, pytorch_weights.take_pytorch,
        pytorch_weights.become_plain,
    ),
)  # fmt: skip
FOREIGN = (
    "torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torchao.", "bitsandbytes.", "awq.", "auto_gptq.",
    "gptqmodel.", "hqq.", "quanto.", "optimum.quanto", "compressed_tensors.",
)  # fmt: skip
"""Packages whose modules compute with weights that they quantized."""


def adopt(model: Model, *, weights_only: bool = False) -> Model:
    """Store weights that torchao, bitsandbytes or torch.ao quantized in effcc's encodings, in place; returns `model`.

    Of torchao, tensors of Int8WeightOnlyConfig, IntxWeightOnlyConfig and Float8WeightOnlyConfig; of bitsandbytes,
    Linear8bitLt and Linear4bit (NF4, FP4, with double quantization or without); of torch.ao, quantized.Linear, Conv2d
    and dynamic.Linear, all of which quantize their inputs in a way that effcc's layers do not. The integers, scales and
    tables stay what they are: decoded weights are those of the library's own dequantization (bit for bit; of
    Linear8bitLt, whose library rounds twice, to the last place).

    weights_only: also take layers that quantize their inputs, too; they then compute with inputs as they are, and
        torch.ao's Quantize and DeQuantize pass them on.

    Raises CheckpointError, naming the module, where one of such a library is not known, or quantizes its inputs; the
    model is then as it was.

        >>> from torchao.quantization import Int8WeightOnlyConfig, quantize_         # doctest: +SKIP
        >>> quantize_(model, Int8WeightOnlyConfig())                                # doctest: +SKIP
        >>> model = torch.compile(effcc.adopt(model), backend="effcc")              # doctest: +SKIP
        >>> adopt(nn.Linear(3, 2))
        Traceback (most recent call last):
            ...
        effcc.errors.CheckpointError: Linear has no weight that torchao, bitsandbytes or torch.ao quantized
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"adopt: expected an nn.Module, got {type(model).__name__}")
    taken: dict[nn.Module, tuple[Library, Stored]] = {}
    for name, module in model.named_modules():
        library = next((lib for lib in LIBRARIES if lib.owns(module)), None)
        try:
            if library is not None:
                taken[module] = library, _taken(library, module, weights_only)
            elif type(module).__module__.startswith(FOREIGN) and type(module) not in pytorch_weights.OWN:
                raise CheckpointError(f"it is a {type(module).__module__}.{type(module).__name__}, which is not known")
        except (CheckpointError, EncodingError) as error:
            raise CheckpointError(f"{name or 'the model'}: {error}") from None
    if not taken:
        raise CheckpointError(f"{type(model).__name__} has no weight that torchao, bitsandbytes or torch.ao quantized")
    pytorch_weights.require_borders(model, taken)
    for module, (library, stored) in taken.items():
        library.become_plain(module)
        module.weight = nn.Parameter(torch.empty(stored.storage.shape, device="cpu"), requires_grad=False)
        install(module, stored.storage, tensors_of(stored))
    if weights_only:
        for border in [m for m in model.modules() if type(m) in pytorch_weights.BORDERS]:
            pytorch_weights.become_identity(border)
    return model


def _taken(library: Library, module: nn.Module, weights_only: bool) -> Stored:
    changed = library.changes_inputs(module)
    if changed and not weights_only:
        raise CheckpointError(
            f"{library.name} changes what it is given ({changed}), which effcc would not; "
            "adopt(model, weights_only=True) takes the weight alone"
        )
    if library.become_plain is _without_additions and _plain_class(module) is None:
        raise CheckpointError(f"it is a {type(module).__name__}; known are {', '.join(c.__name__ for c in ENCODED)}")
    return library.take(module)
