"""Which steps of a program may run at one time: those that touch no memory that another one writes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from effcc.ir.dims import Dim
from effcc.ir.program import Buffer, Native, Program

_CONSTANT = frozenset({"weight", "prepared"})


@dataclass
class _Places:
    """A set of buffers, for asking whether another one may share memory with any of them.

    names: their own; anywhere: whether the place of one in the arena is not known; starts, ends: the parts of the arena
    that the others take, apart from each other and in order; constant, variable: whether there are weights, or inputs
    and outputs, which a caller may have given memory in common.
    """

    names: set[str] = field(default_factory=set)
    anywhere: bool = False
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    constant: bool = False
    variable: bool = False

    def take(self, start: int, end: int) -> None:
        """Add a part of the arena."""
        first, last = bisect_left(self.ends, start), bisect_right(self.starts, end)
        if first < last:
            start, end = min(start, self.starts[first]), max(end, self.ends[last - 1])
        self.starts[first:last], self.ends[first:last] = [start], [end]

    def take_all(self, other: _Places) -> None:
        """Add what others take."""
        self.names |= other.names
        self.anywhere |= other.anywhere
        self.constant |= other.constant
        self.variable |= other.variable
        for start, end in zip(other.starts, other.ends, strict=True):
            self.take(start, end)

    def takes(self, start: int, end: int) -> bool:
        """Whether some of a part of the arena is taken."""
        first = bisect_right(self.ends, start)
        return first < len(self.starts) and self.starts[first] < end


class Pending:
    """The steps that run at one time so far, since threads last waited for each other.

    offset: where an arena buffer begins, in bytes; no_alias: buffers whose memory no other one shares.
    """

    def __init__(self, program: Program, offset: Callable[[Buffer], Dim], no_alias: frozenset[str]) -> None:
        self._program, self._offset, self._no_alias = program, offset, no_alias
        self.clear()

    def clear(self) -> None:
        """All threads have waited for each other."""
        self._read, self._written = _Places(), _Places()

    def add(self, step: Native) -> None:
        """Let a step run beside the others."""
        for names, places in ((step.arguments, self._read), (step.results, self._written)):
            for name in names:
                self._put(name, places)

    def read(self, name: str) -> None:
        """Let all threads read a buffer beside the steps."""
        self._put(name, self._read)

    def writes(self, name: str) -> bool:
        """Whether one of the steps writes what a buffer holds."""
        return self._shares(name, self._written)

    def add_all(self, other: Pending) -> None:
        """Let the steps of another run beside these."""
        self._read.take_all(other._read)
        self._written.take_all(other._written)

    def copy(self) -> Pending:
        own = Pending(self._program, self._offset, self._no_alias)
        own.add_all(self)
        return own

    def meets(self, step: Native) -> bool:
        """Whether a step must wait: it touches what one of the others writes, or writes what one reads."""
        return any(self._shares(name, self._written) for name in step.touched) or any(
            self._shares(name, self._read) for name in step.results
        )

    def _put(self, name: str, places: _Places) -> None:
        buffer = self._program.buffer(self._program.memory_of(name))
        places.names.add(buffer.name)
        if buffer.space == "arena":
            part = self._part(buffer)
            if part is None:
                places.anywhere = True
            else:
                places.take(*part)
        elif buffer.name not in self._no_alias:
            places.constant |= buffer.space in _CONSTANT
            places.variable |= buffer.space not in _CONSTANT

    def _shares(self, name: str, places: _Places) -> bool:
        buffer = self._program.buffer(self._program.memory_of(name))
        if buffer.name in places.names:
            return True
        if buffer.space == "arena":
            part = self._part(buffer)
            return places.anywhere or (bool(places.starts) if part is None else places.takes(*part))
        if buffer.name in self._no_alias:
            return False
        return places.variable or (places.constant and buffer.space not in _CONSTANT)

    def _part(self, buffer: Buffer) -> tuple[int, int] | None:
        """Where an arena buffer begins and ends; None where that depends on sizes."""
        start, type = self._offset(buffer), buffer.type
        if not isinstance(start, int) or not isinstance(type.extent, int):
            return None
        return start, start + type.extent * type.dtype.bytes
