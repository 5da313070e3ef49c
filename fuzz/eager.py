"""Graphs run by eager PyTorch, on NumPy arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import ml_dtypes
import numpy as np
import torch
import torch.nn.functional as F

import effcc.frontend.decode
import effcc.frontend.recurrent  # noqa: F401  (both register operators: effcc::decode, effcc::recurrent)
from effcc.fuzz.torch_text import torch_function
from effcc.ir.graph import Graph

_REFUSALS = (
    "not implemented for", "is not implemented", "not supported", "does not support", "expected scalar type",
    "can't be cast to the desired output type", "Kernel size can't be greater than actual input size",
    "zero batch or zero channel inputs", "optional 0 dim batch size", "out of range for tensor of size [0]",
    "Expected more than 1 value per channel", "expected m1 and m2 to have the same dtype",
    "Expected sequence length to be larger than 0",
)  # fmt: skip


def run_eager(graph: Graph, inputs: Sequence[Any]) -> list[np.ndarray]:
    """The results of `graph`, computed by the torch calls that spell it. Raises what PyTorch raises."""
    return run_spelled(torch_function(graph), inputs)


def run_spelled(text: str, inputs: Sequence[Any]) -> list[np.ndarray]:
    """The results of the function `model` of a text of torch calls. Raises what PyTorch raises."""
    with torch.no_grad():
        results = _compiled(text)(*(to_torch(a) for a in inputs))
    return [to_numpy(r) for r in results]


def is_refusal(error: Exception) -> bool:
    """Whether PyTorch says that it has no such call: no kernel for a dtype, or an operator narrower than effcc's."""
    message = str(error)
    return any(said in message for said in _REFUSALS)


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> Callable[..., Any]:
    names: dict[str, Any] = {"torch": torch, "F": F, "accumulate": accumulate}
    exec(text, names)
    function: Callable[..., Any] = names["model"]
    return function


def to_torch(array: Any) -> torch.Tensor:
    """An array as a tensor with memory of its own; NumPy has no bfloat16 of its own."""
    array = np.array(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array, row-major."""
    if tensor._is_zerotensor():  # zeros that are nowhere in memory: some gradients
        tensor = torch.zeros(tensor.shape, dtype=tensor.dtype)
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16))
    return np.asarray(tensor.numpy())
