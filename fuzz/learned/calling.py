"""Recorded calls, made: tensors drawn for arrays, the operator called, its results looked at."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from effcc.fuzz.learned.record import CODES, Arguments, Array, Name
from effcc.fuzz.learned.structure import overload

DTYPES: dict[str, torch.dtype] = {code: getattr(torch, name) for code, name in CODES.items()}
CODE_OF = {dtype: code for code, dtype in DTYPES.items()}
REFUSALS = (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError, ZeroDivisionError, OverflowError)
"""What eager raises where it refuses a call."""


class Unlike(Exception):
    """A result or argument that records do not describe: `str` says what it is."""


def described(value: Any, fill: str = "any") -> Any:
    """A value as records have it. Raises Unlike."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized:
            raise Unlike("tensors that are sparse or quantized")
        if value.dtype not in CODE_OF:
            raise Unlike(f"tensors of {str(value.dtype).removeprefix('torch.')}")
        strides = None if value.is_contiguous() else tuple(value.stride())
        return Array(CODE_OF[value.dtype], tuple(value.shape), strides, fill)
    if isinstance(value, list | tuple):
        return tuple(described(v, fill) for v in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        return Name(str(value))
    if isinstance(value, torch.device):
        return Name(f'torch.device("{value}")')
    raise Unlike(f"arguments of type {type(value).__name__}")


def drawn(array: Array, seed: int) -> Tensor:
    """A tensor of that kind, the same for the same seed."""
    generator = Generator().manual_seed(seed)
    dtype = DTYPES[array.dtype]
    if dtype.is_floating_point:
        made = torch.rand(array.shape, generator=generator) if array.fill == "unit" else None
        made = torch.randn(array.shape, generator=generator) if made is None else made
    elif dtype.is_complex:
        made = torch.randn(array.shape, generator=generator, dtype=torch.complex64)
    elif dtype == torch.bool or array.fill == "index":
        made = torch.randint(0, 2, array.shape, generator=generator)
    else:
        made = torch.randint(0 if dtype == torch.uint8 else -9, 10, array.shape, generator=generator)
    made = made.to(dtype)
    if array.strides is None:
        return made
    laid = torch.empty_strided(array.shape, array.strides, dtype=dtype)
    if any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape, strict=True)):
        return laid.fill_(1)
    return laid.copy_(made)


def made(arguments: Arguments, seed: int) -> dict[str, Any]:
    """Arguments to call with."""
    return {n: _made(v, zlib.crc32(f"{n} {seed}".encode())) for n, v in arguments.items()}


def _made(value: Any, seed: int) -> Any:
    if isinstance(value, Array):
        return drawn(value, seed)
    if isinstance(value, Name):
        return eval(value.text, {"torch": torch}) if value.text.startswith("torch.") else value.text
    if isinstance(value, tuple):
        return [_made(v, seed + k) for k, v in enumerate(value)]
    return value


def call(operator: str, given: Arguments) -> Any:
    """What an operator gives for arguments by name. Raises one of `REFUSALS`."""
    function = overload(operator)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return function(*positional(function, given), **keywords(function, given))


def positional(function: Any, given: Arguments) -> list[Any]:
    """The arguments that are given by place: up to the last that has not its default."""
    found: list[Any] = []
    last = 0
    for argument in function._schema.arguments:
        if argument.kwarg_only:
            break
        found.append(given.get(argument.name, argument.default_value))
        last = len(found) if argument.name in given else last
    return found[:last]


def keywords(function: Any, given: Arguments) -> dict[str, Any]:
    """Those that are given by name alone."""
    return {a.name: given[a.name] for a in function._schema.arguments if a.kwarg_only and a.name in given}


def results(value: Any) -> tuple[Array, ...]:
    """The tensors that a call gave. Raises Unlike where there is anything else."""
    flat: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
    if not flat:
        raise Unlike("no results")
    for one in flat:
        if not isinstance(one, Tensor):
            raise Unlike(f"results of type {type(one).__name__}")
    return tuple(described(one) for one in flat)
