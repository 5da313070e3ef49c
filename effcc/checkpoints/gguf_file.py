"""A GGUF file as a value: its metadata, and its tensors as blocks of bytes that lie in the file.

    header      "GGUF", version, number of tensors, number of entries
    metadata    entries: key, type, value
    tensors     for each: name, sizes (innermost first), type, offset into the data
    data        from the next multiple of `general.alignment` on, each tensor at such a multiple

The library `gguf` says how many elements and bytes a block of each type has; its reader makes an array of each token
of the vocabulary (seconds), and believes every count (a damaged one runs for hours), so the header is read here.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from effcc.errors import CheckpointError

Array = Any
MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
LARGEST_RANK = 4
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The metadata's types of numbers, in `struct`'s letters."""
STRING, ARRAY = 8, 9
LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of the file: sizes in PyTorch's order, and each row's blocks as bytes `[..., bytes of a row]`."""

    name: str
    type: str
    shape: tuple[int, ...]
    blocks: Array


@dataclass(frozen=True)
class GgufFile:
    """What a file holds; an array of strings (the vocabulary) is given as the number of its strings."""

    path: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """The name of the architecture. Raises CheckpointError where the file does not say."""
        found = self.metadata.get("general.architecture")
        if not isinstance(found, str):
            raise CheckpointError(f"{self.path}: expected the metadata to name general.architecture, got {found!r}")
        return found


def read_gguf(path: str | os.PathLike[str]) -> GgufFile:
    """The file at `path`, mapped into memory: blocks are read when they are looked at.

    Raises CheckpointError, saying what is wrong at which byte, where it is cut short, of another format or version, or
    inconsistent: an entry or tensor twice, an unknown type, sizes that do not fill blocks, an offset that is not
    aligned, lies outside of the file or inside another tensor.
    """
    shown = os.fspath(path)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise CheckpointError(f"{shown}: expected a GGUF file, got an empty one")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CheckpointError(f"{shown}: cannot be read ({error.strerror or error})") from None
    cursor = _Cursor(shown, data)
    tensors, entries = cursor.header()
    metadata = dict(cursor.distinct("entry", cursor.entries(entries)))
    found = list(cursor.infos(tensors))
    dict(cursor.distinct("tensor", ((info.name, info) for info in found)))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        cursor.refuse(f"general.alignment is {alignment!r}, expected a power of two")
    start = -(-cursor.place // alignment) * alignment
    _check_places(shown, found, start, alignment, len(data))
    whole = np.frombuffer(data, np.uint8)
    return GgufFile(shown, metadata, {i.name: i.tensor(whole, start) for i in found})


@dataclass(frozen=True)
class _Info:
    """What the header says of a tensor."""

    name: str
    type: str
    shape: tuple[int, ...]
    row_bytes: int
    offset: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.row_bytes

    def tensor(self, data: Array, start: int) -> GgufTensor:
        first = start + self.offset
        blocks = data[first : first + self.bytes].reshape(*self.shape[:-1], self.row_bytes)
        return GgufTensor(self.name, self.type, self.shape, blocks)


def _check_places(path: str, infos: list[_Info], start: int, alignment: int, size: int) -> None:
    """That tensors lie aligned, inside the file and apart."""
    before, end = "", 0
    for info in sorted(infos, key=lambda i: i.offset):
        if info.offset % alignment:
            raise CheckpointError(f"{path}: tensor {info.name}: offset {info.offset} is no multiple of {alignment}")
        if start + info.offset + info.bytes > size:
            raise CheckpointError(
                f"{path}: tensor {info.name} ({info.type}, {list(info.shape)}) ends at byte "
                f"{start + info.offset + info.bytes}; the file is cut short at {size}"
            )
        if info.offset < end:
            raise CheckpointError(f"{path}: tensor {info.name} at offset {info.offset} overlaps {before}, up to {end}")
        before, end = info.name, info.offset + info.bytes


@dataclass
class _Cursor:
    """Reads the header in order; `place` is the next byte."""

    path: str
    data: mmap.mmap
    place: int = 0

    def refuse(self, what: str) -> NoReturn:
        raise CheckpointError(f"{self.path}: at byte {self.place}: {what}")

    def header(self) -> tuple[int, int]:
        """How many tensors and entries there are."""
        if self.data[:4] != MAGIC:
            self.refuse(f"expected a GGUF file, which begins with {MAGIC!r}, got {bytes(self.data[:4])!r}")
        self.place = 4
        version = self.number("I")
        if version not in VERSIONS:
            swapped = int.from_bytes(struct.pack("<I", version), "big")
            hint = " (the file is big-endian)" if swapped in VERSIONS else ""
            self.refuse(f"expected GGUF version {' or '.join(map(str, VERSIONS))}, got {version}{hint}")
        return self.number("Q"), self.number("Q")

    def number(self, letter: str) -> Any:
        size = struct.calcsize("<" + letter)
        self._require(size, "a number")
        (found,) = struct.unpack_from("<" + letter, self.data, self.place)
        self.place += size
        return found

    def string(self) -> str:
        length = self.number("Q")
        self._require(length, "a string")
        raw = self.data[self.place : self.place + length]
        try:
            found = raw.decode()
        except UnicodeDecodeError:
            self.refuse(f"expected a string in UTF-8, got {raw[:40]!r}")
        self.place += length
        return found

    def _require(self, count: int, what: str) -> None:
        if count > len(self.data) - self.place:
            self.refuse(f"expected {what} of {count} bytes, but the file is cut short at {len(self.data)}")

    def entries(self, count: int) -> Iterator[tuple[str, Any]]:
        for _ in range(count):
            key = self.string()
            yield key, self._value(key, self.number("I"))

    def _value(self, key: str, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self._array(key, self.number("I"), self.number("Q"))
        if kind not in SCALARS:
            self.refuse(f"entry {key} has unknown type {kind}")
        return self.number(SCALARS[kind])

    def _array(self, key: str, kind: int, count: int) -> Any:
        """Numbers as a list; strings, which are many, are counted."""
        if kind == STRING:
            for _ in range(count):
                self._require(8, "a length")
                (length,) = LENGTH.unpack_from(self.data, self.place)
                self.place += 8
                self._require(length, "a string")
                self.place += length
            return count
        if kind not in SCALARS:
            self.refuse(f"entry {key} is an array of unknown or nested type {kind}")
        letter = SCALARS[kind]
        self._require(count * struct.calcsize("<" + letter), f"{count} numbers")
        found = list(struct.unpack_from(f"<{count}{letter}", self.data, self.place))
        self.place += count * struct.calcsize("<" + letter)
        return found

    def infos(self, count: int) -> Iterator[_Info]:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        known = {int(t): t for t in GGMLQuantizationType if t in GGML_QUANT_SIZES}
        for _ in range(count):
            name = self.string()
            rank = self.number("I")
            if not 1 <= rank <= LARGEST_RANK:
                self.refuse(f"tensor {name} has {rank} axes, expected 1 to {LARGEST_RANK}")
            shape = tuple(self.number("Q") for _ in range(rank))[::-1]
            number = self.number("I")
            if number not in known:
                self.refuse(f"tensor {name} has unknown type {number}")
            elements, size = GGML_QUANT_SIZES[known[number]]
            if 0 in shape or shape[-1] % elements:
                self.refuse(
                    f"tensor {name} of {list(shape)}: rows of {known[number].name} are filled blocks of {elements}"
                )
            yield _Info(name, known[number].name, shape, shape[-1] // elements * size, self.number("Q"))

    def distinct(self, what: str, found: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for name, value in found:
            if name in seen:
                self.refuse(f"{what} {name} stands there twice")
            seen.add(name)
            yield name, value
