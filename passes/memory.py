"""Places in the arena: buffers whose lives do not meet share memory.

Where all sizes are known, a greedy fit by size (Pisarchyk and Lee, arXiv:2001.03288): buffers in order of decreasing
size, each at the lowest offset where no buffer alive at the same time stands. Where sizes depend on symbols, offsets
are expressions: buffers of provably equal size whose lives do not meet share a slot, and slots stand one after the
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effcc.ir.dims import Dim, dim, evaluate, same
from effcc.ir.program import Branch, Loop, Program, Step
from effcc.ir.types import TensorType

ALIGNMENT = 64


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes by buffer name, the arena's size, and the least that any plan could need (the live-range bound).

    Sizes that depend on symbols make them expressions; the bound is then None.
    """

    offsets: Mapping[str, Dim]
    arena_bytes: Dim
    lower_bound: int | None

    def bytes_at(self, sizes: Mapping[str, int]) -> int:
        """The arena's size where the size symbols have these values."""
        return evaluate(self.arena_bytes, sizes)


def storage_bytes(type: TensorType) -> Dim:
    """Bytes from the first to past the last element of a tensor of this type."""
    return dim(type.extent * type.dtype.bytes)


def live_ranges(program: Program) -> dict[str, tuple[int, int]]:
    """For each arena buffer with memory of its own, the first and the last step that touches it or an alias of it, as
    numbers in the order of the text.

    What a loop and a step outside of it touch lives through all turns of the loop. A condition lives until what it
    decides is done: where other steps wrote there, threads would have to wait for the last one that reads it.
    """
    found = _Lives(program)
    found.walk((*program.prepare, *program.steps))
    return found.ranges


class _Lives:
    """The live ranges of what has been walked."""

    def __init__(self, program: Program) -> None:
        self.ranges: dict[str, tuple[int, int]] = {}
        self._program = program
        self._position = 0
        self._loops: list[tuple[int, int]] = []

    def walk(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Branch):
                self._touch((step.condition,))
                self.walk(step.then)
                self.walk(step.orelse)
                self._touch((step.condition,))
            elif isinstance(step, Loop):
                self._loop(step)
            else:
                self._touch(step.touched)

    def _loop(self, loop: Loop) -> None:
        begin, before = self._position, self.ranges
        self.ranges = {}
        self.walk(loop.test)
        self._touch((loop.condition,))
        self.walk(loop.body)
        self._touch((loop.condition,))
        last = self._position - 1
        self._loops.append((begin, last))
        inside, self.ranges = self.ranges, before
        for name, (first, end) in inside.items():
            self.ranges[name] = (self._begun(before[name][0]), last) if name in before else (first, end)

    def _touch(self, names: Iterable[str]) -> None:
        for name in map(self._program.memory_of, names):
            if self._program.buffer(name).space == "arena":
                first, _ = self.ranges.get(name, (self._position, self._position))
                self.ranges[name] = (self._begun(first), self._position)
        self._position += 1

    def _begun(self, first: int) -> int:
        """Where what is touched after loops lives from: from the begin of the outermost in which it was first."""
        for begin, last in self._loops:
            first = begin if begin < first <= last else first
        return first


def plan(program: Program) -> Plan:
    """A place for every arena buffer of the program's two lists of steps."""
    ranges = live_ranges(program)
    lengths = {n: _aligned(storage_bytes(program.buffer(n).type)) for n in ranges}
    if all(isinstance(length, int) for length in lengths.values()):
        return _fit(ranges, {n: int(length) for n, length in lengths.items()})
    return _slots(ranges, lengths)


def place(program: Program) -> tuple[Program, Plan]:
    """The program with the known offsets written on its buffers, and the plan."""
    found = plan(program)
    known = {n: o for n, o in found.offsets.items() if isinstance(o, int)}
    buffers = tuple(replace(b, offset=known.get(b.name, b.offset)) for b in program.buffers)
    return replace(program, buffers=buffers), found


def _fit(ranges: Mapping[str, tuple[int, int]], lengths: Mapping[str, int]) -> Plan:
    steps = max((hi for _, hi in ranges.values()), default=-1) + 1
    alive = np.zeros(steps + 1, dtype=np.int64)  # by how many bytes more live from each step on
    placed = np.zeros((4, len(ranges)), dtype=np.int64)  # of each that stands: its first step, its last, start, end
    offsets: dict[str, Dim] = {}
    for count, name in enumerate(sorted(ranges, key=lambda n: (-lengths[n], ranges[n], n))):
        (first, last), length = ranges[name], lengths[name]
        firsts, lasts, starts, ends = placed[:, :count]
        meet = (firsts <= last) & (lasts >= first)
        offset = 0
        for start, end in sorted(zip(starts[meet].tolist(), ends[meet].tolist(), strict=True)):
            if start >= offset + length:
                break
            offset = max(offset, end)
        offsets[name] = offset
        placed[:, count] = first, last, offset, offset + length
        alive[first] += length
        alive[last + 1] -= length
    return Plan(offsets, int(placed[3].max(initial=0)), int(alive.cumsum().max(initial=0)))


def _slots(ranges: Mapping[str, tuple[int, int]], lengths: Mapping[str, Dim]) -> Plan:
    slots: list[tuple[Dim, int, list[str]]] = []
    for name in sorted(ranges, key=lambda n: (ranges[n], n)):
        first, last = ranges[name]
        for k, (length, busy, members) in enumerate(slots):
            if busy < first and same(length, lengths[name]):
                slots[k] = (length, last, [*members, name])
                break
        else:
            slots.append((lengths[name], last, [name]))
    offsets: dict[str, Dim] = {}
    total: Dim = 0
    for length, _, members in slots:
        offsets.update(dict.fromkeys(members, total))
        total = dim(total + length)
    return Plan(offsets, total, None)


def _aligned(size: Dim) -> Dim:
    """At least `size`, a multiple of the alignment."""
    if isinstance(size, int):
        return -(-size // ALIGNMENT) * ALIGNMENT
    return dim(((size + ALIGNMENT - 1) // ALIGNMENT) * ALIGNMENT)
