"""Codes of any width in bytes: code i of a row lies in byte i // (8 / w) at bit (i % (8 / w)) * w, for w of 1, 2 and 4.

Other widths are sums of planes, an array for each: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1, low bits first (the
way in which GGUF keeps the fifth and sixth bits apart, too). A row is the last axis, or so many of the last axes as it
takes to fill whole bytes; the first axis is never divided. Functions take arrays of NumPy and of PyTorch alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType, i8, i32, u8
from effcc.ir.expr import Const, Expr, add, cast, floor_div, integer, modulo, multiply
from effcc.ir.form import call

Array = Any
WIDTHS = (8, 4, 2, 1)


@dataclass(frozen=True)
class Plane:
    """The bits `low` up to `low + width` of codes."""

    width: int
    low: int

    @property
    def each(self) -> int:
        """Codes in a byte."""
        return 8 // self.width

    @property
    def mask(self) -> int:
        return (1 << self.width) - 1


@dataclass(frozen=True)
class Packed:
    """How codes of `bits` bits are stored; `signed` only for whole bytes, whose code is the number itself."""

    bits: int
    signed: bool = False

    @property
    def planes(self) -> tuple[Plane, ...]:
        found, low = [], 0
        for width in WIDTHS:
            if self.bits & width:
                found.append(Plane(width, low))
                low += width
        return tuple(found)

    def components(self, name: str, shape: tuple[int, ...]) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        """The arrays of codes of `shape`; planes after the first are called after their first bit, `values_bit4`."""
        dtype = i8 if self.signed else u8
        return tuple(
            (f"{name}_bit{p.low}" if p.low else name, dtype, _packed_shape(shape, p.each)) for p in self.planes
        )

    def pack(self, codes: Array) -> list[Array]:
        """The arrays that hold an array of codes (of any integer dtype)."""
        if self.signed:
            return [codes.astype(np.int8)]
        unsigned = codes.astype(np.uint8)
        return [_pack(unsigned, p) for p in self.planes]

    def unpack(self, arrays: Sequence[Array], shape: tuple[int, ...], xp: Any = np) -> Array:
        """The codes, of `shape`; `xp` is the library (numpy or torch) whose arrays they are."""
        if self.bits == 8:
            return arrays[0]
        parts = [_unpack(a, shape, p, xp) << p.low for a, p in zip(arrays, self.planes, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total | part
        return total

    def element(self, load: Callable[[int, Sequence[Expr]], Expr], place: Sequence[Expr], shape: Sequence[int]) -> Expr:
        """The code at a place, an i32 or the whole byte; `load(i, index)` is an element of plane i."""
        if self.bits == 8:
            return load(0, place)
        total: Expr | None = None
        for number, plane in enumerate(self.planes):
            first = _first_packed(tuple(shape), plane.each)
            position = flattened(place[first:], shape[first:])
            byte = cast(load(number, (*place[:first], floor_div(position, integer(plane.each)))), i32)
            shift = cast(multiply(modulo(position, integer(plane.each)), integer(plane.width)), i32)
            code: Expr = call("and", call("shr", byte, shift), Const(plane.mask, i32))
            if plane.low:
                code = call("shl", code, Const(plane.low, i32))
            total = code if total is None else call("or", total, code)
        assert total is not None
        return total


def flattened(place: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """The place in an array of `shape` whose axes are one."""
    total: Expr = integer(0)
    for index, size in zip(place, shape, strict=True):
        total = add(multiply(total, integer(size)), index)
    return total


def _first_packed(shape: tuple[int, ...], each: int) -> int:
    """The first of the axes whose codes follow each other in bytes."""
    first = len(shape) - 1
    while first > 1 and prod(shape[first:]) % each:
        first -= 1
    return first


def _packed_shape(shape: tuple[int, ...], each: int) -> tuple[int, ...]:
    if each == 1:
        return shape
    first = _first_packed(shape, each)
    return (*shape[:first], -(-prod(shape[first:]) // each))


def _pack(codes: Array, plane: Plane) -> Array:
    part = (codes >> plane.low) & plane.mask
    if plane.each == 1:
        return part
    shape = _packed_shape(codes.shape, plane.each)
    rows = part.reshape(*shape[:-1], -1)
    missing = -rows.shape[-1] % plane.each
    if missing:
        rows = np.concatenate([rows, np.zeros((*shape[:-1], missing), np.uint8)], axis=-1)
    total = rows[..., 0 :: plane.each].copy()
    for i in range(1, plane.each):
        total |= rows[..., i :: plane.each] << (i * plane.width)
    return total


def _unpack(packed: Array, shape: tuple[int, ...], plane: Plane, xp: Any) -> Array:
    if plane.each == 1:
        return packed
    parts = [(packed >> (i * plane.width)) & plane.mask for i in range(plane.each)]
    rows = xp.stack(parts, -1).reshape(*packed.shape[:-1], packed.shape[-1] * plane.each)
    length = prod(shape[_first_packed(shape, plane.each) :])
    return rows[..., :length].reshape(shape)
