"""Kernel and schedule to a nest of whole blocks: how loops look where a program computes on blocks of points.

Parallel axes become the grid. Every other axis is one block, or a serial loop over blocks where it is longer than its
block. A block that sticks out at an axis's end is masked by the limit of its tile axis, so there is no second copy of
the code for what is left over. All intermediates are register buffers as large as their blocks.

The value of axis `m` is `m_0 + m`: the loop variable's and the tile axis's. (`m_0` alone where the block is one point.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from effcc.codegen.lower_values import previous
from effcc.errors import UnsupportedError
from effcc.ir.dims import Dim
from effcc.ir.dtypes import i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, add, children, integer, rebuild, refold
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.loops import Alloc, For, LoopNest, Stmt, Tile, TileAxis
from effcc.ir.scalars import reduction
from effcc.ir.schedule import PARALLEL, Do, Hold, Loop, Node, Path, Schedule, nodes, places

ZERO = Const(0, i64)
_SCATTER = {"set": "set", "add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}


def block_start(axis: str) -> str:
    """The loop variable that runs over the beginnings of an axis's blocks."""
    return f"{axis}_0"


def lower_blocks(kernel: Kernel, schedule: Schedule) -> LoopNest:
    """The loop nest of `kernel` under a GPU's schedule. Buffers keep their names; intermediates stay in registers.

    Raises UnsupportedError where a value would have to survive in memory that programs do not share.
    """
    if kernel.spans:
        over = ", ".join(kernel.spans)
        raise UnsupportedError(f"kernel @{kernel.name}: no block of a GPU covers the ragged axis {over}")
    return _Lowering(kernel, schedule).run()


@dataclass(frozen=True)
class _Place:
    """Where an axis stands inside the loops that are open: its value, and its tile axis unless it is one point."""

    value: Expr
    tile: TileAxis | None


_Places = Mapping[str, _Place]


@dataclass
class _Lowering:
    kernel: Kernel
    schedule: Schedule
    blocks: dict[str, int] = field(default_factory=dict)
    positions: dict[Path, int] = field(default_factory=dict)
    live: frozenset[str] = frozenset()

    def run(self) -> LoopNest:
        for _, node in nodes(self.schedule.body):
            if isinstance(node, Loop):
                self.blocks[node.axis] = node.step
        self.positions = {place.path: place.position for place in places(self.kernel, self.schedule)}
        whole = {a: self._place(a, ZERO) for a, _ in self.kernel.axes if self._fits(a)}
        body = tuple(self._block(self.schedule.body, (), whole, frozenset()))
        return LoopNest(self.kernel.name, self.kernel.params, self.kernel.outputs, body, self.schedule.notes)

    def _place(self, axis: str, base: Expr) -> _Place:
        """One block of an axis from `base` on."""
        block, extent = self.blocks.get(axis, 1), self.kernel.extents[axis]
        if block == 1:
            return _Place(base, None)
        limit: Expr | None = None
        if base == ZERO:
            limit = None if extent == block else integer(extent)
        elif not (isinstance(extent, int) and extent % block == 0):
            limit = Call("sub", (integer(extent), base), i64)
        return _Place(add(base, Axis(axis)), TileAxis(axis, block, "unroll", limit))

    def _fits(self, axis: str) -> bool:
        """Whether one block holds the whole axis. (An empty axis is a loop that never turns.)"""
        extent: Dim = self.kernel.extents[axis]
        return isinstance(extent, int) and 1 <= extent <= self.blocks.get(axis, 1)

    # Nodes ----------------------------------------------------------------------------------------------------------

    def _block(self, body: tuple[Node, ...], path: Path, places: _Places, held: frozenset[str]) -> list[Stmt]:
        """What nodes become; `held` are the reductions whose blocks of registers stand around them. What was computed
        in the block is `live` after it there.
        """
        out: list[Stmt] = []
        outside = self.live
        for number, node in enumerate(body):
            at = (*path, number)
            match node:
                case Loop():
                    out += self._loop(node, at, places, held)
                case Hold():
                    out += self._hold(node, at, places, held)
                    self.live |= frozenset(node.targets)
                case Do():
                    s = self.kernel.statements[self.positions[at]]
                    is_sum = s.reduction is not None and s.scatter is None
                    out += [self._fold(s, places)] if is_sum else self._pointwise(s, places)
                    self.live |= {s.target}
        self.live = outside
        return out

    def _loop(self, loop: Loop, at: Path, places: _Places, held: frozenset[str]) -> list[Stmt]:
        parallel = loop.kind == PARALLEL
        if loop.axis in places and not parallel:
            return self._block(loop.body, at, places, held)
        start = block_start(loop.axis)
        inside = self._block(loop.body, at, {**places, loop.axis: self._place(loop.axis, Axis(start))}, held)
        extent = integer(self.kernel.extents[loop.axis])
        return [For(start, ZERO, extent, loop.step, "parallel" if parallel else "serial", tuple(inside))]

    def _hold(self, node: Hold, at: Path, places: _Places, held: frozenset[str]) -> list[Stmt]:
        """Blocks of registers for reductions. Those that partial sums further out rest in are taken up as they are."""
        found = (self.kernel.definition(t) for t in node.targets)
        sums = [s for s in found if s is not None and s.reduction is not None]
        out = [x for s in sums for x in (self._resume(s, places) if s.target in held else self._begin(s, places))]
        out += self._block(node.body, at, places, held | {s.target for s in sums})
        ended = (s for s in sums if s.target not in held and self._is_output(s.target))
        return out + [self._store(s, self._register(s, places), places) for s in ended]

    def _begin(self, s: Statement, places: _Places) -> list[Stmt]:
        """The register block of a reduction, at the operator's identity."""
        assert s.reduction is not None
        identity = Const(reduction(s.reduction.operator).identity(s.dtype), s.dtype)
        return [self._alloc(s, places), self._set(s, places, identity)]

    def _resume(self, s: Statement, places: _Places) -> list[Stmt]:
        """Before a turn of the sequential loop: keep the value so far if it is read, and rescale online sums."""
        assert s.reduction is not None
        out: list[Stmt] = []
        if s.target in previous(self.kernel):
            so_far = self._register(s, places)
            out += [self._alloc(s, places, before=True), self._set(s, places, so_far, before=True)]
        if s.reduction.rescale is not None:
            factor = self._value(s.reduction.rescale, places)
            out.append(self._set(s, places, Call("mul", (self._register(s, places), factor), s.dtype)))
        return out

    def _fold(self, s: Statement, places: _Places) -> Tile:
        assert s.reduction is not None
        axes = self._tiles((*s.axes, *s.reduction.axes), places)
        index = tuple(Axis(t.name) for t in self._tiles(s.axes, places))
        combine = reduction(s.reduction.operator).combine
        return Tile(axes, _register_name(s.target), index, combine, self._value(s.reduction.body, places))

    def _pointwise(self, s: Statement, places: _Places) -> list[Stmt]:
        value = self._value(s.value, places)
        if s.scatter is not None:
            index = tuple(self._value(i, places) for i in s.scatter.index)
            return [Tile(self._tiles(s.axes, places), s.target, index, _SCATTER[s.scatter.combine], value)]
        out: list[Stmt] = []
        if not self._is_output(s.target) or self.kernel.readers(s.target):
            out += [self._alloc(s, places), self._set(s, places, value)]
            value = self._register(s, places)
        if self._is_output(s.target):
            out.append(self._store(s, value, places))
        return out

    # Buffers --------------------------------------------------------------------------------------------------------

    def _in_memory(self, source: Statement, load: Load) -> bool:
        """Whether a recurrence reads a result where it was stored: at an earlier step, or from loops that are over."""
        if not self.kernel.scans or not self._is_output(source.target):
            return False
        return source.target not in self.live or load.index != tuple(Axis(a) for a in source.axes)

    def _is_output(self, target: str) -> bool:
        return any(p.name == target for p in self.kernel.outputs)

    def _tiles(self, axes: Sequence[str], places: _Places) -> tuple[TileAxis, ...]:
        missing = [a for a in axes if a not in places]
        if missing:
            raise UnsupportedError(
                f"kernel @{self.kernel.name}: axes {missing} are looped over where their points are needed at once; "
                "cut the kernel into stages first"
            )
        return tuple(t for a in axes if (t := places[a].tile) is not None)

    def _alloc(self, s: Statement, places: _Places, before: bool = False) -> Alloc:
        shape = tuple(t.extent for t in self._tiles(s.axes, places))
        return Alloc(_register_name(s.target, before), s.dtype, shape, "register")

    def _set(self, s: Statement, places: _Places, value: Expr, before: bool = False) -> Tile:
        tiles = self._tiles(s.axes, places)
        return Tile(tiles, _register_name(s.target, before), tuple(Axis(t.name) for t in tiles), "set", value)

    def _register(self, s: Statement, places: _Places, before: bool = False) -> Load:
        index = tuple(Axis(t.name) for t in self._tiles(s.axes, places))
        return Load(_register_name(s.target, before), index, s.dtype)

    def _store(self, s: Statement, value: Expr, places: _Places) -> Tile:
        return Tile(self._tiles(s.axes, places), s.target, tuple(places[a].value for a in s.axes), "set", value)

    def _value(self, e: Expr, places: _Places) -> Expr:
        """A right side with axes at their places and intermediates read from registers."""
        match e:
            case Load():
                source = self.kernel.definition(e.buffer)
                if source is not None and not self._in_memory(source, e):
                    return self._register(source, places, e.before)
                return replace(e, index=tuple(self._value(i, places) for i in e.index))
            case Axis():
                self._tiles((e.name,), places)
                return places[e.name].value
            case Reduce():
                raise UnsupportedError(f"kernel @{self.kernel.name}: a reduction inside an expression, not on its own")
        parts = children(e)
        return refold(rebuild(e, tuple(self._value(p, places) for p in parts))) if parts else e


def _register_name(target: str, before: bool = False) -> str:
    """Register buffers must not be taken for the output of the same name."""
    return f"{target}_before" if before else f"{target}_block"
