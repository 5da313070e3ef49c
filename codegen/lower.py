"""Kernel and schedule to loops: the schedule is followed to the letter (`effcc.ir.schedule` says what it means).

One walk for CPUs and GPUs. They differ in how an axis is cut (`Cutter` peels what is left over, `BlockCutter` masks
it), and in where a result rests that several loops touch: in a buffer in the cache, or in a block of registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from effcc.codegen.blocks import BlockCutter
from effcc.codegen.borders import interiors
from effcc.codegen.lower_masked import inside, needed
from effcc.codegen.lower_ragged import opened, span_of
from effcc.codegen.lower_ranges import Cutter, Emit, Ranges, local_name, tiles_of
from effcc.codegen.lower_values import (
    Accumulator,
    Local,
    Scope,
    Values,
    at_own_axes,
    previous,
)
from effcc.errors import ScheduleError
from effcc.ir.dependences import both_ways, carries, computed_where_written, is_made_anew, keeps_step
from effcc.ir.dots import TILE_SIDE
from effcc.ir.expr import Axis, Call, Const, Expr, Load, both, free_axes, loads, walk
from effcc.ir.kernel import Kernel, Statement, span_of_index
from effcc.ir.loops import Alloc, If, LoopNest, Stmt, Tile, TileAxis
from effcc.ir.masks import Mask, mask_of
from effcc.ir.scalars import reduction
from effcc.ir.schedule import PARALLEL, Do, Hold, Loop, Node, Path, Schedule, nodes, places, rests

FILL_LANES = 16
"""Elements of a local buffer that are set or copied at a time."""


def lower(kernel: Kernel, schedule: Schedule) -> LoopNest:
    """The loop nest of `kernel` under `schedule`. Buffers keep the kernel's names.

    Raises ScheduleError for what the verifier refuses, where it meets it.
    """
    body = _Lowering(kernel, schedule).run()
    return LoopNest(kernel.name, kernel.params, kernel.outputs, body, schedule.notes)


class _Lowering:
    def __init__(self, kernel: Kernel, schedule: Schedule) -> None:
        self.kernel, self.schedule = kernel, schedule
        self.places = places(kernel, schedule)
        lanes = {kernel.statements[place.position].target: place.lanes for place in self.places}
        in_blocks = schedule.warps > 0
        if in_blocks:
            self.cutter: Cutter = BlockCutter.of(kernel, schedule)
        else:
            inside = interiors(kernel, lanes)
            cut_twice = frozenset(a for a in lanes.values() if a is not None and a in inside)
            self.cutter = Cutter(inside, kernel.extents, mask_of(kernel), cut_twice)
        self.values = Values(kernel, self.cutter)
        self.outputs = {p.name for p in kernel.outputs}
        self.positions = {place.path: place.position for place in self.places}
        self.previous = previous(kernel)

    def run(self) -> tuple[Stmt, ...]:
        return tuple(self._block(self.schedule.body, (), self.cutter.begin(), Scope()))

    def _block(self, body: tuple[Node, ...], path: Path, ranges: Ranges, scope: Scope) -> list[Stmt]:
        """The nodes of a block in order; what they leave in registers, those after them find there."""
        scope = scope.inside()
        out: list[Stmt] = []
        for number, node in enumerate(body):
            at = (*path, number)
            match node:
                case Loop(kind) if kind == PARALLEL:
                    out += self._parallel(node, at, ranges, scope)
                case Loop():
                    out += self._seen_by_all(node, at, ranges, scope)
                case Hold():
                    out += self._hold(node, at, ranges, scope)
                case Do():
                    s = self.kernel.statements[self.positions[at]]
                    if s.reduction is not None and s.scatter is None:
                        out.append(self._accumulate(s, ranges, scope))
                    else:
                        out += self._compute(
                            s, self._read_in(s.target, body[number + 1 :], path, number + 1), ranges, scope
                        )
            if self.previous and not self.cutter.in_blocks:
                out += self._factors(node, body[number + 1 :], ranges, scope)
        return out

    def _factors(self, done: Node, later: tuple[Node, ...], ranges: Ranges, scope: Scope) -> list[Stmt]:
        """What partial sums of later nodes are multiplied with, now that the maximum has moved on: once for a turn,
        and not at every register tile, whose sums a call of `exp` would drive out of their registers.
        """
        moved = {n.target for _, n in nodes((done,)) if isinstance(n, Do)} & self.previous.keys()
        out: list[Stmt] = []
        for target in dict.fromkeys(n.target for _, n in nodes(later) if isinstance(n, Do)) if moved else ():
            s = self._definition(target)
            factor = s.reduction.rescale if s.reduction is not None else None
            if factor is None or factor in scope.factors:
                continue
            read = {load.buffer: load.index for load in loads(factor)}
            peak = self._definition(next(iter(read)))
            here = scope.resting.get(peak.target)
            if not moved & read.keys() or read != {peak.target: at_own_axes(peak).index} or not isinstance(here, Local):
                continue
            made = scope.factors[factor] = replace(here, name=self.cutter.first_or_fresh(f"{here.name}_factor"))
            out.append(Alloc(made.name, factor.dtype, made.shape, "local"))

            def emit(
                inner: Ranges, peak: Statement = peak, factor: Expr = factor, made: Local = made
            ) -> Sequence[Stmt]:
                value = self.values.value(factor, inner, Scope(locals=scope.locals))
                return [
                    Tile(tiles_of(peak.axes, inner), made.name, self.values.index_in(made, peak, inner), "set", value)
                ]

            out += self._over_all(peak, ranges, emit)
        return out

    def _read_in(self, target: str, later: tuple[Node, ...], path: Path, first: int) -> bool:
        """Whether a statement of later nodes reads what `target` left in registers."""
        for at, node in nodes(later):
            if isinstance(node, Do):
                s = self.kernel.statements[self.positions[*path, first + at[0], *at[1:]]]
                if any(load.buffer == target for load in s.reads):
                    return True
        return False

    # Loops ----------------------------------------------------------------------------------------------------------

    def _parallel(self, node: Loop, at: Path, ranges: Ranges, scope: Scope) -> list[Stmt]:
        """Parallel loops right inside one another, of different axes; then the tiles whose points are together. What is
        in registers outside is one thread's: inside it is read from memory."""
        scope = replace(scope, registers={})
        loops = {node.axis: node}
        while len(node.body) == 1 and isinstance(inner := node.body[0], Loop) and inner.kind == PARALLEL:
            if inner.axis in loops:
                break
            node, at = inner, (*at, 0)
            loops[node.axis] = node

        def tiles(left: Sequence[Loop], ranges: Ranges) -> Sequence[Stmt]:
            if not left:
                return self._block(node.body, at, ranges, scope)
            one = left[0]
            return self.cutter.cut(one.axis, one.step, one.together, ranges, lambda inner: tiles(left[1:], inner))

        together = [loop for loop in loops.values() if loop.together and loop.step > 1]
        steps = [(axis, loop.step) for axis, loop in loops.items()]
        return self.cutter.spread(steps, ranges, lambda inner: tiles(together, inner))

    def _seen_by_all(self, node: Loop, at: Path, ranges: Ranges, scope: Scope) -> list[Stmt]:
        """A loop inside of a tile of masked keys: where all rows see all of the tile, without the conditions."""
        mask = self.cutter.mask
        if mask is None or not self._asks(mask, node, at):
            return self._serial(node, at, ranges, scope)
        condition = inside(mask, ranges, partial(self.values.value, ranges=ranges, scope=scope))
        if condition is None:
            return self._serial(node, at, ranges, scope)
        within = {**ranges, mask.axis: replace(ranges[mask.axis], inside=True)}
        bodies = (tuple(self._serial(node, at, r, scope)) for r in (within, ranges))
        return [If(condition, *bodies)]

    def _asks(self, mask: Mask, node: Loop, at: Path) -> bool:
        """Whether a statement in a loop has one of the conditions."""
        inside = (self.kernel.statements[self.positions[p]] for p, n in nodes(node.body, at) if isinstance(n, Do))
        return any(part in mask.conditions for s in inside for e in s.expressions for part in walk(e))

    def _serial(self, node: Loop, at: Path, ranges: Ranges, scope: Scope) -> list[Stmt]:
        out: list[Stmt] = []
        seen = None
        if node.axis in self.kernel.spans and not ranges[node.axis].trail:
            span = span_of(node, at, lambda path: self.kernel.statements[self.positions[path]])
            if span is not None:
                place = partial(self.values.value, ranges=ranges, scope=scope)
                out, ranges = opened(span, self.kernel, ranges, self.cutter, place)
        mask = self.cutter.mask
        free = node.axis not in self.kernel.spans and not node.together and not ranges[node.axis].trail
        if mask is not None and node.axis == mask.axis and free and self._may_pass_over(node, at):
            place = partial(self.values.value, ranges=ranges, scope=scope)
            out, seen = needed(mask, self.kernel, node.step, ranges, self.cutter, place)
        return out + self.cutter.cut(
            node.axis, node.step, node.together, ranges, lambda inner: self._block(node.body, at, inner, scope), seen
        )

    def _may_pass_over(self, node: Loop, at: Path) -> bool:
        """Whether nothing is begun or finished in a loop: what is not seen then adds nothing to sums around it."""
        held: set[str] = set()
        body = self.schedule.body
        for number in at:
            inner = body[number]
            assert not isinstance(inner, Do)
            held |= set(inner.targets) if isinstance(inner, Hold) else set()
            body = inner.body
        inside = [self.kernel.statements[self.positions[p]] for p, n in nodes(node.body, at) if isinstance(n, Do)]
        crossed = both_ways(self.kernel)
        walked = crossed.axes if crossed is not None else {node.axis}
        sums = {s.target for s in inside if s.reduction is not None and walked & set(s.reduction.axes)}
        points = {s.target for s in inside if walked <= set(s.axes) or is_made_anew(self.kernel, s)} - self.outputs
        return all(s.target in (held if s.target in sums else points) for s in inside)

    # What is held ---------------------------------------------------------------------------------------------------

    def _hold(self, node: Hold, at: Path, ranges: Ranges, scope: Scope) -> list[Stmt]:
        """Buffers, which are read inside, around accumulators, which are results when their loops are over."""
        held = [self._definition(name) for name in node.targets]
        buffers = [s for s in held if self._is_buffer(node, s)]
        carried = [s for s in held if s not in buffers and s.reduction is None and carries(self.kernel, s)]
        sums = [s for s in held if s not in buffers and s not in carried]
        if carried:
            return self._hold_steps(carried, replace(node, targets=tuple(s.target for s in sums)), at, ranges, scope)

        def inside(scope: Scope) -> list[Stmt]:
            if sums:
                return self._hold_sums(sums, node, at, ranges, scope)
            return self._block(node.body, at, ranges, scope)

        return self._hold_buffers(buffers, node, ranges, scope, inside) if buffers else inside(scope)

    def _hold_steps(
        self, carried: Sequence[Statement], node: Hold, at: Path, ranges: Ranges, scope: Scope
    ) -> list[Stmt]:
        """Registers for one step of a scan around its loop; whatever else is held is held inside."""
        inside = scope.inside()
        out: list[Stmt] = []
        for s in carried:
            order = self.cutter.order((a for a in s.axes if ranges[a].placed), ranges)
            name = self.cutter.register(s.target, "step")
            out.append(Alloc(name, s.dtype, tuple(t.extent for t in tiles_of(order, ranges)), "register"))
            inside.carried[s.target] = name, order
        return out + (
            self._hold(node, at, ranges, inside) if node.targets else self._block(node.body, at, ranges, inside)
        )

    def _is_buffer(self, node: Hold, s: Statement) -> bool:
        """A block of a GPU's registers is a buffer where it holds more than the sums of the loops right inside."""
        if node.space == "local" or not self.cutter.in_blocks:
            return node.space == "local"
        return s.reduction is None or rests(node, s) or _is_held_inside(node, s)

    def _hold_buffers(
        self, held: Sequence[Statement], node: Hold, ranges: Ranges, scope: Scope, body: Callable[[Scope], list[Stmt]]
    ) -> list[Stmt]:
        inside = scope.inside()
        out: list[Stmt] = []
        space = "register" if self.cutter.in_blocks else "local"
        resting = [s for s in held if rests(node, s)]
        for s in held:
            local = inside.locals[s.target] = self._local(s, ranges)
            out.append(Alloc(local.name, s.dtype, local.shape, space))
        for s in resting:
            local = inside.resting[s.target] = inside.locals[s.target]
            if s.target in self.previous:
                out.append(Alloc(local.name + "_before", s.dtype, local.shape, space))
        for s in resting:
            out += self._fill(s, inside.locals[s.target], ranges)
        out += body(inside)
        for s in held:
            if s.target in self.outputs:
                out += self._store(s, inside.locals[s.target], ranges)
        return out

    def _definition(self, target: str) -> Statement:
        s = self.kernel.definition(target)
        if s is None:
            raise ScheduleError(f"kernel {self.kernel.name!r}: {target!r} is held, but no statement defines it")
        return s

    def _local(self, s: Statement, ranges: Ranges) -> Local:
        """The buffer of what is left of a statement's axes, of a scan's one step where no more is read, the axis in the
        lanes of most of its users innermost; on a GPU, of its blocks of points."""
        if self.cutter.in_blocks:
            blocks = [(p, a, ranges[a]) for p, a in enumerate(self.cutter.order(s.axes, ranges))]
            kept = [(p, a, len(r.trail) - 1, r.tile.extent) for p, a, r in blocks if r.tile is not None]
            return Local(self.cutter.register(s.target, "block"), tuple(kept))
        kept = []
        step = keeps_step(self.kernel, s)
        for position, axis in enumerate(s.axes):
            r = ranges[axis]
            if r.placed or axis == step:
                continue
            if r.most is None:
                raise ScheduleError(
                    f"kernel {self.kernel.name!r}: the local buffer {s.target!r} needs a known extent of "
                    f"axis {axis!r}, which is a run-time size; "
                    "give that size a constant, or keep its readers in another kernel"
                )
            kept.append((position, axis, len(r.trail), self._room(s, r.most)))
        innermost = self._lanes_of(s)
        kept.sort(key=lambda place: place[1] == innermost)
        return Local(self.cutter.first_or_fresh(local_name(s.target)), tuple(kept))

    def _room(self, s: Statement, points: int) -> int:
        """How many points a buffer has room for: tile registers are left as a whole, full or not."""
        around = (node for place in self.places if self.kernel.statements[place.position] is s for node in place.around)
        in_tiles = any(isinstance(node, Hold) and node.space == "tiles" for node in around)
        return -(-points // TILE_SIDE) * TILE_SIDE if in_tiles else points

    def _lanes_of(self, s: Statement) -> str | None:
        """The axis that most loops that touch a statement's results have in their lanes; at a tie, the last one's."""
        found: dict[Path, str] = {}
        for place in self.places:
            other = self.kernel.statements[place.position]
            if place.lanes in s.axes and (other.target == s.target or any(x.buffer == s.target for x in other.reads)):
                depth = next(n for n, x in enumerate(place.around) if isinstance(x, Loop) and x.together == "lanes")
                found[place.path[: depth + 1]] = str(place.lanes)
        lanes = list(found.values())
        return max(reversed(lanes), key=lanes.count, default=None)

    def _fill(self, s: Statement, local: Local, ranges: Ranges) -> list[Stmt]:
        """A local buffer set to the identity of its reduction at every point of what is left of its axes."""
        identity = self._identity(s)

        def emit(inner: Ranges) -> list[Stmt]:
            index = self.values.index_in(local, s, inner)
            return [Tile(tiles_of(s.axes, inner), local.name, index, "set", identity)]

        return self._over_all(s, ranges, emit)

    def _store(self, s: Statement, local: Local, ranges: Ranges) -> list[Stmt]:
        """A held output, stored when its hold is over."""

        def emit(inner: Ranges) -> list[Stmt]:
            value = self.values.load_local(local, at_own_axes(s), inner)
            index = tuple(self.values.absolute(Axis(a), inner) for a in s.axes)
            return [Tile(tiles_of(s.axes, inner), s.target, index, "set", value)]

        return self._over_all(s, ranges, emit)

    def _over_all(self, s: Statement, ranges: Ranges, emit: Emit) -> list[Stmt]:
        """Loops over what is left of a statement's axes; in lanes, innermost, the one that its users have there, or the
        last one."""
        left = [a for a in s.axes if not ranges[a].placed]
        if not left:
            return list(emit(ranges))
        used = self._lanes_of(s)
        lanes = used if used in left else s.axes[-1]
        axis = next((a for a in left if a != lanes), lanes)
        step, together = (FILL_LANES, "lanes") if axis == lanes else (1, "")
        return self.cutter.cut(axis, step, together, ranges, lambda inner: self._over_all(s, inner, emit))

    # Reductions -----------------------------------------------------------------------------------------------------

    def _hold_sums(self, sums: Sequence[Statement], node: Hold, at: Path, ranges: Ranges, scope: Scope) -> list[Stmt]:
        """Fresh accumulators, what fills them, and then their results."""
        inside = scope.inside()
        held: dict[str, Accumulator] = {}
        out: list[Stmt] = []
        for s in sums:
            if s.reduction is None:
                raise ScheduleError(
                    f"kernel {self.kernel.name!r}: {s.target!r} is no reduction; on a CPU only those are held in "
                    "registers, and other results stay there by themselves: hold it in local"
                )
            resting = rests(node, s) or _is_held_inside(node, s)
            kept = tiles_of(self.cutter.order(s.axes, ranges), ranges)
            kept = lanes_last(kept) if node.space == "tiles" else kept
            name = self.cutter.register(s.target, "sum" if resting else "acc")
            made = Accumulator(name, (*kept, *_lanes_inside(node, s)), node.space == "tiles")
            shape = tuple(t.extent for t in made.tiles)
            out.append(Alloc(name, s.dtype, shape, "tile" if made.in_tiles else "register"))
            out.append(Tile(made.tiles, name, made.index, "set", self._identity(s)))
            held[s.target] = inside.accumulators[s.target] = made
            if resting:
                inside.resting[s.target] = made
            else:
                inside.resting.pop(s.target, None)
        out += self._block(node.body, at, ranges, inside)
        for name, made in held.items():
            out += self._finish(self._definition(name), made, ranges, scope)
        return out

    def _accumulate(self, s: Statement, ranges: Ranges, scope: Scope) -> Tile:
        """One step of a reduction: the points of the reduced axes around it join the accumulators."""
        assert s.reduction is not None
        if s.target not in scope.accumulators:
            raise ScheduleError(
                f"kernel {self.kernel.name!r}: nothing holds the accumulators of {s.target!r}; put "
                f"`hold {s.target} in registers` around the loops over {', '.join(s.reduction.axes)}"
            )
        made = scope.accumulators[s.target]
        kept = self.cutter.order(s.axes, ranges)
        tiles = (*tiles_of(kept, ranges), *tiles_of(s.reduction.axes, ranges))
        value = self.values.value(s.reduction.body, ranges, scope)
        return Tile(tiles, made.name, made.index, reduction(s.reduction.operator).combine, value)

    def _identity(self, s: Statement) -> Const:
        assert s.reduction is not None
        return Const(reduction(s.reduction.operator).identity(s.dtype), s.dtype)

    def _finish(self, s: Statement, made: Accumulator, ranges: Ranges, scope: Scope) -> list[Stmt]:
        """After the reduced loops: join what rests further out, fold lanes together, store, or stay in registers."""
        assert s.reduction is not None
        combine = reduction(s.reduction.operator).combine
        resting = scope.resting.get(s.target)
        if made.in_tiles:
            return self._leave_tiles(s, made, ranges, scope)
        if isinstance(resting, Accumulator):
            part = Load(made.name, made.index, s.dtype)
            return [Tile(made.tiles, resting.name, resting.index, combine, part)]
        kept = self.cutter.order(s.axes, ranges)
        tiles = tiles_of(kept, ranges)
        index = tuple(Axis(t.name) for t in tiles)
        lanes = made.tiles[len(tiles) :]
        out: list[Stmt] = []
        name = made.name
        if lanes or resting is not None:
            name = self.cutter.register(s.target, "total")
            start = self._identity(s) if resting is None else self._resumed(s, resting, ranges, scope)
            outer = tuple(replace(t, kind="unroll") for t in tiles) if lanes else tiles
            out.append(Alloc(name, s.dtype, tuple(t.extent for t in tiles), "register"))
            out.append(Tile(outer, name, index, "set", start))
            out.append(Tile((*outer, *lanes), name, index, combine, Load(made.name, made.index, s.dtype)))
        scope.registers[s.target] = (name, kept)
        result = Load(name, index, s.dtype)
        if resting is not None and s.target in self.previous:
            at = self.values.index_in(resting, s, ranges)
            out.append(Tile(tiles, resting.name + "_before", at, "set", Load(resting.name, at, s.dtype)))
        return out + self._put(s, tiles, result, ranges, scope)

    def _leave_tiles(self, s: Statement, made: Accumulator, ranges: Ranges, scope: Scope) -> list[Stmt]:
        """Sums from tile registers to the buffer in the cache that holds them."""
        if s.target not in scope.locals:
            raise ScheduleError(
                f"kernel {self.kernel.name!r}: tile registers are left for memory: hold {s.target} in local around the "
                "loops over its tiles"
            )
        return self._put(s, made.tiles, Load(made.name, made.index, s.dtype), ranges, scope)

    def _resumed(self, s: Statement, resting: Local, ranges: Ranges, scope: Scope) -> Expr:
        """What rests of earlier turns, rescaled where the reduction is online."""
        assert s.reduction is not None
        so_far = self.values.load_local(resting, at_own_axes(s), ranges)
        if s.reduction.rescale is None:
            return so_far
        known = scope.factors.get(s.reduction.rescale)
        if known is None:
            factor = self.values.value(s.reduction.rescale, ranges, Scope(locals=scope.locals))
        else:
            factor = self.values.load_local(known, loads(s.reduction.rescale)[0], ranges)
        return Call("mul", (so_far, factor), s.dtype)

    # Other statements -----------------------------------------------------------------------------------------------

    def _compute(self, s: Statement, read: bool, ranges: Ranges, scope: Scope) -> list[Stmt]:
        """A statement at the current points: into a register where later ones `read` it there, and to its buffer."""
        axes = self.cutter.order(s.axes, ranges) if self.cutter.in_blocks else s.axes
        tiles = tiles_of(axes, ranges)
        value = self.values.value(s.value, ranges, scope)
        if s.scatter is not None:
            inside = (Axis(span.axis) if (span := span_of_index(i)) is not None else i for i in s.scatter.index)
            at = tuple(self.values.value(i, ranges, scope) for i in inside)
            combine = {"max": "maximum", "min": "minimum"}.get(s.scatter.combine, s.scatter.combine)
            tile = Tile(tiles, s.target, at, combine, value)
            masked = self.cutter.in_blocks or not computed_where_written(s)
            return [tile] if masked else _where_written(tile)
        if s.target in scope.carried:
            name, order = scope.carried[s.target]
            index = tuple(Axis(t.name) for t in tiles_of(order, ranges))
            carried = Tile(tiles, name, index, "set", value)
            return [carried, *self._put(s, tiles, Load(name, index, s.dtype), ranges, scope)]
        out: list[Stmt] = []
        if read and not (self.cutter.in_blocks and s.target in scope.locals):
            name = self.cutter.register(s.target, "reg")
            index = tuple(Axis(t.name) for t in tiles)
            out.append(Alloc(name, s.dtype, tuple(t.extent for t in tiles), "register"))
            out.append(Tile(tiles, name, index, "set", value))
            scope.registers[s.target] = (name, axes)
            value = Load(name, index, s.dtype)
        return out + self._put(s, tiles, value, ranges, scope)

    def _put(self, s: Statement, tiles: tuple[TileAxis, ...], value: Expr, ranges: Ranges, scope: Scope) -> list[Stmt]:
        """A result to where it lives: the buffer that holds it, or an output's memory."""
        if s.target in scope.locals:
            local = scope.locals[s.target]
            return [Tile(tiles, local.name, self.values.index_in(local, s, ranges), "set", value)]
        if s.target not in self.outputs:
            return []
        index = tuple(self.values.absolute(Axis(a), ranges) for a in s.axes)
        return [Tile(tiles, s.target, index, "set", value)]


def _where_written(tile: Tile) -> list[Stmt]:
    """A tile that is scattered, run only where it writes, if that is the same at all its points: elsewhere its index is
    -1, and it would compute for nothing."""
    own = {axis.name for axis in tile.axes}
    conditions, index = [], []
    for i in tile.index:
        match i:
            case Call("where", (condition, place, Const(value=-1))) if not free_axes(condition) & own:
                conditions.append(condition)
                index.append(place)
            case _:
                index.append(i)
    if not conditions:
        return [tile]
    return [If(both(*conditions), (replace(tile, index=tuple(index)),))]


def lanes_last(tiles: tuple[TileAxis, ...]) -> tuple[TileAxis, ...]:
    """Tiles with the one in the lanes innermost, as its points are in memory."""
    return tuple(sorted(tiles, key=lambda t: t.kind == "lanes"))


def _is_held_inside(hold: Hold, s: Statement) -> bool:
    """Whether a hold further in has accumulators of its own, which join this one's."""
    return any(isinstance(n, Hold) and s.target in n.targets for _, n in nodes(hold.body))


def _lanes_inside(hold: Hold, s: Statement) -> tuple[TileAxis, ...]:
    """The lanes of a reduction's accumulators, where they run along an axis that is reduced."""
    assert s.reduction is not None
    reduced = set(s.reduction.axes)
    found = (n for _, n in nodes(hold.body) if isinstance(n, Loop) and n.together == "lanes" and n.axis in reduced)
    return tuple(TileAxis(n.axis, n.step, "lanes") for n in found)[:1]
