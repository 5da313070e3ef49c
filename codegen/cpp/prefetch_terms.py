"""What the sums of gathered rows ask for early: the piece of the weight that the next result takes.

    for g { for n { for j { acc = fma(T[4 * g + I[n,g,j]], V[n,g,j], acc) } store(R[n], acc) } }

Taken slab by slab, V is read in pieces of a few lines, a row of the weight apart, which the hardware does not foresee.
Asked for a result ahead, they arrive in time: 2:4 of 768 x 3072 in slabs of 96 columns, whose weights come from L3,
takes 0.67 of the time (one Zen 4 core, a sketch: 2.58 and 1.73 ms for 64 rows).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from effcc.codegen.cpp.expressions import Evaluator
from effcc.codegen.cpp.linear import LANE, shifted
from effcc.codegen.cpp.loads import offset, place
from effcc.codegen.cpp.prefetch_rows import LINE, SEVERAL, is_far
from effcc.codegen.cpp.scope import Writer
from effcc.codegen.cpp.storage import Memory, Registers, Storage
from effcc.ir.affine import coefficient
from effcc.ir.expr import Const, Load, free_axes, integer, loads, substitute_axes
from effcc.ir.loops import For, Tile
from effcc.ir.vectors import Prefetch


def ask_for_next_terms(writer: Writer, storage: Mapping[str, Storage], variables: Mapping[str, str], loop: For) -> None:
    """Before `loop`, in a turn of the loop around it: ask for what it will read in the next turn. Nothing where it does
    not sum gathered rows into registers, or where turns read on from where the one before ends."""
    if not writer.loops:
        return
    found = _nest(loop)
    if found is None:
        return
    loops, tiles = found
    if not all(isinstance(storage.get(t.buffer), Registers) and _gathers(t, storage) for t in tiles):
        return
    at = Evaluator(writer=writer, storage=storage, variables=variables)
    asked: set[Load] = set()
    for load in (x for t in tiles for x in _pieces(t, storage)):
        memory = storage[load.buffer]
        if load in asked or not isinstance(memory, Memory) or not is_far(writer, memory):
            continue
        asked.add(load)
        width = _width(load, memory, loops)
        begin = {one.axis: integer(0) for one in loops}
        start = offset(memory, [at.linear(substitute_axes(i, begin)) for i in load.index])
        moves, turn = dict(start.terms), writer.loops[-1]
        ahead = moves.get(turn, 0) * writer.known[turn].modulus
        if width is None or start.vectors or LANE in moves or not isinstance(ahead, int) or ahead <= width:
            continue
        size = memory.dtype.bytes
        if -(-width * size // LINE) <= SEVERAL:
            for byte in range(0, width * size, LINE):
                writer.add(Prefetch(place(memory, shifted(start, ahead + byte // size))))


def _nest(loop: For) -> tuple[list[For], list[Tile]] | None:
    """Loops right inside one another from 0 to known ends, and the tiles in the innermost; None where it is no such
    nest."""
    loops = [loop]
    while len(loops[-1].body) == 1 and isinstance(inner := loops[-1].body[0], For):
        loops.append(inner)
    tiles = [s for s in loops[-1].body if isinstance(s, Tile)]
    whole = bool(tiles) and len(tiles) == len(loops[-1].body)
    return (loops, tiles) if whole and all(_trips(one) is not None for one in loops) else None


def _trips(loop: For) -> int | None:
    match loop:
        case For(start=Const(value=0), stop=Const(value=int(stop)), kind="serial"):
            return -(-stop // loop.step)
    return None


def _gathers(tile: Tile, storage: Mapping[str, Storage]) -> bool:
    """Whether it reads rows of a task's own at places that data say."""
    read = ((storage.get(x.buffer), x) for x in loads(tile.value))
    return any(isinstance(m, Memory) and m.local and any(loads(i) for i in x.index) for m, x in read)


def _pieces(tile: Tile, storage: Mapping[str, Storage]) -> Iterator[Load]:
    """What all lanes of a tile read alike in memory, at places that no data say."""
    own = {a.name for a in tile.axes}
    for load in loads(tile.value):
        memory = storage.get(load.buffer)
        alike = not any(loads(i) or free_axes(i) & own for i in load.index)
        if isinstance(memory, Memory) and not memory.local and alike:
            yield load


def _width(load: Load, memory: Memory, loops: Sequence[For]) -> int | None:
    """Over how many elements the turns of loops move a load."""
    width = 1
    for loop in loops:
        steps = [coefficient(i, loop.axis) for i in load.index]
        moved = 0
        for step, stride in zip(steps, memory.strides, strict=True):
            if not isinstance(step, int) or not isinstance(stride, int):
                return None
            moved += step * stride
        trips = _trips(loop)
        assert trips is not None
        width += abs(moved) * loop.step * (trips - 1)
    return width
