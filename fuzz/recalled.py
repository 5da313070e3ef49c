"""Calls that must give what another call gave, bit by bit, or must be refused, whatever the program computes.

They need no reference, so that each program that is deployed can be called many times: with inputs that lie otherwise
in memory, at sizes that grew and shrank, and with arguments that are wrong in every way that there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effcc.errors import InputError
from effcc.fuzz.steps import same_bits
from effcc.ir.types import TensorType

Array = np.ndarray[Any, Any]
MOST_INPUTS = 3
"""Whose ways to be wrong are tried, one after the other."""

_AS_WIDE = {
    torch.float64: torch.int64, torch.int64: torch.float64, torch.int32: torch.float32, torch.float32: torch.int32,
    torch.float16: torch.bfloat16, torch.bfloat16: torch.float16, torch.int16: torch.float16, torch.int8: torch.uint8,
    torch.uint8: torch.int8, torch.bool: torch.uint8,
}  # fmt: skip


def require_same(got: Sequence[Array], want: Sequence[Array], what: str) -> None:
    """Raise AssertionError unless both are the same; any NaN is any NaN."""
    for number, (a, b) in enumerate(zip(got, want, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise AssertionError(f"{what}, result {number} is {a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}")
        wrong = ~same_bits(a, b)
        if wrong.any():
            place = tuple(int(i[0]) for i in np.nonzero(wrong))
            raise AssertionError(f"{what}, result {number} is {a[place]!r} at {list(place)}, not {b[place]!r}")


def require_refusal(what: str, call: Callable[[], object]) -> None:
    """Raise AssertionError unless a call raises InputError."""
    try:
        call()
    except InputError:
        return
    raise AssertionError(f"a call with {what} is not refused")


def laid_otherwise(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same numbers in other memory, or as a view that is negated when it is read."""
    if tensor.dim():
        apart = torch.empty((2 * tensor.shape[0], *tensor.shape[1:]), dtype=tensor.dtype)
        yield "rows apart", apart[::2].copy_(tensor)
        wider = torch.empty((*tensor.shape[:-1], tensor.shape[-1] + 3), dtype=tensor.dtype)
        yield "longer rows", wider[..., 1:-2].copy_(tensor)
    if tensor.dim() > 1:
        yield "axes in the opposite order", tensor.permute(*reversed(range(tensor.dim()))).contiguous().permute(
            *reversed(range(tensor.dim()))
        )  # fmt: skip
    if tensor.dtype in (torch.float32, torch.float64):
        yield "numbers negated lazily", torch.complex(torch.zeros_like(tensor), -tensor).conj().imag


def arrays_laid_otherwise(array: Array) -> Iterator[tuple[str, Array]]:
    """The same numbers in other memory: backwards and at an odd address, too."""
    if array.ndim:
        apart = np.empty((2 * array.shape[0], *array.shape[1:]), array.dtype)
        apart[::2] = array
        yield "rows apart", apart[::2]
        yield "rows backwards", np.ascontiguousarray(array[::-1])[::-1]
    if array.ndim > 1:
        yield "axes in the opposite order", np.asfortranarray(array)
        wider = np.empty((*array.shape[:-1], array.shape[-1] + 3), array.dtype)
        wider[..., 1:-2] = array
        yield "longer rows", wider[..., 1:-2]
    if array.nbytes:
        odd = np.ndarray(array.shape, array.dtype, np.empty(array.nbytes + 1, np.uint8), 1)
        odd[...] = array
        yield "an odd address", odd


def wrong_tensors(tensor: Tensor, type: TensorType) -> Iterator[tuple[str, Tensor]]:
    """What is no tensor of a type."""
    other = _AS_WIDE[tensor.dtype]
    yield f"as {other}", tensor.view(other) if tensor.dtype == torch.float32 else tensor.to(other)
    wider = torch.float64 if tensor.dtype != torch.float64 else torch.float32
    yield f"as {wider}", tensor.to(wider)
    yield "with an axis more", tensor[None]
    if tensor.dim():
        yield "with an axis less", tensor.new_zeros(()) if tensor.dim() == 1 else tensor.flatten(0, 1)
    for axis, size in enumerate(type.shape):
        if isinstance(size, int) and size:
            yield f"with axis {axis} one longer", torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)
            yield f"with axis {axis} one shorter", tensor.narrow(axis, 0, size - 1)


def wrong_calls(
    given: Sequence[Tensor], types: Sequence[TensorType], left_out: Sequence[int] = ()
) -> Iterator[tuple[str, list[Tensor]]]:
    """Calls that must be refused; inputs that are `left_out` are right in all of them."""
    if given:
        yield "one input too few", list(given[:-1])
        yield "one input too many", [*given, given[-1]]
    tried = [k for k in range(len(given)) if k not in left_out][:MOST_INPUTS]
    for k in tried:
        for how, wrong in wrong_tensors(given[k], types[k]):
            yield f"input {k} {how}", [*given[:k], wrong, *given[k + 1 :]]
    yield from _disagreeing(given, types, tried)


def _disagreeing(
    given: Sequence[Tensor], types: Sequence[TensorType], tried: Sequence[int]
) -> Iterator[tuple[str, list[Tensor]]]:
    """Inputs of which two axes should have one run-time size, and have two."""
    places: dict[Any, list[tuple[int, int]]] = {}
    for k, type in enumerate(types):
        for axis, size in enumerate(type.shape):
            if not isinstance(size, int) and size.is_Symbol:
                places.setdefault(size, []).append((k, axis))
    for size, found in places.items():
        k, axis = found[-1]
        if len(found) > 1 and k in tried and given[k].shape[axis]:
            longer = torch.cat([given[k], given[k].narrow(axis, 0, 1)], axis)
            yield f"two sizes for {size}", [*given[:k], longer, *given[k + 1 :]]
