"""NumPy arrays as memory for compiled code: laid out as a type says, aligned, and passed to entry points."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effcc.ir.dims import Dim, evaluate
from effcc.ir.types import TensorType

ALIGNMENT = 64


def aligned(size: int) -> np.ndarray:
    """That many bytes, at an address that is a multiple of a cache line."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def storage_bytes(type: TensorType, sizes: Mapping[str, int]) -> int:
    """Bytes from the first to past the last element."""
    shape = [evaluate(d, sizes) for d in type.shape]
    if 0 in shape:
        return 0
    strides = [evaluate(s, sizes) for s in type.layout]
    return (sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1) * type.dtype.bytes


def allocate(type: TensorType, sizes: Mapping[str, int], memory: np.ndarray | None = None) -> np.ndarray:
    """An array of that type, with its strides, in new memory or over `memory` (flat, of the same dtype or bytes)."""
    shape = tuple(evaluate(d, sizes) for d in type.shape)
    dtype = np.dtype(type.dtype.numpy)
    if 0 in shape:
        return np.empty(shape, dtype)
    strides = tuple(evaluate(s, sizes) * dtype.itemsize for s in type.layout)
    return np.ndarray(shape, dtype, aligned(storage_bytes(type, sizes)) if memory is None else memory, strides=strides)


def flat(array: np.ndarray, type: TensorType) -> np.ndarray:
    """The elements of an array of that type in memory order, one dimension; itself where that is row-major."""
    if type.is_contiguous:
        return array
    made = np.zeros(storage_bytes(type, {}) // type.dtype.bytes, type.dtype.numpy)
    allocate(type, {}, made)[...] = array
    return made


def enter(
    entry: Any,
    table: Sequence[str],
    tensors: Mapping[str, np.ndarray],
    size_names: Sequence[str],
    sizes: Mapping[str, int],
    arena: np.ndarray,
    threads: int,
) -> None:
    """Call an entry point: `table` names the buffers it takes pointers to; those not in `tensors` it must not touch."""
    pointers = (ctypes.c_void_p * max(len(table), 1))()
    for slot, name in enumerate(table):
        if name in tensors:
            pointers[slot] = tensors[name].ctypes.data
    values = (ctypes.c_int64 * max(len(size_names), 1))(*(sizes.get(n, 0) for n in size_names))
    entry(pointers, values, arena.ctypes.data, threads)


def arena_for(arena_bytes: Dim, sizes: Mapping[str, int], names: Sequence[str]) -> int:
    """Scratch bytes at these sizes; sizes that are not known yet count as 0."""
    return evaluate(arena_bytes, {n: sizes.get(n, 0) for n in names})
