"""What holds in every loop nest: names in scope, tiles with constant boxes, registers indexed by tile axes alone."""

from __future__ import annotations

from effcc.errors import IRTypeError, UnknownNameError
from effcc.ir.dims import symbols
from effcc.ir.dtypes import DType, boolean, i64
from effcc.ir.expr import Axis, Const, Expr, free_axes, loads
from effcc.ir.loops import Alloc, For, If, LoopNest, Stmt, Tile
from effcc.ir.op import require
from effcc.ir.scalars import FUNCTIONS, REDUCTIONS
from effcc.ir.verifier.expressions import Scope

SPACES = ("register", "tile", "local", "shared")
TILE_KINDS = ("lanes", "unroll", "loop", "packed")
LOOP_KINDS = ("serial", "parallel")
Buffers = dict[str, tuple[DType, int]]


def verify_loops(nest: LoopNest, sizes: frozenset[str] = frozenset()) -> None:
    """Raise IRTypeError, naming the loop nest, unless it makes sense. `sizes`: as for a kernel (`verify_kernel`)."""
    buffers = {p.name: (p.type.dtype, p.type.rank) for p in (*nest.params, *nest.outputs)}
    shapes = [size for p in (*nest.params, *nest.outputs) for size in (*p.type.shape, *p.type.layout)]
    known = sizes | {s.name for s in symbols(shapes)}
    try:
        require(len(buffers) == len(nest.params) + len(nest.outputs), "a buffer is declared twice")
        _Block(frozenset(), buffers, {o.name: "output" for o in nest.outputs}, known).check(nest.body)
    except (IRTypeError, UnknownNameError) as error:
        raise IRTypeError(f"loops @{nest.name}: {error}") from None


class _Block:
    """The names in scope in one block. `writable` maps the buffers that may be written to their space."""

    def __init__(self, axes: frozenset[str], buffers: Buffers, writable: dict[str, str], sizes: frozenset[str]) -> None:
        self.axes = axes
        self.buffers = dict(buffers)
        self.writable = dict(writable)
        self.sizes = sizes

    def check(self, body: tuple[Stmt, ...]) -> None:
        for statement in body:
            match statement:
                case Alloc():
                    self._check_alloc(statement)
                case Tile():
                    try:
                        self._check_tile(statement)
                    except IRTypeError as error:
                        raise IRTypeError(f"tile writing {statement.buffer!r}: {error}") from None
                case For():
                    self._check_loop(statement)
                case If(condition, then, orelse):
                    self._scalar(condition, boolean)
                    for branch in (then, orelse):
                        _Block(self.axes, self.buffers, self.writable, self.sizes).check(branch)

    def _scalar(self, e: Expr, dtype: DType) -> None:
        Scope(self.axes, self.buffers, self.sizes).check(e)
        require(e.dtype == dtype, f"expected a value of type {dtype}, got {e.dtype}")

    def _check_alloc(self, alloc: Alloc) -> None:
        require(alloc.name not in self.buffers, f"local buffer {alloc.name!r} hides another buffer")
        require(alloc.space in SPACES, f"space of {alloc.name!r} must be one of {SPACES}, got {alloc.space!r}")
        require(all(isinstance(n, int) and n >= 0 for n in alloc.shape), f"sizes of {alloc.name!r}: {alloc.shape}")
        self.buffers[alloc.name] = (alloc.dtype, len(alloc.shape))
        self.writable[alloc.name] = alloc.space

    def _check_loop(self, loop: For) -> None:
        require(loop.kind in LOOP_KINDS, f"loop {loop.axis!r} must be one of {LOOP_KINDS}, got {loop.kind!r}")
        require(loop.axis not in self.axes, f"loop {loop.axis!r} hides another loop")
        require(loop.step > 0, f"loop {loop.axis!r} has the step {loop.step}")
        self._scalar(loop.start, i64)
        self._scalar(loop.stop, i64)
        _Block(self.axes | {loop.axis}, self.buffers, self.writable, self.sizes).check(loop.body)

    def _check_tile(self, tile: Tile) -> None:
        names = [a.name for a in tile.axes]
        require(len(set(names)) == len(names), f"an axis stands twice in ({', '.join(names)})")
        for axis in tile.axes:
            require(axis.name not in self.axes, f"tile axis {axis.name!r} hides a loop")
            require(axis.extent >= 1, f"tile axis {axis.name!r} has the extent {axis.extent}")
            require(axis.kind in TILE_KINDS, f"tile axis {axis.name!r} must be one of {TILE_KINDS}, got {axis.kind!r}")
            if axis.limit is not None:
                self._scalar(axis.limit, i64)
        require(tile.buffer in self.writable, "it is neither an output nor a local buffer in scope")
        dtype, rank = self.buffers[tile.buffer]
        require(rank == len(tile.index), f"it has {rank} dimensions, got {len(tile.index)} indices")
        require(tile.value.dtype == dtype, f"it is {dtype}, the value {tile.value.dtype}")
        scope = Scope(self.axes | set(names), self.buffers, self.sizes)
        scope.check_index(tile.index)
        scope.check(tile.value)
        self._check_combine(tile)
        self._check_register(tile.buffer, tile.index, set(names))
        for e in (tile.value, *tile.index):
            for load in loads(e):
                self._check_register(load.buffer, load.index, set(names))

    def _check_combine(self, tile: Tile) -> None:
        known = tile.combine == "set" or tile.combine in REDUCTIONS
        known = known or (tile.combine in FUNCTIONS and FUNCTIONS[tile.combine].associative)
        require(known, f"{tile.combine!r} is no operator to combine by")
        written = frozenset[str]().union(*(free_axes(i) for i in tile.index))
        lost = [a.name for a in tile.axes if a.name not in written and a.extent > 1]
        unique = tile.combine != "set" or not lost
        require(unique, f"axis {', '.join(lost)} is not in the index, so points overwrite each other")

    def _check_register(self, buffer: str, index: tuple[Expr, ...], names: set[str]) -> None:
        if self.writable.get(buffer) != "register":
            return
        alone = all(isinstance(i, Const) or (isinstance(i, Axis) and i.name in names) for i in index)
        require(alone, f"register buffer {buffer!r} must be indexed by tile axes alone")
