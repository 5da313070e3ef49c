"""What callers give a package, as NumPy arrays, and results as what callers gave: the rest is refused by name."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from effcc.errors import InputError
from effcc.runtime.size_trees import LARGEST

# Dtypes that PyTorch does not hand to NumPy, with one of the same size that it does.
_BITS = {"bfloat16": "int16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}


def is_torch(value: Any) -> bool:
    """Whether a value is a tensor of PyTorch's, without importing it."""
    return any(t.__module__ == "torch" and t.__name__ == "Tensor" for t in type(value).__mro__)


def to_array(name: str, value: Any, written: bool = False) -> np.ndarray:
    """The memory of a tensor or array that was given as input `name`, which the model may write.

    Raises InputError for what has no such memory: tensors of another device or layout, wrapped or fake ones, masked
    arrays, lists, numbers.
    """
    if is_torch(value):
        return _tensor_memory(name, value, written)
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"input {name}: expected a plain array, got a masked one; fill it first: array.filled(0)")
    if not isinstance(value, np.ndarray):
        raise InputError(f"input {name}: expected a NumPy array or a torch tensor, got {type(value).__name__}")
    return value.view(np.ndarray)


def _tensor_memory(name: str, value: Any, written: bool) -> np.ndarray:
    import torch

    problem = _no_plain_tensor(value)
    if problem:
        raise InputError(f"input {name}: expected a dense tensor on the CPU, got {problem}")
    tensor = value.detach()
    if tensor.is_conj() or tensor.is_neg():
        if written:
            raise InputError(f"input {name}: the model writes it, and what was given is a conjugated or negated view")
        tensor = tensor.resolve_conj().resolve_neg()
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype in _BITS:
        return tensor.view(getattr(torch, _BITS[dtype])).numpy().view(getattr(ml_dtypes, dtype))
    try:
        found: np.ndarray = tensor.numpy()
    except (TypeError, RuntimeError) as error:  # a dtype that NumPy lacks, a wrapper that has no memory
        raise InputError(f"input {name}: expected a tensor that NumPy can hold, got {tensor.dtype}: {error}") from None
    return found


def _no_plain_tensor(value: Any) -> str:
    """What a tensor is that has no memory to read; "" for one that has."""
    import torch

    if type(value) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer) and (
        type(value).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    ):
        return f"a {type(value).__name__}, which is a tensor in name only"
    if torch._C._functorch.is_functorch_wrapped_tensor(value):
        return "one inside a function transform (vmap, grad): packages compute no such"
    if value.is_nested:
        return "a nested one"
    if value.layout != torch.strided:
        return f"one of layout {value.layout}: call .to_dense() first"
    if value.is_quantized:
        return f"a quantized one of {value.dtype}: call .dequantize() first"
    if value.device.type != "cpu":
        return f"one on {value.device}"
    if value._is_zerotensor():
        return "a zero without memory: call .clone() first"
    return ""


def to_torch(array: np.ndarray) -> Any:
    """An array as a tensor that shares its memory."""
    import torch

    bits = _BITS.get(array.dtype.name)
    if bits is not None:
        return torch.from_numpy(array.view(bits)).view(getattr(torch, array.dtype.name))
    return torch.from_numpy(array)


def overlaps_itself(array: np.ndarray) -> bool:
    """Whether two elements of an array may lie at one place, as an expanded one's do."""
    reach = array.itemsize
    for stride, size in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False


def require_apart(names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Raises InputError where an input among `names`, which the model writes, shares memory with itself or another."""
    for name in names:
        array = arrays[name]
        if not array.flags.writeable:
            raise InputError(f"input {name}: the model writes it, and the array given is read-only")
        if overlaps_itself(array):
            raise InputError(f"input {name}: the model writes it, and elements of what was given share memory")
        for other, against in arrays.items():
            if other != name and np.may_share_memory(array, against):
                raise InputError(f"inputs {name} and {other} share memory, and the model writes {name}")


def whole_number(what: str, given: Any) -> int:
    """An integer among the arguments, of Python's, NumPy's or a tensor's. Raises InputError; `what` names it."""
    try:
        value = None if isinstance(given, bool) else operator.index(given)
    except (TypeError, ValueError, RuntimeError):  # whatever a tensor or array of several elements raises
        value = None
    if value is None or abs(value) >= LARGEST:
        raise InputError(f"{what}: expected an integer below 2^62, got {str(given)[:80]} ({type(given).__name__})")
    return value


MOST_THREADS = 1024


def thread_count(threads: Any, what: str = "threads") -> int:
    """`threads`, if it is a number of threads. Raises InputError; `what` is what it was given as."""
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        raise InputError(f"{what}: expected a whole number from 1 to {MOST_THREADS}, got {str(threads)[:40]!r}")
    return threads
