"""Expressions put where they run: axes at their place in the loops, intermediates read from where they live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from effcc.codegen.lower_ranges import Cutter, Ranges, tiles_of
from effcc.errors import ScheduleError
from effcc.ir.division import fold_division
from effcc.ir.dtypes import boolean
from effcc.ir.expr import Axis, Const, Expr, Load, Reduce, children, rebuild, refold, substitute_axes, transform
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.loops import TileAxis
from effcc.ir.printer.expressions import show_expression


@dataclass(frozen=True)
class Local:
    """A buffer in the cache: which positions of its statement's index it keeps, each with its axis, how many loops had
    cut that axis where the buffer was made, and the extent.
    """

    name: str
    kept: tuple[tuple[int, str, int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(extent for *_, extent in self.kept)


@dataclass(frozen=True)
class Accumulator:
    """The registers of a reduction: their buffer, and the tiles that index it; `in_tiles`: those of a matrix unit."""

    name: str
    tiles: tuple[TileAxis, ...]
    in_tiles: bool = False

    @property
    def index(self) -> tuple[Expr, ...]:
        return tuple(Axis(t.name) for t in self.tiles)


@dataclass
class Scope:
    """Where results are at some place of a schedule.

    registers: those computed at the current points, with the axes that index them. locals: those held in the cache.
    resting: reductions whose partial results rest around here. accumulators: those that are being computed. factors:
    what rests is multiplied with in this turn, by what computes that. carried: the registers of results of which only
    the step before is read, by target, with the axes that index them.
    """

    registers: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    locals: dict[str, Local] = field(default_factory=dict)
    resting: dict[str, Local | Accumulator] = field(default_factory=dict)
    accumulators: dict[str, Accumulator] = field(default_factory=dict)
    factors: dict[Expr, Local] = field(default_factory=dict)
    carried: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def inside(self) -> Scope:
        """The scope of a block within."""
        return Scope(
            dict(self.registers),
            dict(self.locals),
            dict(self.resting),
            dict(self.accumulators),
            dict(self.factors),
            dict(self.carried),
        )


@dataclass
class Values:
    """Places expressions of one kernel."""

    kernel: Kernel
    cutter: Cutter

    @cached_property
    def own(self) -> Mapping[str, Load]:
        """The load of each statement's result at the point where it is computed."""
        return {s.target: at_own_axes(s) for s in reversed(self.kernel.statements)}

    def absolute(self, e: Expr, ranges: Ranges) -> Expr:
        """An index with its axes at their place."""
        placed = substitute_axes(e, {a: r.position() for a, r in ranges.items() if r.placed})
        return transform(placed, lambda node: self._divide(node, ranges))

    def _divide(self, e: Expr, ranges: Ranges) -> Expr:
        """Divisions folded where the loops around decide them."""

        def extent(axis: str) -> int | None:
            tile = ranges[axis].tile if axis in ranges else None
            return None if tile is None else tile.extent

        return fold_division(e, extent, lambda axis: self.cutter.steps.get(axis, 1))

    def value(self, e: Expr, ranges: Ranges, scope: Scope) -> Expr:
        """A right side with axes at their place in the loops and loads from locals and registers redirected.

        Loads are redirected before axes are substituted: their indices tell which axis they mean.
        """

        def place(node: Load) -> Expr:
            if node.buffer in scope.carried:  # the step before, until the present one is computed
                name, order = scope.carried[node.buffer]
                return Load(name, tuple(Axis(t.name) for t in tiles_of(order, ranges)), node.dtype)
            if node.buffer in scope.registers and node == self.own[node.buffer]:
                name, order = scope.registers[node.buffer]
                return Load(name, tuple(Axis(t.name) for t in tiles_of(order, ranges)), node.dtype)
            if node.buffer in scope.locals:
                suffix = "_before" if node.before else ""
                return self.load_local(scope.locals[node.buffer], node, ranges, suffix)
            if node.before:
                raise ScheduleError(
                    f"kernel {self.kernel.name!r}: {node.written} is read, but no {node.buffer} rests between turns: "
                    f"`hold {node.buffer} in local` around the loop that it follows"
                )
            return replace(node, index=tuple(walk_in(i) for i in node.index))

        def walk_in(node: Expr) -> Expr:
            if isinstance(node, Load):
                return place(node)
            if isinstance(node, Axis):
                r = ranges.get(node.name)
                return r.position() if r is not None and r.placed else node
            if self._holds(node, ranges):
                return Const(True, boolean)
            if isinstance(node, Reduce):
                raise ScheduleError(
                    f"kernel {self.kernel.name!r}: the reduction over {', '.join(node.axes)} stands inside an "
                    "expression; give it a statement of its own"
                )
            parts = children(node)
            return self._divide(refold(rebuild(node, tuple(walk_in(p) for p in parts))), ranges) if parts else node

        return walk_in(e)

    def _holds(self, condition: Expr, ranges: Ranges) -> bool:
        """Whether a condition is one of those that hold inside an axis, and the loops are there."""
        mask = self.cutter.mask
        if mask is not None and mask.axis in ranges and ranges[mask.axis].inside and condition in mask.conditions:
            return True
        interiors = self.cutter.interiors.items()
        return any(condition in i.conditions for a, i in interiors if a in ranges and ranges[a].inside)

    def load_local(self, local: Local, load: Load, ranges: Ranges, suffix: str = "") -> Load:
        """An element of a local buffer, counted from where the buffer begins."""
        at = tuple(self._place_in(axis, load.index[p], since, ranges) for p, axis, since, _ in local.kept)
        return Load(local.name + suffix, at, load.dtype)

    def _place_in(self, axis: str, index: Expr, since: int, ranges: Ranges) -> Expr:
        if since == 0:
            return self.absolute(index, ranges)
        if index != Axis(axis) or not ranges[axis].placed:
            raise ScheduleError(
                f"kernel {self.kernel.name!r}: {axis} is tiled, so an intermediate can be read at {axis} only, not at "
                f"{show_expression(index)}; leave the axis whole"
            )
        return ranges[axis].position(since)

    def index_in(self, local: Local, s: Statement, ranges: Ranges) -> tuple[Expr, ...]:
        """Where a statement's result at the current points is in its local buffer."""
        return tuple(ranges[s.axes[p]].position(since) for p, _, since, _ in local.kept)


def at_own_axes(s: Statement) -> Load:
    """The load of a statement's result at the point where it is computed."""
    return Load(s.target, tuple(Axis(a) for a in s.axes), s.dtype)


def previous(kernel: Kernel) -> Mapping[str, None]:
    """Reductions whose value before the turn is read."""
    return dict.fromkeys(x.buffer for s in kernel.statements for x in s.reads if x.before)
