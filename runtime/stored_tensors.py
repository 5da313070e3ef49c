"""Tensors from a safetensors file's bytes, every number in its header checked before it is used.

The file is eight bytes of length, a JSON header of that length, and the elements: see
https://github.com/huggingface/safetensors. Reading makes no copies: the arrays are views of the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from effcc.errors import PackageError
from effcc.runtime.strict_json import is_text, read_json

_DTYPES: Mapping[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
    "C64": np.complex64, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip
_LONGEST_HEADER = 100 << 20
_MOST_DIMENSIONS = 32


def read_tensors(content: bytes | bytearray, what: str) -> dict[str, np.ndarray]:
    """The tensors by name; `what` names the file in errors.

    Raises PackageError where the file is not exactly what the format says: a header that does not fit, a dtype that is
    none, elements that overlap, leave a gap or stand beyond the end, booleans other than 0 and 1.
    """
    header, start = _header(content, what)
    found: dict[str, np.ndarray] = {}
    places = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _entry(name, entry, what)
        if end - begin != math.prod(shape) * dtype.itemsize or not 0 <= begin <= end <= len(content) - start:
            place = f"bytes {begin} to {end} of {len(content) - start}"
            raise PackageError(f"{what}: {name!r} is {dtype}{list(shape)} and stands at {place}")
        places.append((begin, end, name))
        flat = np.frombuffer(content, np.uint8, end - begin, start + begin)
        if dtype == np.bool_ and flat.size and flat.max() > 1:
            raise PackageError(f"{what}: {name!r} is bool and holds a byte that is neither 0 nor 1")
        found[name] = flat.view(dtype).reshape(shape)
    reached = 0
    for begin, end, name in sorted(places):
        if begin != reached:
            raise PackageError(f"{what}: {name!r} begins at byte {begin}, where the tensor before it ends at {reached}")
        reached = end
    if reached != len(content) - start:
        raise PackageError(f"{what}: the tensors end at byte {reached} of {len(content) - start}")
    return found


def tensor_places(content: bytes, what: str) -> dict[str, int]:
    """Where in a file's bytes each tensor begins."""
    header, start = _header(content, what)
    return {n: start + _entry(n, entry, what)[2] for n, entry in header.items() if n != "__metadata__"}


def _header(content: bytes | bytearray, what: str) -> tuple[dict[str, Any], int]:
    """The header, and where the elements begin."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or not 2 <= length <= min(len(content) - 8, _LONGEST_HEADER):
        raise PackageError(f"{what}: expected a safetensors file, got {len(content)} bytes with a header of {length}")
    header = read_json(bytes(content[8 : 8 + length]), f"{what}: the header")
    if not isinstance(header, dict):
        raise PackageError(f"{what}: expected an object as its header, got {type(header).__name__}")
    return header, 8 + length


def _entry(name: str, entry: Any, what: str) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    if not is_text(name):
        raise PackageError(f"{what}: {name!a} is no name of a tensor")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise PackageError(f"{what}: expected dtype, shape and data_offsets of {name!r}, got {str(entry)[:80]}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise PackageError(f"{what}: {name!r} has the dtype {str(dtype)[:40]!r}; known: {', '.join(_DTYPES)}")
    if not (_are_sizes(shape) and len(shape) <= _MOST_DIMENSIONS):
        raise PackageError(f"{what}: expected a shape of whole numbers for {name!r}, got {str(shape)[:80]}")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets)):
        raise PackageError(f"{what}: expected where {name!r} begins and ends, got {str(offsets)[:80]}")
    return np.dtype(_DTYPES[dtype]), tuple(shape), offsets[0], offsets[1]


def _are_sizes(value: Any) -> bool:
    """Whether these are whole numbers whose product, zeros apart, any machine can count to."""
    numbers = isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)
    return numbers and math.prod(n for n in value if n) < 2**58
