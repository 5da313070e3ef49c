"""From decisions to a schedule: nests with their tiles, put into one tree of loops.

Around everything come the parallel loops; inside them what several nests touch is held, then the sequential loop, if
there is one, around the nests of its turns. A nest has loops over kept axes, inside them its accumulators and the loops
over reduced axes, and after those what follows at the same points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from effcc.ir.dependences import keeps_step
from effcc.ir.expr import Axis
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.schedule import PARALLEL, SERIAL, Do, Hold, Loop, Node
from effcc.passes.tiling.nests import NestPlan


@dataclass(frozen=True)
class TiledAxis:
    """An axis cut into tiles of `tile` points."""

    axis: str
    tile: int


@dataclass(frozen=True)
class TiledNest:
    """A nest and what was decided for it.

    `tiles` gives the axes whose points are computed together: how (`lanes`, `unroll` or `block`) and how many. `order`
    lists all axes, outermost first. `chunk`: so many points of a reduced axis, with all reduced axes inside it, are
    summed in fresh accumulators, which then join the total. `block`: so many points of the outermost reduced axis are
    summed for all points of the kept axes before the next ones, and partial sums rest in the cache. `strip`: so many
    points of a kept axis pass with all points of the others before the next ones. `accumulators`: where they are held.
    """

    plan: NestPlan
    tiles: Mapping[str, tuple[str, int]]
    order: tuple[str, ...] = ()
    chunk: TiledAxis | None = None
    block: TiledAxis | None = None
    strip: TiledAxis | None = None
    accumulators: str = "registers"

    @property
    def positions(self) -> tuple[int, ...]:
        """The statements, by position."""
        return (*self.plan.groups, *self.plan.body, *self.plan.reductions, *self.plan.epilogue)

    @property
    def lanes(self) -> TiledAxis | None:
        return next((TiledAxis(a, n) for a, (how, n) in self.tiles.items() if how == "lanes"), None)

    @property
    def unrolled(self) -> tuple[str, ...]:
        return tuple(a for a, (how, _) in self.tiles.items() if how == "unroll")


@dataclass(frozen=True)
class Outline:
    """The loops around all nests: `parallel`, outermost first, and `sequential`, a tiled reduced axis or a scan axis.

    `stepwise`: the parallel loops stand inside the sequential one, along a scan, and threads meet after each step.
    `around`: tiled axes whose loops stand around the sequential one, and are summed over as well, outermost first.
    `together`: what becomes of tiles' points on a GPU, `block`. `stages`: the loads of how many turns are in flight.
    """

    parallel: tuple[TiledAxis, ...]
    sequential: TiledAxis | None = None
    around: tuple[TiledAxis, ...] = ()
    stepwise: bool = False
    together: str = ""
    stages: int = 1


def build(kernel: Kernel, outline: Outline, nests: Sequence[TiledNest]) -> tuple[Node, ...]:
    """The loops of a schedule."""
    return _Builder(kernel, outline, nests).run()


class _Builder:
    def __init__(self, kernel: Kernel, outline: Outline, nests: Sequence[TiledNest]) -> None:
        self.kernel, self.outline, self.nests = kernel, outline, nests
        cuts = [*outline.parallel, *outline.around, *([outline.sequential] if outline.sequential is not None else [])]
        self.placed = {t.axis for t in cuts if t.tile == 1 or outline.together}
        self.held = self._held()

    def run(self) -> tuple[Node, ...]:
        sequential = self.outline.sequential
        if sequential is None:
            return self._parallel(self._hold(self.held, self._phase("inside")))
        carried = [s for s in self.held if keeps_step(self.kernel, s) == sequential.axis]
        steps = self._hold(
            [s for s in self.held if sequential.axis in s.axes and s not in carried], self._phase("inside")
        )
        if self.outline.stepwise:
            return (self._turns(sequential, self._parallel(steps)),)
        if self.outline.around:
            return self._parallel(self._both_ways(sequential, self.outline.around))
        outside = [s for s in self.held if sequential.axis not in s.axes or s in carried]
        turns = (*self._phase("before"), self._turns(sequential, steps), *self._phase("after"))
        return self._parallel(self._hold(outside, turns))

    def _both_ways(self, sequential: TiledAxis, around: tuple[TiledAxis, ...]) -> tuple[Node, ...]:
        """Loops around the sequential one: its sums rest until its end, sums over the outer ones until all is done."""
        outer = {t.axis for t in around}
        walked = {sequential.axis, *outer}
        inside = [nest for nest in self.nests if nest.plan.phase == "inside"]
        summed = [s for s in self.held if s.reduction is not None and walked & set(s.reduction.axes)]
        per_turn = [s for s in self.held if s not in summed and any(self._computes(nest, s) for nest in inside)]
        per_row = [s for s in self.held if s not in per_turn and outer <= set(s.axes)]
        rest = [s for s in self.held if s not in per_turn and s not in per_row]
        turns = self._turns(sequential, self._hold(per_turn, self._phase("inside")))
        body = self._hold(per_row, (turns, *self._phase("turn")))
        for axis in reversed(around):
            body = (self._turns(axis, body),)
        return self._hold(rest, (*body, *self._phase("after")))

    def _parallel(self, body: tuple[Node, ...]) -> tuple[Node, ...]:
        for t in reversed(self.outline.parallel):
            body = (Loop(PARALLEL, t.axis, t.tile, body, self._together(t.tile)),)
        return body

    def _turns(self, sequential: TiledAxis, body: tuple[Node, ...]) -> Loop:
        together = self._together(sequential.tile)
        return Loop(SERIAL, sequential.axis, sequential.tile, body, together, self.outline.stages)

    def _together(self, tile: int) -> str:
        return self.outline.together if tile > 1 else ""

    def _phase(self, phase: str) -> tuple[Node, ...]:
        return tuple(node for nest in self.nests if nest.plan.phase == phase for node in self._nest(nest))

    # What is held ---------------------------------------------------------------------------------------------------

    def _held(self) -> list[Statement]:
        """The statements whose results several nests touch, that accumulate over turns or blocks, or that the next
        turn reads."""
        outputs = {p.name for p in self.kernel.outputs}
        memory = outputs if self.kernel.scans or not self.outline.together else set()
        found: dict[str, Statement] = {}
        for position, s in enumerate(self.kernel.statements):
            homes = [nest for nest in self.nests if self._touches(nest, s.target)]
            blocked = any(nest.block is not None and position in nest.plan.reductions for nest in homes)
            between = len(homes) > 1 and s.target not in memory and not self._stays(s)
            if blocked or self._accumulates(s) or between or keeps_step(self.kernel, s) is not None:
                found.setdefault(s.target, s)
        return list(found.values())

    def _stays(self, s: Statement) -> bool:
        """Whether a result is still in a register where other nests read it: the loops around all nests are its own,
        and it is not computed among the sums of one."""
        inside = (nest.plan.body for nest in self.nests if nest.plan.reductions)
        if any(self.kernel.statements[i] is s for body in inside for i in body):
            return False
        own = tuple(Axis(a) for a in s.axes)
        reads = (x for other in self.kernel.statements for x in other.reads if x.buffer == s.target)
        return self.placed >= set(s.axes) and all(x.index == own for x in reads)

    def _computes(self, nest: TiledNest, s: Statement) -> bool:
        return any(self.kernel.statements[i] is s for i in nest.positions)

    def _touches(self, nest: TiledNest, target: str) -> bool:
        statements = (self.kernel.statements[i] for i in nest.positions)
        return any(s.target == target or any(x.buffer == target for x in s.reads) for s in statements)

    def _accumulates(self, s: Statement) -> bool:
        """Whether partial results survive from one turn of the sequential loop to the next."""
        walked = {t.axis for t in (self.outline.sequential, *self.outline.around) if t is not None}
        return s.reduction is not None and bool(walked & set(s.reduction.axes))

    def _hold(self, statements: Sequence[Statement], body: tuple[Node, ...]) -> tuple[Node, ...]:
        if not statements:
            return body
        space = "registers" if self.outline.together else "local"
        return (Hold(tuple(s.target for s in statements), space, body),)

    # Nests ----------------------------------------------------------------------------------------------------------

    def _nest(self, nest: TiledNest) -> tuple[Node, ...]:
        plan = nest.plan
        order = nest.order or (*plan.kept, *plan.reduced)
        kept = [a for a in order if a in plan.kept]
        if not plan.reductions:
            strip = nest.strip
            if strip is not None and strip.tile == 1:  # its loop is the one that computes the points
                kept, strip = [strip.axis, *(a for a in kept if a != strip.axis)], None
            points = self._over(kept, nest, self._do(plan.body))
            return points if strip is None else (Loop(SERIAL, strip.axis, strip.tile, points),)
        reduced = [a for a in order if a in plan.reduced]
        if nest.accumulators == "tiles":
            return self._on_unit(nest, kept, reduced)
        sums = self._sums(nest, reduced)
        if nest.block is None:
            return self._over(kept, nest, (*sums, *self._do(plan.epilogue)))
        blocks = Loop(SERIAL, nest.block.axis, nest.block.tile, self._over(kept, nest, sums))
        return (blocks, *(self._over(kept, nest, self._do(plan.epilogue)) if plan.epilogue else ()))

    def _on_unit(self, nest: TiledNest, kept: list[str], reduced: list[str]) -> tuple[Node, ...]:
        """A product in tile registers, which are left for a buffer in the cache that what follows reads row by row."""
        tiled = [a for a in kept if a in nest.tiles]
        sums = self._over(
            tiled, nest, self._accumulators(nest, self._over(reduced, nest, self._do(nest.plan.reductions)))
        )
        left = [self.kernel.statements[i] for i in nest.plan.reductions]
        if nest.plan.epilogue:
            rows = replace(nest, tiles={a: tile for a, tile in nest.tiles.items() if tile[0] == "lanes"})
            sums += self._over(sorted(tiled, key=lambda a: a in rows.tiles), rows, self._do(nest.plan.epilogue))
        body = self._hold([s for s in left if s not in self.held], sums)
        for axis in reversed(tiled):
            body = (Loop(SERIAL, axis, nest.tiles[axis][1], body),)
        return self._over([a for a in kept if a not in nest.tiles], nest, body)

    def _sums(self, nest: TiledNest, reduced: list[str]) -> tuple[Node, ...]:
        """The accumulators, and the loops that fill them."""
        inner = (*self._groups(nest), *self._do((*nest.plan.body, *nest.plan.reductions)))
        if nest.chunk is None:
            return self._accumulators(nest, self._over(reduced, nest, inner))
        outside = reduced.index(nest.chunk.axis)
        inside = reduced[outside + (nest.chunk.tile == 1) :]
        sums = self._accumulators(nest, self._over(inside, nest, inner))
        chunks = (Loop(SERIAL, nest.chunk.axis, nest.chunk.tile, sums),)
        return self._accumulators(nest, self._over(reduced[:outside], nest, chunks))

    def _groups(self, nest: TiledNest) -> tuple[Node, ...]:
        """The products that are summed a group at a time, before their sums join the accumulators."""
        found: list[Node] = []
        for s in (self.kernel.statements[i] for i in nest.plan.groups):
            assert s.reduction is not None
            found.append(Hold((s.target,), nest.accumulators, self._over(s.reduction.axes, nest, (Do(s.target),))))
        return tuple(found)

    def _accumulators(self, nest: TiledNest, body: tuple[Node, ...]) -> tuple[Node, ...]:
        return (Hold(tuple(self.kernel.statements[i].target for i in nest.plan.reductions), nest.accumulators, body),)

    def _over(self, axes: Sequence[str], nest: TiledNest, body: tuple[Node, ...]) -> tuple[Node, ...]:
        for axis in reversed([a for a in axes if a not in self.placed]):
            together, tile = nest.tiles.get(axis, ("", 1))
            body = (Loop(SERIAL, axis, tile, body, together, self.outline.stages),)
        return body

    def _do(self, positions: Sequence[int]) -> tuple[Node, ...]:
        return tuple(Do(self.kernel.statements[i].target) for i in positions)
