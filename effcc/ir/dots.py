"""Dot products of packed lanes: for which dtypes there are such, and what the registers of matrix units hold.

Contractions, schedules and vectors all ask here.
"""

from __future__ import annotations

from collections.abc import Mapping

from effcc.ir.dtypes import DType, b8, bf16, f32, i7, i8, i16, i32, l8, u7, u8

DOTS: Mapping[tuple[DType, DType, DType], int] = {
    (i8, i8, i32): 4,
    (u8, i8, i32): 4,
    (u7, i8, i32): 4,
    (u8, i7, i32): 4,
    (b8, i8, i32): 4,
    (u8, l8, i32): 4,
    (u8, l8, i16): 2,
    (i16, i16, i32): 2,
    (bf16, bf16, f32): 2,
}
"""How many packed neighbours make one sum, by the dtypes of a, b and c: c + the sum of a * b. Two products of u7
with i8, or of u8 with i7, are at most 2 * 128 * 127 or 2 * 255 * 64 in magnitude, which i16 holds: so machines sum them
that have no sums of four. Of b8 with i8 likewise, as |b| times a with b's sign. Of u8 with l8 i16 holds the sums of
eight, which are added up in i16 first, pair by pair."""

LIGHT_DEPTH = 16
"""So many neighbours of u8 and l8 one step sums: four pairs in each lane of i16, two of which make one of i32."""

PACKED = frozenset(dtype for a, b, _ in DOTS for dtype in (a, b))
"""What is packed."""

TILE_DOTS = frozenset({(i8, i8, i32), (u8, i8, i32), (bf16, bf16, f32)})
"""Of these, the ones that matrix units have, a being the factor with rows."""

TILE_SIDE, TILE_ROW_BYTES, TILE_REGISTERS = 16, 64, 8
"""A tile register has so many rows, each of so many bytes; a thread has so many tile registers."""
