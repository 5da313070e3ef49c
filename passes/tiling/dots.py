"""Which products are summed by dot products of packed lanes on a machine: both factors as they are stored, one packed.

`linear[m,n] = sum(k: cast<f32>(x[m,k]) * cast<f32>(w[n,k]))` of bf16, w constant: w is packed in pairs along k;
of bytes, summed in i32, by fours.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from effcc.ir.contraction import Contraction, Operand, PackedDot
from effcc.ir.dtypes import b8, bf16, i7, i8, i16, l8, u7, u8
from effcc.ir.expr import Axis, free_axes
from effcc.ir.kernel import Kernel
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.pack import packable
from effcc.target import Target


@dataclass(frozen=True)
class PackedProduct:
    """A product whose `columns_of`, constant, is packed along `lane_axis`; `depth` is the axis of the neighbours, and
    `along_sets` whether what light weights are along it is what it sums.
    """

    dot: PackedDot
    columns_of: Operand
    lane_axis: str
    depth: str
    along_sets: bool


def dot_slots(dot: PackedDot, target: Target) -> int | None:
    """How many times what a multiply-add takes one step of such dot products takes in vectors; None where `target` has
    no instruction for it (`benchmarks/dot.md`).
    """
    form = (dot.left, dot.right)
    if form == (bf16, bf16) and target.sums_bf16:
        return _BF16_SLOTS_BESIDE_TILES if target.tile_registers else _BF16_SLOTS
    if form == (u8, i8) and target.sums_bytes:
        return 1
    if form == (i8, i8) and target.tile_registers:
        return _SIGNED_SLOTS
    if form in ((u7, i8), (u8, i7), (u8, l8)) and target.isa != "scalar":
        return 1 if target.sums_bytes else _SMALL_SLOTS[target.isa]
    if form == (b8, i8):
        return _BALANCED_SLOTS if target.isa == "avx2" and not target.sums_bytes else None
    return _PAIR_SLOTS if form == (i16, i16) and target.isa != "scalar" else None


def vector_depth(packed: PackedProduct, extent: int, target: Target) -> int:
    """How many packed points of an axis of so many one step in vectors sums."""
    dot = packed.dot
    if not dot.is_light or not packed.along_sets or target.sums_bytes:
        return dot.neighbours
    return min(dot.deepest, -(-extent // dot.neighbours) * dot.neighbours)


def step_slots(dot: PackedDot, depth: int, target: Target) -> int:
    """`dot_slots` of a step of so many points: where several fit in i16, a vpmaddubsw each, and a vpmaddwd for all."""
    slots = dot_slots(dot, target) or 1
    return slots + (depth // dot.neighbours - 1) * (slots - 1) if dot.is_light else slots


def sums_twice(dot: PackedDot, target: Target) -> bool:
    """Whether a step sums pairs in i16 first, and pairs of these by ones, which a register holds."""
    return dot.neighbours == 4 and not target.sums_bytes and (dot.left, dot.right) in _TWICE


def is_turned(dot: PackedDot, target: Target) -> bool:
    """Whether a step is |b| times a with b's sign, so that |b| has registers beside b."""
    return (dot.left, dot.right) == (b8, i8) and dot_slots(dot, target) == _BALANCED_SLOTS


_BF16_SLOTS, _BF16_SLOTS_BESIDE_TILES = 2, 4
"""Cores with a matrix unit were measured to sum half the products of their f32 multiply-adds; two is a guess."""
_SIGNED_SLOTS = 3
"""Of signed bytes alone only matrix units have dot products: in vectors, vpdpbusd twice and a subtraction."""
_TWICE = ((u7, i8), (u8, i7), (b8, i8), (u8, l8))
_SMALL_SLOTS = {"avx2": 2, "avx512": 3}
"""vpmaddubsw, vpmaddwd and an addition, which AVX2's vectors have a port of its own for."""
_BALANCED_SLOTS = 3
"""vpsignb, vpmaddubsw, vpmaddwd and an addition: 0.7 of two steps of pairs on Zen 3; not in AVX-512."""
_PAIR_SLOTS = 2
"""vpmaddwd and an addition; vpdpwssd is one."""


def packed_product(
    kernel: Kernel, product: Contraction, target: Target, beside: Collection[str] = ()
) -> PackedProduct | None:
    """How a product is summed by packed lanes; None where `target` has no such, or the kernel sums more than that, but
    for the targets `beside`.
    """
    dot = product.dot
    sums = [s.target for s in kernel.statements if s.reduction is not None or s.scatter is not None]
    if dot is None or dot_slots(dot, target) is None or not product.is_outer or {product.target, *beside} != {*sums}:
        return None
    for one in (product, product.turned):
        rows_of, columns_of = one.left, one.right
        lanes = [a for a in one.columns if packable(kernel, columns_of.data, a)] if columns_of.constant else []
        read = rows_of.data.buffer in {p.name for p in kernel.params}
        if not lanes or not read or rows_of.gathered:
            continue
        layout = layouts(kernel)[rows_of.data.buffer]
        depth = [a for a in product.depth if stride(rows_of.data, a, layout) == 1 and _pairs(kernel, a, dot)]
        whole = all(isinstance(kernel.extents[a], int) for a in (*one.rows, *one.columns))
        if dot.left == bf16 and target.tile_registers and not whole:
            continue  # in vectors its dot products are slower than multiply-adds of f32
        if depth and not kernel.scans and all(set(one.depth) & free_axes(o.value) for o in (rows_of, columns_of)):
            lane_axis = max(lanes, key=lambda a: _extent(kernel, a))
            return PackedProduct(dot, columns_of, lane_axis, depth[0], _is_along_sets(one, depth[0]))
    return None


def _is_along_sets(product: Contraction, depth: str) -> bool:
    """Whether an axis is the one of w[n,k,...] along which light weights are such: those that are summed beside it are
    windows' taps, no parts of what it was.
    """
    rows_of, columns_of = product.left.data, product.right.data
    kept = {*product.rows, *product.columns, *product.batch}
    moved = [names for i in rows_of.index if (names := free_axes(i)) & kept]
    taps = all(any(a in names for names in moved) for a in product.depth if a != depth)
    return len(columns_of.index) > 1 and columns_of.index[1] == Axis(depth) and taps


def _pairs(kernel: Kernel, axis: str, dot: PackedDot) -> bool:
    """Whether an axis has neighbours enough, in a number that is known."""
    return _extent(kernel, axis) >= dot.neighbours


def _extent(kernel: Kernel, axis: str) -> int:
    extent = kernel.extents[axis]
    return extent if isinstance(extent, int) else 0
