"""One call of an operator: its arguments, whether eager accepted them, and what the results were like.

Numbers in tensors are not recorded, only how they were drawn (`Array.fill`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

CODES = {
    "f32": "float32", "f64": "float64", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32",
    "i16": "int16", "i8": "int8", "u8": "uint8", "bool": "bool", "c64": "complex64", "c128": "complex128",
}  # fmt: skip
"""dtypes as they are written, and PyTorch's names of them."""


@dataclass(frozen=True)
class Array:
    """A tensor without its numbers.

    dtype: one of `CODES`. strides: None where it is row-major. fill: how numbers are drawn: `any`, `index` (0 or 1,
    which are indices into most axes) or `unit` (floats between 0 and 1).
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    fill: str = "any"


@dataclass(frozen=True)
class Name:
    """An argument that is a thing of PyTorch's, by name: `torch.float32`, `torch.strided`."""

    text: str


Arguments: TypeAlias = Mapping[str, Any]
"""Values by the names of an operator's schema, in its order; what has its default is left out."""


class DamagedError(ValueError):
    """A line that is no record."""


@dataclass(frozen=True)
class Record:
    """A call of `operator` ("aten.add.Tensor"): results are None where eager refused it.

    base: whether these arguments were seen as they are, and not changed.
    """

    operator: str
    arguments: Arguments
    results: tuple[Array, ...] | None
    base: bool = False

    @property
    def accepted(self) -> bool:
        """Whether eager accepted the call."""
        return self.results is not None

    @property
    def text(self) -> str:
        """A line: the CRC-32 of the rest, and the rest as JSON."""
        held = [
            self.operator,
            {name: _held(value) for name, value in self.arguments.items()},
            None if self.results is None else [_held(r) for r in self.results],
            int(self.base),
        ]
        body = json.dumps(held, separators=(",", ":"))
        return f"{zlib.crc32(body.encode()):08x} {body}"

    @classmethod
    def parse(cls, line: str) -> Record:
        """The record of a line. Raises DamagedError if it is not whole."""
        told, _, body = line.rstrip("\n").partition(" ")
        if told != f"{zlib.crc32(body.encode()):08x}":
            raise DamagedError("the checksum is not that of the line")
        try:
            operator, arguments, results, base = json.loads(body)
            found = None if results is None else tuple(_value(r) for r in results)
            return cls(operator, {n: _value(v) for n, v in arguments.items()}, found, bool(base))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise DamagedError(f"no record: {error}") from error


def _held(value: Any) -> Any:
    """A value as JSON holds it."""
    if isinstance(value, Array):
        strides = None if value.strides is None else list(value.strides)
        return {"tensor": value.dtype, "shape": list(value.shape), "strides": strides, "fill": value.fill}
    if isinstance(value, Name):
        return {"name": value.text}
    if isinstance(value, tuple):
        return [_held(v) for v in value]
    return value


def _value(held: Any) -> Any:
    if isinstance(held, dict) and "tensor" in held:
        strides = None if held["strides"] is None else tuple(held["strides"])
        return Array(held["tensor"], tuple(held["shape"]), strides, held["fill"])
    if isinstance(held, dict):
        return Name(held["name"])
    if isinstance(held, list):
        return tuple(_value(v) for v in held)
    return held
