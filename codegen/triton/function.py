"""One loop nest of blocks as one Triton function: the grid, positions and masks of the axes, and the statements."""

from __future__ import annotations

import builtins
import math
from dataclasses import dataclass, field
from keyword import kwlist

from effcc.codegen.blocks import block_start
from effcc.codegen.names import Names
from effcc.codegen.triton.expressions import INDEX_LIMIT, Scope
from effcc.codegen.triton.sizes import ATOM as SIZE_ATOM
from effcc.codegen.triton.sizes import size_text
from effcc.codegen.triton.spelling import library_names
from effcc.codegen.triton.tiles import TileWriter, starts_at_identity
from effcc.codegen.triton.values import Value
from effcc.errors import UnsupportedError
from effcc.ir.dims import Dim, ceil_div, product, symbols
from effcc.ir.dtypes import DType, boolean
from effcc.ir.expr import Call, Const, Expr, Size, loads, walk
from effcc.ir.loops import Alloc, For, LoopNest, Stmt, Tile, TileAxis

RESERVED = frozenset({*kwlist, *dir(builtins), "tl", "triton", "program"})
"""What no variable of a printed function may be called."""


@dataclass(frozen=True)
class Function:
    """A printed kernel: its name and text, its grid (programs along one dimension), and its arguments.

    `pointers` are the names of the buffers' arguments in the nest's order, `sizes` those of the sizes, which follow.
    """

    name: str
    text: str
    programs: Dim
    pointers: tuple[str, ...]
    sizes: tuple[str, ...]


def print_function(nest: LoopNest, name: str, comment: tuple[str, ...] = ()) -> Function:
    """The Triton function of a nest of blocks; `comment` lines and the nest's notes stand at its head.

    Raises UnsupportedError for what blocks cannot express.
    """
    return _FunctionPrinter(nest, name, comment).run()


@dataclass
class _FunctionPrinter:
    nest: LoopNest
    name: str
    comment: tuple[str, ...]
    lines: list[str] = field(default_factory=list)
    indent: str = "    "
    dtypes: dict[str, DType] = field(default_factory=dict)
    tiles: dict[str, TileAxis] = field(default_factory=dict)
    limits: dict[str, Value] = field(default_factory=dict)
    fresh: dict[str, Tile] = field(default_factory=dict)
    axis_names: dict[str, str] = field(default_factory=dict)
    names: Names = field(init=False)
    scope: Scope = field(init=False)

    def run(self) -> Function:
        nest = self.nest
        buffers = (*nest.params, *nest.outputs)
        grid, body = _grid(nest.body)
        dims = [d for p in buffers for d in (*p.type.shape, *p.type.layout)]
        sizes = tuple(s.name for s in symbols([*dims, *_sizes_in(nest.body)]))
        self.names = Names({*RESERVED, *library_names(), *sizes})
        self.dtypes = {p.name: p.type.dtype for p in buffers}
        self._collect(body)
        axes = dict.fromkeys([*(f.axis for f in grid), *self.tiles])
        self.axis_names = {a: self.names.fresh(a) for a in axes}
        pointers = {p.name: (self.names.fresh(p.name), p.type.layout) for p in buffers}
        loaded, stored = _touched(body)
        self.scope = Scope(self._define, pointers, {}, {}, {}, frozenset(loaded & stored & pointers.keys()))
        self._decode(grid)
        for axis, tile in self.tiles.items():
            if block_start(axis) in self.scope.axes or not self._looped(axis, body):
                self._position(tile)
        self._block(body)
        self._flush()
        arguments = ", ".join([*(p for p, _ in pointers.values()), *sizes])
        frozen = f"(do_not_specialize={list(sizes)!r})".replace("'", '"') if sizes else ""
        head = [f"@triton.jit{frozen}", f"def {self.name}({arguments}):"]
        notes = [f"    # {line}" for line in (*self.comment, *nest.notes)]
        text = "\n".join([*head, *notes, *self.lines])
        programs = product(_blocks(f) for f in grid)
        return Function(self.name, text, programs, tuple(p for p, _ in pointers.values()), sizes)

    def _write(self, text: str) -> None:
        self.lines.append(self.indent + text)

    def _define(self, base: str, text: str) -> str:
        name = self.names.fresh(base)
        self._write(f"{name} = {text}")
        return name

    # Axes -----------------------------------------------------------------------------------------------------------

    def _collect(self, body: tuple[Stmt, ...]) -> None:
        """The tile axes of all statements, by name; one block extent each."""
        for s in body:
            if isinstance(s, For):
                self._collect(s.body)
            elif isinstance(s, Tile):
                for axis in s.axes:
                    known = self.tiles.setdefault(axis.name, axis)
                    if known.extent != axis.extent:
                        raise UnsupportedError(f"kernel @{self.nest.name}: axis {axis.name} has blocks of two sizes")
            elif not isinstance(s, Alloc):
                raise UnsupportedError(f"kernel @{self.nest.name}: the Triton backend has no branches between blocks")

    def _looped(self, axis: str, body: tuple[Stmt, ...]) -> bool:
        return any(isinstance(s, For) and (s.axis == block_start(axis) or self._looped(axis, s.body)) for s in body)

    def _decode(self, grid: list[For]) -> None:
        """The beginning of this program's block on every axis of the grid, the last axis fastest."""
        if len(grid) > 1:
            self._write("program = tl.program_id(0)")
        left = "tl.program_id(0)" if len(grid) == 1 else "program"
        for position, loop in reversed(list(enumerate(grid))):
            count = size_text(_blocks(loop), SIZE_ATOM)
            name = self.axis_names[loop.axis]
            block = left if position == 0 else f"{left} % {count}"
            self._enter(loop, name, self.scope)
            if self.scope.bounds[loop.axis] > INDEX_LIMIT and loop.step > 1:
                block = f"{block}.to(tl.int64)" if position == 0 == len(grid) - 1 else f"({block}).to(tl.int64)"
            self._write(f"{name} = {block}" + (f" * {loop.step}" if loop.step > 1 else ""))
            if position > 0:
                left = f"{left} // {count}"

    def _enter(self, loop: For, name: str, scope: Scope) -> None:
        scope.axes[loop.axis] = name
        scope.bounds[loop.axis] = float(loop.stop.value) if isinstance(loop.stop, Const) else math.inf

    def _position(self, tile: TileAxis) -> None:
        """The points of an axis's block, and the mask of those below its limit."""
        name, start = self.axis_names[tile.name], self.scope.axes.get(block_start(tile.name))
        points = f"tl.arange(0, {tile.extent})"
        self._write(f"{name} = {points}" if start is None else f"{name} = {start} + {points}")
        self.scope.axes[tile.name] = name
        self.scope.bounds[tile.name] = float(tile.extent)
        if tile.limit is not None:
            mask = self.names.fresh(f"{tile.name}_inside")
            self._write(f"{mask} = {name} < {self._extent(tile.limit)}")
            self.limits[tile.name] = Value(mask, (tile.name,), boolean)

    def _extent(self, limit: Expr) -> str:
        """The extent that a limit stands for: `extent`, or `extent - start` where the block has a start."""
        match limit:
            case Call("sub", (extent, _)):
                return _number(extent)
        return _number(limit)

    # Statements -----------------------------------------------------------------------------------------------------

    def _block(self, body: tuple[Stmt, ...]) -> None:
        for s in body:
            match s:
                case Alloc():
                    self.scope.registers[s.name] = self.names.fresh(_short(s.name))
                    self.dtypes[s.name] = s.dtype
                case Tile():
                    self._tile(s)
                case For():
                    self._for(s)

    def _tile(self, tile: Tile) -> None:
        read = {load.buffer for e in (tile.value, *tile.index) for load in loads(e)}
        self._flush(read)
        if tile.buffer in self.scope.registers and starts_at_identity(tile):
            self.fresh[tile.buffer] = tile
            return
        writer = TileWriter(self.scope, self.limits, self.dtypes, self.fresh)
        for line in writer.lines(tile):
            self._write(line)

    def _flush(self, names: set[str] | None = None) -> None:
        """Write out the constants that blocks were set to, where anything but their first reduction reads them."""
        for buffer in list(self.fresh):
            if names is None or buffer in names:
                tile = self.fresh.pop(buffer)
                for line in TileWriter(self.scope, self.limits, self.dtypes, {}).lines(tile):
                    self._write(line)

    def _for(self, loop: For) -> None:
        self._flush()
        outer, limits, indent = self.scope, dict(self.limits), self.indent
        name = self.names.fresh(loop.axis)
        self._write(f"for {name} in range({_number(loop.start)}, {_number(loop.stop)}, {loop.step}):")
        self.indent = indent + "    "
        self.scope = outer.inside()
        self._enter(loop, name, self.scope)
        for axis, tile in self.tiles.items():
            if block_start(axis) == loop.axis:
                self._position(tile)
        self._block(loop.body)
        self._flush()
        self.scope, self.limits, self.indent = outer, limits, indent


def _grid(body: tuple[Stmt, ...]) -> tuple[list[For], tuple[Stmt, ...]]:
    """The parallel loops around a body, outermost first, and the body."""
    grid: list[For] = []
    while len(body) == 1 and isinstance(body[0], For) and body[0].kind == "parallel":
        grid.append(body[0])
        body = body[0].body
    return grid, body


def _touched(body: tuple[Stmt, ...]) -> tuple[set[str], set[str]]:
    """The buffers that statements load from, and those that they store to."""
    loaded: set[str] = set()
    stored: set[str] = set()
    for s in body:
        if isinstance(s, For):
            inside = _touched(s.body)
            loaded, stored = loaded | inside[0], stored | inside[1]
        elif isinstance(s, Tile):
            loaded |= {load.buffer for e in (s.value, *s.index) for load in loads(e)}
            stored.add(s.buffer)
    return loaded, stored


def _sizes_in(body: tuple[Stmt, ...]) -> list[Dim]:
    """The sizes that loops and statements mention."""
    found: list[Dim] = []
    for s in body:
        expressions = [s.start, s.stop] if isinstance(s, For) else [s.value, *s.index] if isinstance(s, Tile) else []
        found += [e.value for x in expressions for e in walk(x) if isinstance(e, Size)]
        found += _sizes_in(s.body) if isinstance(s, For) else []
    return found


def _blocks(loop: For) -> Dim:
    """How many blocks a loop has."""
    assert isinstance(loop.stop, Const | Size)
    extent = loop.stop.value if isinstance(loop.stop, Size) else int(loop.stop.value)
    return ceil_div(extent, loop.step)


def _number(e: Expr) -> str:
    """A size or a constant as text."""
    assert isinstance(e, Const | Size)
    return size_text(e.value) if isinstance(e, Size) else str(e.value)


def _short(name: str) -> str:
    """A block is called as what it holds."""
    return name.replace("_block", "")
