"""Places in the arena: buffers whose lives do not meet share memory.

A greedy fit by size (Pisarchyk and Lee, arXiv:2001.03288): buffers in order of decreasing size, each at the lowest offset
where no buffer alive at the same time stands. Sizes that depend on symbols are planned at given values of the symbols; a
call with other values plans again (`plan` is a pure function of the program and the values).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from effcc.ir.dims import evaluate
from effcc.ir.program import Program
from effcc.ir.types import TensorType

ALIGNMENT = 64


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes by buffer name, the arena's size, and the least that any plan could need (the live-range bound)."""

    offsets: Mapping[str, int]
    arena_bytes: int
    lower_bound: int


def storage_bytes(type: TensorType, sizes: Mapping[str, int]) -> int:
    """Bytes from the first to past the last element of a tensor of this type."""
    shape = [evaluate(d, sizes) for d in type.shape]
    if 0 in shape:
        return 0
    strides = [evaluate(s, sizes) for s in type.layout]
    return (sum((d - 1) * abs(s) for d, s in zip(shape, strides, strict=True)) + 1) * type.dtype.bytes


def live_ranges(program: Program) -> dict[str, tuple[int, int]]:
    """For each arena buffer, the first and the last step that touches it."""
    arena = {b.name for b in program.buffers if b.space == "arena"}
    ranges: dict[str, tuple[int, int]] = {}
    for position, step in enumerate(program.steps):
        for name in (*step.arguments, *step.results):
            if name in arena:
                first, _ = ranges.get(name, (position, position))
                ranges[name] = (first, position)
    return ranges


def plan(program: Program, sizes: Mapping[str, int]) -> Plan:
    """Offsets for every arena buffer, where the size symbols have the values `sizes`."""
    ranges = live_ranges(program)
    lengths = {n: _aligned(storage_bytes(program.buffer(n).type, sizes)) for n in ranges}
    placed: list[tuple[int, int, int, int]] = []
    offsets: dict[str, int] = {}
    for name in sorted(ranges, key=lambda n: (-lengths[n], ranges[n], n)):
        first, last = ranges[name]
        offset = 0
        for start, end, lo, hi in sorted(placed):
            if lo <= last and first <= hi and start < offset + lengths[name]:
                offset = max(offset, end)
        offsets[name] = offset
        placed.append((offset, offset + lengths[name], first, last))
    alive = [
        sum(lengths[n] for n, (lo, hi) in ranges.items() if lo <= step <= hi) for step in range(len(program.steps))
    ]
    return Plan(offsets, max((e for _, e, _, _ in placed), default=0), max(alive, default=0))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
