"""Asking early for what loops will read: a product streams its operand faster than it comes from beyond L2.

The hardware looks ahead within a page of memory, which lasts only 32 turns of a 32-column panel; one row times a matrix
takes 60 ns for a page, less than memory takes to answer.

What is read a line or more in a turn is asked for in L2, from where the hardware goes on. Of codes a turn reads less,
and computes the longer: then L2's latency is what is left, and L1 has room. One Zen 4 core, 30 layers of 1536x1536:
int4(group=32) takes 0.89 of the time from L1, nf4 0.96, int2 0.95; but int8 1.2 and f16 1.24.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import takewhile

from effcc.codegen.cpp.linear import LANE, Known, Linear, shifted
from effcc.codegen.cpp.loads import offset, place
from effcc.codegen.cpp.scope import Writer
from effcc.codegen.cpp.storage import Memory
from effcc.ir.dtypes import f32
from effcc.ir.vectors import Prefetch

_AHEAD = 8192
"""Bytes between what a product reads and what it asks for: two pages."""
_STREAM = 384
"""A loop that reads so many bytes a turn uses them hardly more than once: there are no accumulators for many rows."""
_STREAM_AHEAD = 2048
"""Bytes between what such a stream reads, of numbers that need no decoding, and what it asks for. It keeps up with the
memory, and hardware has most of it under way: at two pages an AMD Zen 4 read 15 to 35 % less, most by two streams in
turn; codes and halves at 2048 a third less."""
_AGAIN = 32
"""Reading the same so often, a loop finds it in L2 but for the first time: asking costs more than it saves."""
_LINE = 64
PANEL_OF_L2 = 4
"""A panel and the next one may take so many parts of L2, each: the rows' operand lies there too. Schedules count on it
(`PANEL_PARTS` of `passes/tiling/cost.py`)."""


def prefetch(writer: Writer, storage: Memory, index: Sequence[Linear], moved_by: Collection[str]) -> None:
    """Ask for a cache line that loops will read here later.

    Where a loop reads the same panel for one tile of rows after the other, each of its turns asks for a share of the
    next panel, which comes while all of them compute; else a loop asks for what it reads some turns later, of rows side
    by side for a share of all of them. Nothing is asked for where the whole stream is short, where another vector of
    the same line has asked already or another tile of rows brought the panel to L2, or where a loop that `moved_by`
    lacks reads it again and again from there (a recurrence's weights).
    """
    at = offset(storage, index)
    size = storage.dtype.bytes
    if storage.local or not writer.loops or at.lane != 1 or at.vectors or not isinstance(at.constant, int):
        return
    step, known = dict(at.terms).get(writer.loops[-1], 0), writer.known[writer.loops[-1]]
    if not isinstance(step, int) or step * known.modulus * size < 16 or at.constant * size % _LINE != 0:
        return
    moved_by = {*moved_by, *(name for name, _ in at.terms)}
    turn, (run, length) = step * known.modulus, _stream(writer, at)
    once = turn * size >= _STREAM or any(atom == writer.loops[-1] for atom, _ in index[-1].terms)  # or along a row
    ahead = _STREAM_AHEAD if once and size >= f32.bytes else _AHEAD
    if length * size < 2 * ahead:
        return
    around = writer.loops[: len(writer.loops) - len(run)]
    again = list(takewhile(lambda name: name not in moved_by, reversed(around)))
    outside = around[: len(around) - len(again)]
    shares = _turns(writer, again)
    stream = (storage.pointer, at.constant)
    if any(writer.loops[: len(loops)] == loops for loops in writer.asked.get(stream, ())):
        return
    fits = length * size <= writer.l2_bytes // PANEL_OF_L2
    if shares > 1 and outside and fits and all(atom == LANE for atom, _ in index[-1].terms):
        # A share is so many lines a turn, rounded up; the first vectors of the turn ask for them.
        if at.constant * size % (turn * size) < -(-turn * size // int(shares)):
            writer.add(Prefetch(place(storage, _share_of_next(writer, at, run, again, int(length)))))
    elif not _stays_in_l2(writer, turn * size, moved_by):
        outside = writer.loops[:-1]
        rows, inner = _rows_together(writer, at, run) if turn * size < _LINE else (1, ())
        far = Linear(tuple((n, c * rows if n in inner else c) for n, c in at.terms), at.constant)
        if at.constant < turn or rows == 1:  # else the first row's vectors have asked
            for line in range(0, turn * size * rows if rows > 1 else 1, _LINE):
                at_line = place(storage, shifted(far, (ahead + line) // size))
                writer.add(Prefetch(at_line, near=turn * size < _LINE))
    if outside:
        writer.asked.setdefault(stream, []).append(list(outside))


def _rows_together(writer: Writer, at: Linear, run: Sequence[str]) -> tuple[int, Sequence[str]]:
    """How many rows that follow on each other are read side by side, and the loops that read one of them. Rows of codes
    end within a line, so each asking for its own would leave lines out: one asks for those of all, in their order."""
    for n, name in enumerate(run[1:], 1):
        rows = writer.known[name].modulus
        if rows > 1 and dict(at.terms)[name] == _length(writer, at, run[:n]):
            return rows, run[:n]
    return 1, ()


def _length(writer: Writer, at: Linear, run: Sequence[str]) -> int:
    """The elements that loops read in all of their turns."""
    return _extent(writer.known[run[-1]]) * int(dict(at.terms)[run[-1]])


def _share_of_next(writer: Writer, at: Linear, run: Sequence[str], again: Sequence[str], length: int) -> Linear:
    """Where a turn of the loops `again` asks for its share of the next panel, `length` elements on: there the loops of
    the `run` take smaller steps, by the number of shares."""
    shares = int(_turns(writer, again))
    terms = {name: -(-int(c) // shares) if name in run else c for name, c in at.terms}
    first, share = at.constant + length, -(-length // shares)
    for name in again:
        low, modulus, turns = writer.known[name].low, writer.known[name].modulus, int(_turns(writer, [name]))
        if turns > 1 and low is not None:
            terms[name] = -(-share // modulus)
            first -= terms[name] * low
        share *= turns
    return Linear(tuple(terms.items()), first)


def _turns(writer: Writer, loops: Sequence[str]) -> float:
    """How often loops turn, one inside the other; 0 where that is known at run time only."""
    return math.prod(_extent(writer.known[name]) // writer.known[name].modulus for name in loops)


def _extent(known: Known) -> int:
    """How far the variable of a loop goes, in all of its turns; 0 where that is known at run time only."""
    if known.low is None or known.high is None:
        return 0
    return known.high - known.low + known.modulus


def _stays_in_l2(writer: Writer, turn_bytes: int, moved_by: Collection[str]) -> bool:
    """Whether an open loop reads the same `_AGAIN` times and more, all that is read in one of its turns fitting in L2;
    turn_bytes: of a turn of the innermost loop."""
    read: float = turn_bytes
    for name in reversed(writer.loops[:-1]):
        turns = _turns(writer, [name])
        if not turns or read > writer.l2_bytes:
            return False
        if name in moved_by:
            read *= turns
        elif turns >= _AGAIN:
            return True
    return False


def _stream(writer: Writer, at: Linear) -> tuple[list[str], float]:
    """The open loops that read without a gap, the innermost one and those that carry on where it ends, and how many
    elements they read. A loop that advances by several points computes all of them in a turn: rows side by side are
    one stream."""
    run: list[str] = []
    length: float = 0
    for name in reversed(writer.loops):
        step, known = dict(at.terms).get(name, 0), writer.known[name]
        if not isinstance(step, int) or step <= 0 or (length and length not in (step, step * known.modulus)):
            break
        run.append(name)
        length = _extent(known) * step if _extent(known) else math.inf
    return run, length
