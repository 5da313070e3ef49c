"""Where buffers live: memory behind a pointer, or named vector registers; and how wide a nest's vectors are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from effcc.codegen.cpp.values import computed
from effcc.ir.dims import Shape
from effcc.ir.dtypes import DType, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, children, free_axes, walk
from effcc.ir.loops import Alloc, For, If, LoopNest, Stmt, Tile


@dataclass(frozen=True)
class Memory:
    """A buffer behind a pointer (a parameter) or a `local` array; strides in elements."""

    pointer: str
    dtype: DType
    shape: Shape
    strides: Shape
    local: bool = False


@dataclass(frozen=True)
class Registers:
    """A buffer in variables: one for each point of its dimensions, `lane_dim` cut into vectors (None: all scalars)."""

    name: str
    names: dict[tuple[int, ...], str]
    dtype: DType
    shape: tuple[int, ...]
    lane_dim: int | None


@dataclass(frozen=True)
class TileRegisters:
    """A buffer in the registers of a matrix unit: by rows and columns of tiles."""

    name: str
    names: dict[tuple[int, int], str]
    dtype: DType


Storage = Memory | Registers


def statements(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Every statement of a body, at every depth, parents first."""
    for statement in body:
        yield statement
        match statement:
            case For():
                yield from statements(statement.body)
            case If():
                yield from statements(statement.body)
                yield from statements(statement.orelse)


def tiles(nest: LoopNest) -> Iterator[Tile]:
    """Every tile statement of a nest."""
    return (s for s in statements(nest.body) if isinstance(s, Tile))


def lanes_axis(tile: Tile) -> str | None:
    """The axis on the vector unit, if there is one."""
    return next((a.name for a in tile.axes if a.kind == "lanes"), None)


def choose_lanes(nest: LoopNest, vector_bytes: int) -> int:
    """The number of lanes of all vectors in a nest: what fits a register of the widest type that lanes hold.

    Types narrower than 32 bits do not count (they are computed in part of a register), nor does index arithmetic; and
    there are no more lanes than the longest lanes axis has elements, rounded up to a power of two.
    """
    width, longest = 4, 1
    for tile in tiles(nest):
        axis = lanes_axis(tile)
        if axis is None:
            continue
        longest = max(longest, *(a.extent for a in tile.axes if a.name == axis))
        for e in (tile.value, *tile.index):
            width = max(width, *(_lane_bytes(node, axis) for node in walk(e)))
    return max(1, min(vector_bytes // width, 1 << (longest - 1).bit_length()))


def _lane_bytes(e: Expr, axis: str) -> int:
    if isinstance(e, Const | Axis) or (e.dtype == i64 and not isinstance(e, Load)) or axis not in free_axes(e):
        return 4
    return computed(e.dtype).bytes


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides of a local array."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def lane_dimension(alloc: Alloc, nest: LoopNest, lanes: int) -> tuple[bool, int | None]:
    """Whether a local buffer can live in registers, and which of its dimensions lies in lanes.

    It can if every index to it is known when the tile is unrolled: constants, `unroll` axes, and the lanes axis in one
    and the same dimension everywhere, beginning at a multiple of the vector's lanes.
    """
    found: set[int] = set()
    for tile in tiles(nest):
        kinds = {a.name: a.kind for a in tile.axes}
        for index in _indices(tile, alloc.name):
            for position, e in enumerate(index):
                role = _role(e, kinds, lanes)
                if role == "unknown":
                    return False, None
                if role == "lanes":
                    found.add(position)
    if len(found) > 1:
        return False, None
    return True, next(iter(found), None)


def _indices(tile: Tile, buffer: str) -> Iterator[tuple[Expr, ...]]:
    if tile.buffer == buffer:
        yield tile.index
    for e in (tile.value, *tile.index):
        for node in walk(e):
            if isinstance(node, Load) and node.buffer == buffer:
                yield node.index


def _role(e: Expr, kinds: dict[str, str], lanes: int) -> str:
    """`lanes`, `point` (known once unrolled) or `unknown`."""
    match e:
        case Const():
            return "point"
        case Axis(name):
            return {"lanes": "lanes", "unroll": "point"}.get(kinds.get(name, ""), "unknown")
        case Call("add", (a, Const(offset))) if _role(a, kinds, lanes) == "lanes":
            return "lanes" if int(offset) % lanes == 0 else "unknown"
        case Call("add" | "sub" | "mul" | "floordiv" | "mod"):
            return "point" if all(_role(part, kinds, lanes) == "point" for part in children(e)) else "unknown"
    return "unknown"
