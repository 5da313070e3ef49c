"""Kernel and schedule to loops: the schedule is followed, not improved.

Parallel loops over tiles of the shared axes come first; inside them local buffers, the sequential loop if there is one,
and the nests. Stepwise, the sequential loop comes first. An axis whose extent is no multiple of its tile gets a second
copy of the code for the rest; a rest of unknown size becomes a loop of single points, or a masked tile on the lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from effcc.codegen.lower_nests import Nests
from effcc.codegen.lower_places import ZERO, Local, Range, Ranges, count_of, local_name, tile_axes
from effcc.errors import ScheduleError
from effcc.ir.dtypes import i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    add,
    compare,
    integer,
)
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.loops import Alloc, For, If, LoopNest, Stmt, Tile
from effcc.ir.scalars import reduction
from effcc.ir.schedule import Nest, Schedule, TiledAxis


def lower(kernel: Kernel, schedule: Schedule) -> LoopNest:
    """The loop nest of `kernel` under `schedule`. Buffers keep the kernel's names."""
    return _Lowering(kernel, schedule).run()


class _Lowering(Nests):
    """The loops around the nests, and the buffers between them."""

    def run(self) -> LoopNest:
        ranges: Ranges = {a: Range(ZERO, count_of(e)) for a, e in self.kernel.axes}
        self._choose_locals()
        steps = self.schedule.sequential
        if steps is not None and self.schedule.stepwise:
            body = tuple(self._cut(steps.axis, self._outer(steps.axis), steps.tile, ranges, self._parallel))
        else:
            body = self._parallel(ranges)
        return LoopNest(self.kernel.name, self.kernel.params, self.kernel.outputs, body, self.schedule.notes)

    def _parallel(self, ranges: Ranges) -> tuple[Stmt, ...]:
        """The parallel loops and all that is inside them."""
        ranges = dict(ranges)
        for tiled in self.schedule.parallel:
            self.steps[self._outer(tiled.axis)] = tiled.tile
            ranges[tiled.axis] = replace(ranges[tiled.axis], base=Axis(self._outer(tiled.axis)))
        body = self._variants(list(self.schedule.parallel), ranges)
        for tiled in reversed(self.schedule.parallel):
            extent = integer(self.kernel.extents[tiled.axis])
            body = (For(self._outer(tiled.axis), ZERO, extent, tiled.tile, "parallel", body),)
        return body

    def _variants(self, tiled: Sequence[TiledAxis], ranges: Ranges) -> tuple[Stmt, ...]:
        """The code inside the parallel loops, once for whole tiles and once for the rest of each axis that has one."""
        if not tiled:
            return self._inside(ranges)
        first, rest = tiled[0], tiled[1:]
        extent, t = self.kernel.extents[first.axis], first.tile
        start = Axis(self._outer(first.axis))
        if t == 1:
            point = Range(start, 1, start, ZERO)
            return self._variants(rest, {**ranges, first.axis: point})
        whole = {**ranges, first.axis: Range(start, t)}
        if isinstance(extent, int):
            if extent % t == 0:
                return self._variants(rest, whole)
            part = {**ranges, first.axis: Range(start, extent % t)}
            if extent < t:
                return self._variants(rest, part)
        else:
            left = Call("sub", (integer(extent), start), i64)
            part = {**ranges, first.axis: Range(start, left)}
        fits = compare("le", add(start, Const(t, i64)), integer(extent))
        return (If(fits, self._variants(rest, whole), self._variants(rest, part)),)

    def _choose_locals(self) -> None:
        """Intermediates that several nests touch, or that a sequential loop accumulates, get local buffers."""
        tiles = {t.axis: t.tile for t in self.schedule.parallel}
        sequential = self.schedule.sequential
        outputs = {p.name for p in self.kernel.outputs}
        for s in self.kernel.statements:
            if s.target in outputs and not self._accumulates(s):
                continue
            homes = {n for n, nest in enumerate(self.schedule.nests) if self._in_nest(nest, s.target)}
            if len(homes) <= 1 and not self._accumulates(s):
                continue
            kept: list[tuple[int, str, int]] = []
            for position, axis in enumerate(s.axes):
                if sequential is not None and axis == sequential.axis:
                    if sequential.tile > 1:
                        kept.append((position, axis, sequential.tile))
                elif axis in tiles:
                    if tiles[axis] > 1:
                        kept.append((position, axis, tiles[axis]))
                else:
                    extent = self.kernel.extents[axis]
                    if not isinstance(extent, int):
                        raise ScheduleError(
                            f"kernel {self.kernel.name!r}: the local buffer {s.target!r} needs a known extent of "
                            f"axis {axis!r}, which is a run-time size; "
                            "give that size a constant, or keep its readers in another kernel"
                        )
                    kept.append((position, axis, extent))
            innermost = self._lanes_of(s)
            kept.sort(key=lambda place: place[1] == innermost)
            self.locals[s.target] = Local(tuple((p, a) for p, a, _ in kept), tuple(e for _, _, e in kept))

    def _lanes_of(self, s: Statement) -> str | None:
        """The axis that most nests that touch a statement's results have in their lanes; at a tie, the last one's."""
        lanes = [
            nest.lanes.axis
            for nest in self.schedule.nests
            if nest.lanes is not None and nest.lanes.axis in s.axes and self._in_nest(nest, s.target)
        ]
        return max(reversed(lanes), key=lanes.count, default=None)

    def _in_nest(self, nest: Nest, target: str) -> bool:
        for i in (*nest.body, *nest.reductions, *nest.epilogue):
            s = self.kernel.statements[i]
            if s.target == target or any(load.buffer.rstrip("'") == target for load in s.reads):
                return True
        return False

    def _inside(self, ranges: Ranges) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        dtypes = {s.target: s.dtype for s in self.kernel.statements}
        for name, local in self.locals.items():
            out.append(Alloc(local_name(name), dtypes[name], local.shape, "local"))
        for name in self._previous():
            out.append(Alloc(local_name(name) + "_before", dtypes[name], self.locals[name].shape, "local"))
        by_phase = {p: [n for n in self.schedule.nests if n.phase == p] for p in ("before", "inside", "after")}
        for nest in by_phase["before"]:
            out += self._nest(nest, ranges)
        sequential = self.schedule.sequential
        if sequential is None or self.schedule.stepwise:
            for nest in by_phase["inside"]:
                out += self._nest(nest, ranges)
            return tuple(out)
        for s in self.kernel.statements:
            if self._accumulates(s):
                out += self._initialize(s, ranges)
        out += self._cut(
            sequential.axis,
            self._outer(sequential.axis),
            sequential.tile,
            ranges,
            lambda inner: [x for nest in by_phase["inside"] for x in self._nest(nest, inner)],
        )
        for s in self.kernel.statements:
            if self._accumulates(s) and s.target in {p.name for p in self.kernel.outputs}:
                out += self._store_result(s, ranges)
        for nest in by_phase["after"]:
            out += self._nest(nest, ranges)
        return tuple(out)

    def _initialize(self, s: Statement, ranges: Ranges) -> list[Stmt]:
        assert s.reduction is not None
        identity = Const(reduction(s.reduction.operator).identity(s.dtype), s.dtype)
        return self._fill(s, ranges, lambda inner: identity)

    def _store_result(self, s: Statement, ranges: Ranges) -> list[Stmt]:
        """An accumulated reduction that is an output: stored when the sequential loop is over."""

        def emit(inner: Ranges) -> list[Stmt]:
            value = self._load_local(s.target, tuple(Axis(a) for a in s.axes), inner)
            index = tuple(self._absolute(Axis(a), inner) for a in s.axes)
            return [Tile(tile_axes(s.axes, inner), s.target, index, "set", value)]

        return self._over(s.axes, {s.axes[-1]: ("lanes", 16)} if s.axes else {}, ranges, emit)

    def _fill(self, s: Statement, ranges: Ranges, value: Callable[[Ranges], Expr]) -> list[Stmt]:
        """A local buffer set at every point of the current tile."""

        def emit(inner: Ranges) -> list[Stmt]:
            return [
                Tile(
                    tile_axes(s.axes, inner),
                    local_name(s.target),
                    self._local_index(s, s.axes, inner),
                    "set",
                    value(inner),
                )
            ]

        return self._over(s.axes, {s.axes[-1]: ("lanes", 16)} if s.axes else {}, ranges, emit)
