"""Loops: what text is printed from. Serial and parallel loops around statements on tiles with named axes.

    loops @matmul(A: f32[64,128], B: f32[4,128,32]) -> (O: f32[64,128]) {
      parallel m0 in 0..64 step 16 {
        parallel n0 in 0..4 step 1 {
          alloc acc: f32[16,32] in register
          tile m=16 unroll, n=32 lanes: acc[m,n] = 0.0
          for k in 0..128 step 1 {
            tile m=16 unroll, n=32 lanes: acc[m,n] add= A[m0 + m,k] * B[n0,k,n]
          }
          tile m=16 unroll, n=32 lanes: O[m0 + m,32 * n0 + n] = acc[m,n]
        }
      }
    }

A tile statement is a statement of the cascade, restricted to a box of constant extents. `lanes` goes to the vector
unit, `unroll` to registers, `packed` points are neighbours of a dot product, `loop` stays a loop; backends with blocks
(Triton) take all of them as block axes. An axis with a limit (`m=16 unroll limit s0 - m0`) covers only that many of its
points (a mask). Register buffers are indexed by tile axes alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from effcc.ir.dims import Dim, symbols
from effcc.ir.dtypes import DType
from effcc.ir.expr import Expr, Size, walk
from effcc.ir.kernel import Param


@dataclass(frozen=True)
class TileAxis:
    """One axis of a tile: its constant extent, maybe a limit, and its kind: `lanes`, `unroll`, `packed` or `loop`."""

    name: str
    extent: int
    kind: str
    limit: Expr | None = None


@dataclass(frozen=True)
class Alloc:
    """A local buffer, alive until the end of the enclosing block. `space`: `register`, `tile` (registers of a matrix
    unit), `local` (cache) or `shared`.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    space: str


@dataclass(frozen=True)
class Tile:
    """`buffer[index] combine= value` at every point of the tile's axes.

    `combine` is `set`, or an operator (`add`, `mul`, `max`, `min`, ...) that folds `value` into what stands there. An
    axis of the tile that does not occur in `index` is reduced over by `combine`.
    """

    axes: tuple[TileAxis, ...]
    buffer: str
    index: tuple[Expr, ...]
    combine: str
    value: Expr


@dataclass(frozen=True)
class For:
    """`for axis in start..stop step step`; `kind` is `serial` or `parallel` (its iterations may run at once)."""

    axis: str
    start: Expr
    stop: Expr
    step: int
    kind: str
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class If:
    condition: Expr
    body: tuple[Stmt, ...]
    orelse: tuple[Stmt, ...] = ()


Stmt = Alloc | Tile | For | If


@dataclass(frozen=True)
class LoopNest:
    """One function: the buffers it reads and writes, and its body. `notes` say which schedule it follows and why."""

    name: str
    params: tuple[Param, ...]
    outputs: tuple[Param, ...]
    body: tuple[Stmt, ...]
    notes: tuple[str, ...] = ()

    @property
    def signature(self) -> tuple[Param, ...]:
        """What a launch binds to buffers: the parameters, then the outputs."""
        return (*self.params, *self.outputs)

    @property
    def sizes(self) -> tuple[str, ...]:
        """The names of all size symbols that its types and expressions use, in order."""
        mentioned = (part.value for e in expressions(self.body) for part in walk(e) if isinstance(part, Size))
        return tuple(s.name for s in symbols([*self._held(), *mentioned]))

    @property
    def given_sizes(self) -> tuple[str, ...]:
        """The size symbols among them that no shape holds: the program that it is part of gives their values."""
        held = {s.name for s in symbols(self._held())}
        return tuple(s for s in self.sizes if s not in held)

    def _held(self) -> list[Dim]:
        return [d for p in self.signature for d in (*p.type.shape, *p.type.layout)]


def expressions(body: tuple[Stmt, ...]) -> Iterator[Expr]:
    """Bounds, conditions, indices, values and limits, those of nested statements too."""
    for statement in body:
        match statement:
            case For():
                yield from (statement.start, statement.stop)
                yield from expressions(statement.body)
            case If():
                yield statement.condition
                yield from expressions((*statement.body, *statement.orelse))
            case Tile():
                yield from (*statement.index, statement.value)
                yield from (a.limit for a in statement.axes if a.limit is not None)
