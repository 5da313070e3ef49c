"""What a nest runs over and what it touches: axes with roles, and operands with a stride along each axis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from effcc.passes.tiling.constraints import Domain
from effcc.target import PAGE_BYTES, Target

Role = Literal["batch", "m", "n", "k", "kept", "reduced"]

CACHE_LINE = 64
MANY = 1 << 20
"""A stride that is uneven or unknown, in elements: as bad as far."""


@dataclass(frozen=True)
class Axis:
    """A named axis, its extent (the hint, when it is dynamic), and its role.

    In a contraction `batch` indexes everything, `m` only A and C, `n` only B and C, `k` only A and B. In pointwise
    nests all axes are `kept`; in reductions the others are `reduced`.
    """

    name: str
    extent: int
    role: Role = "kept"


@dataclass(frozen=True)
class Operand:
    """A buffer that a nest reads or writes: its stride along each axis, in elements (0, or no entry: does not move).

    places: at how many places a point reads it, where these are data: each has lanes of its own to gather.
    near: the axes along which these places are in one row of neighbours, whose lines points share.
    """

    name: str
    strides: Mapping[str, int] = field(hash=False)
    element_bytes: int = 4
    written: bool = False
    places: int = 1
    near: frozenset[str] = frozenset()


def extents(axes: Iterable[Axis], role: Role) -> tuple[int, ...]:
    """The extents of the axes of one role, outermost first."""
    return tuple(a.extent for a in axes if a.role == role)


def operand_bytes(operand: Operand, axes: Iterable[Axis]) -> int:
    """How many bytes of an operand the whole nest touches, as a closed form: all its points, but no more than lie
    between the first and the last (the windows of a convolution overlap).
    """
    points, span = 1, 1
    for a in axes:
        stride = abs(operand.strides.get(a.name, 0))
        points *= a.extent if stride else 1
        span += stride * (a.extent - 1)
    return min(points, span) * operand.element_bytes


def access_slots(operand: Operand, axis: str, lanes: int) -> int:
    """Issue slots to load or store one vector of an operand along an axis.

    A load is one slot where neighbours are adjacent, none where all lanes are one element (it is hoisted), as many as
    the stride and as many for shuffles where every second or fourth element is taken, otherwise a scalar load and an
    insertion for each lane, which of bytes wait for one another, at each of its places, and take twice as long where
    each lane has a page of its own; a store takes twice as long as a load, since there is one store port, and twice
    that where the lanes' lines share one set of L1: lines leave it before they are full (a product's 32 columns of
    128 x 128 pixels: 115 to 150 cycles a vector, beside 64 that were predicted without this).
    """
    stride = abs(operand.strides.get(axis, 0))
    if stride == 0:
        return 2 if operand.written else 0
    each = 4 if operand.element_bytes == 1 else 2
    if stride < MANY and stride * operand.element_bytes >= PAGE_BYTES:
        each *= 4 if operand.written and stride * operand.element_bytes % PAGE_BYTES == 0 else 2
    once = 1 if stride == 1 else 2 * stride if stride in (2, 4) and not operand.written else each * lanes
    return 2 * once if operand.written else once * operand.places


def wasted_bytes(operand: Operand, axis: str) -> int:
    """By how much more than its elements an operand's cache lines are moved when it is walked along an axis alone."""
    stride = abs(operand.strides.get(axis, 0))
    if axis in operand.near:
        return 1
    return min(max(stride, 1), max(1, CACHE_LINE // operand.element_bytes))


def vector_axes(axes: tuple[Axis, ...], operands: Iterable[Operand]) -> tuple[str, ...]:
    """Axes worth vectorizing, in the order of the nest: along which some operand is contiguous; else the last axis."""
    contiguous = {a for o in operands for a, stride in o.strides.items() if abs(stride) == 1}
    found = tuple(a.name for a in axes if a.name in contiguous and a.extent > 1)
    return found or (axes[-1].name,)


def parts_of(extent: int, cores: int, most: int = 128) -> Domain:
    """Into how many parts an extent may be split: powers of two and three times those, and multiples of the cores."""
    counts = {c << p for c in (1, 3, cores) for p in range(8)}
    return tuple(sorted(c for c in counts if c <= max(1, min(most, extent))))


def task_tiles(vectors: int, rows: int, cores: int, group: int) -> Domain:
    """How many vectors of an axis a task of one of `rows` may have: whole groups, or nearly even parts, none shorter
    than a `group` while all cores have tasks, since memory is read in runs.
    """
    parts = {-(-vectors // count) for count in parts_of(vectors, cores)}
    parts |= {-(-part // group) * group for part in parts} | {group, 2 * group, 4 * group}
    least = min(group, -(-vectors * rows // cores))
    return tuple(sorted(part for part in parts if least <= part < vectors or part == vectors))


def vectors_at_once(lanes: int, target: Target) -> int:
    """The fewest vectors of a wide type that are computed at once: as many lanes as a vector of f32 has."""
    return max(1, target.vector_lanes // lanes)
