"""Whether a schedule computes its kernel and fits the machine: every statement once, dependences kept, bounds held.

>>> from effcc.ir.parser import parse_kernel, parse_schedule
>>> kernel = parse_kernel("kernel @k(X: f32[8]) -> (Y: f32[8]) over i=8 { Y[i] = exp(X[i]) }")
>>> verify_schedule(kernel, parse_schedule("schedule @k { for j by 1 { do Y } }").schedule)
Traceback (most recent call last):
...
effcc.ir.verifier.schedules.Misfit: kernel @k has no axis 'j'; its axes are i
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

from effcc.errors import ScheduleError
from effcc.ir.contraction import contraction
from effcc.ir.dependences import carries, is_made_anew, keeps_step, online_axis, shared_axes
from effcc.ir.dots import TILE_ROW_BYTES, TILE_SIDE
from effcc.ir.expr import Axis, Load, ends_at, free_axes, loads
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.schedule import (
    ACCUMULATORS,
    PARALLEL,
    SPACES,
    TOGETHER,
    Do,
    Hold,
    Loop,
    Node,
    Pack,
    Path,
    Place,
    Schedule,
    places,
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """The bounds of a machine: bytes of a vector, vector registers, bytes of a core's cache; `blocks` for a GPU, whose
    vectors are a warp's registers, of at most `warps` warps in a program; `tile_registers` of a CPU with such.
    """

    name: str
    vector_bytes: int
    vector_registers: int
    cache_bytes: int
    blocks: bool = False
    warps: int = 32
    tile_registers: int = 0


class Misfit(ScheduleError):
    """A schedule that does not fit its kernel or the machine; `path` is the node at fault (a pack: -1, -2, ...)."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


def verify_schedule(kernel: Kernel, schedule: Schedule, machine: Machine | None = None) -> None:
    """Raise Misfit unless the schedule computes the kernel, on `machine` if one is given."""
    _Verifier(kernel, machine).run(schedule)


@dataclass(frozen=True)
class _Around:
    """What stands around a node: loops and holds, outermost first, each with its path."""

    nodes: tuple[tuple[Path, Loop | Hold], ...] = ()

    @property
    def loops(self) -> list[tuple[Path, Loop]]:
        return [(p, n) for p, n in self.nodes if isinstance(n, Loop)]

    def holds(self, target: str) -> list[tuple[Path, Hold]]:
        """The holds of a target, outermost first."""
        return [(p, n) for p, n in self.nodes if isinstance(n, Hold) and target in n.targets]

    def left(self, axis: str) -> int:
        """How many points of an axis are left: the step of the innermost loop over it; 0 where none has cut it."""
        return next((n.step for _, n in reversed(self.loops) if n.axis == axis), 0)

    def places(self, axis: str) -> tuple[Path, Loop] | None:
        """The loop that brought an axis to a point, or to points that are computed together."""
        return next(((p, n) for p, n in self.loops if n.axis == axis and (n.together or n.step == 1)), None)

    def outside(self, path: Path) -> _Around:
        """What stands around the node at `path`, one of these."""
        return _Around(tuple((p, n) for p, n in self.nodes if len(p) < len(path)))


@dataclass
class _Verifier:
    kernel: Kernel
    machine: Machine | None
    done: dict[int, tuple[Path, _Around]] = field(default_factory=dict)
    later: list[tuple[str, str, set[tuple[Path, Loop | Hold]]]] = field(default_factory=list)
    """Who has read what before it was computed, at earlier points of loops that both must stand in."""
    sizes: dict[str, int] = field(default_factory=dict)
    warps: int = 0
    places: list[Place] = field(default_factory=list)
    packs: tuple[Pack, ...] = ()

    @property
    def blocks(self) -> bool:
        """Whether the machine is a GPU, whose programs hold blocks."""
        return self.machine is not None and self.machine.blocks

    def run(self, schedule: Schedule) -> None:
        self.warps, self.places, self.packs = schedule.warps, places(self.kernel, schedule), schedule.packs
        if self.machine is not None:
            self._warps(schedule, self.machine)
        for number, pack in enumerate(schedule.packs):
            self._pack(pack, (-1 - number,))
        self._block(schedule.body, (), _Around())
        missing = [s.target for n, s in enumerate(self.kernel.statements) if n not in self.done]
        if missing:
            raise Misfit(f"kernel @{self.kernel.name}: nothing computes {', '.join(missing)}: `do` each once", ())

    def _warps(self, schedule: Schedule, machine: Machine) -> None:
        """Programs run on warps, and loads are in flight, on a GPU alone."""
        if machine.blocks and not (_is_power_of_two(schedule.warps) and schedule.warps <= machine.warps):
            raise Misfit(
                f"a program runs on {schedule.warps} warps: {machine.name} takes 1, 2, 4, ... up to {machine.warps}", ()
            )
        if not machine.blocks and schedule.warps:
            raise Misfit(f"{machine.name} is no GPU: it has no warps, got {schedule.warps}", ())

    def _pack(self, pack: Pack, path: Path) -> None:
        if pack.buffer not in {p.name for p in self.kernel.params}:
            names = ", ".join(p.name for p in self.kernel.params)
            raise Misfit(f"{pack.buffer!r} is no parameter of kernel @{self.kernel.name}: {names}", path)
        for axis in (pack.axis, *pack.order):
            self._axis(axis, path)
        if pack.width < 1:
            raise Misfit(f"{pack.buffer} is packed by {pack.width}: expected at least 1", path)
        if pack.group < 1 or (pack.group > 1 and not pack.order):
            raise Misfit(
                f"{pack.buffer} has groups of {pack.group}: they are points of the last axis of its order", path
            )

    def _axis(self, axis: str, path: Path) -> None:
        if axis not in self.kernel.extents:
            known = ", ".join(self.kernel.extents)
            raise Misfit(f"kernel @{self.kernel.name} has no axis {axis!r}; its axes are {known}", path)

    def _block(self, body: tuple[Node, ...], path: Path, around: _Around) -> None:
        for number, node in enumerate(body):
            at = (*path, number)
            match node:
                case Loop():
                    self._loop(node, at, around)
                    self._block(node.body, at, _Around((*around.nodes, (at, node))))
                case Hold():
                    self._hold(node, at, around)
                    self._block(node.body, at, _Around((*around.nodes, (at, node))))
                case Do():
                    self._do(node, at, around)

    # Loops ----------------------------------------------------------------------------------------------------------

    def _loop(self, loop: Loop, path: Path, around: _Around) -> None:
        self._axis(loop.axis, path)
        if loop.step < 1:
            raise Misfit(f"a loop over {loop.axis} by {loop.step}: expected at least 1", path)
        placed = around.places(loop.axis)
        if placed is not None:
            how = f"in {placed[1].together}" if placed[1].together else "at a point"
            raise Misfit(f"{loop.axis} is {how} already: `{placed[1].kind} {loop.axis} by {placed[1].step}`", path)
        if loop.together and loop.together not in TOGETHER:
            raise Misfit(f"{loop.together!r}: expected one of {', '.join(TOGETHER)}", path)
        if loop.axis in self.kernel.scans and (loop.step > 1 or loop.kind == PARALLEL):
            raise Misfit(f"{loop.axis} is a scan, whose points run in order: `for {loop.axis} by 1`", path)
        if loop.together == "lanes":
            other = next((n.axis for _, n in around.loops if n.together == "lanes"), None)
            if other is not None:
                raise Misfit(f"{loop.axis} cannot be in the lanes: {other} is", path)
        if self.machine is not None and loop.together and (loop.together == "block") != self.machine.blocks:
            wanted = "block" if self.machine.blocks else "lanes, unroll or packed"
            raise Misfit(f"points are computed together {loop.together!r}: on {self.machine.name} {wanted} do", path)
        if self.machine is not None and self.machine.blocks:
            self._blocks(loop, path)
        elif self.machine is not None and loop.stages > 1:
            raise Misfit(f"{self.machine.name} is no GPU: no loads are in flight, got stages {loop.stages}", path)
        if loop.kind == PARALLEL:
            self._parallel(loop, path, around)
        if loop.axis in self.kernel.spans:
            if self.machine is not None and self.machine.blocks:
                raise Misfit(f"{loop.axis} is ragged: no block of {self.machine.name} covers it", path)
            self._ragged(loop, path, around)

    def _ragged(self, loop: Loop, path: Path, around: _Around) -> None:
        """A loop runs over one span, which is read at the points of the axes that it depends on."""
        inside = [s for s in self._inside(path) if not self._only_in_spans(s, loop.axis)]
        spans = {next((span for span in s.spans if span.axis == loop.axis), None) for s in inside}
        if len(spans) > 1:
            names = ", ".join(s.target for s in inside)
            raise Misfit(f"{names} run over other points of {loop.axis}: each needs a loop of its own", path)
        for axis in sorted(a for span in spans if span is not None for a in ends_at(span)):
            placed = around.places(axis)
            if placed is None or placed[1].together:
                raise Misfit(f"where {loop.axis} begins and ends is read at a point of {axis}: put `for {axis} by 1` "
                             f"around its loop", path)  # fmt: skip

    def _only_in_spans(self, s: Statement, axis: str) -> bool:
        """Whether all that reads a statement's results reads them where spans that are kept lie, in the end."""
        readers = self.kernel.readers(s.target)
        kept = all(
            any(span.axis == axis for span in r.kept_spans) or (r is not s and self._only_in_spans(r, axis))
            for r in readers
        )
        return bool(readers) and kept and s.target not in {p.name for p in self.kernel.outputs}

    def _blocks(self, loop: Loop, path: Path) -> None:
        """A GPU's program computes on whole blocks, of one size for each axis."""
        if loop.step > 1 and loop.together != "block":
            raise Misfit(f"on a GPU a tile of {loop.step} points is a block: `{loop.axis} by {loop.step} block`", path)
        if not _is_power_of_two(loop.step):
            raise Misfit(f"a block of {loop.step} points of {loop.axis}: on a GPU blocks are powers of two", path)
        known = self.sizes.setdefault(loop.axis, loop.step)
        if known != loop.step:
            raise Misfit(f"{loop.axis} is cut by {known} elsewhere: on a GPU an axis has blocks of one size", path)

    def _parallel(self, loop: Loop, path: Path, around: _Around) -> None:
        for _, node in around.nodes:
            if isinstance(node, Hold):
                raise Misfit(f"`parallel {loop.axis}` stands inside `hold {', '.join(node.targets)}`", path)
            if node.kind != PARALLEL and node.axis not in self.kernel.scans:
                raise Misfit(f"`parallel {loop.axis}` stands inside `for {node.axis} by {node.step}`", path)
        inside = self._inside(path)
        ordered = frozenset(n.axis for _, n in around.loops if n.kind != PARALLEL)
        free = shared_axes(replace(self.kernel, statements=inside), ordered) if inside else ()
        if loop.axis not in free and self.kernel.extents[loop.axis] != 1 and not self._scattered(loop, inside):
            without = next((s.target for s in inside if loop.axis not in s.axes), None)
            why = (
                f"{without} does not run over it" if without else "a statement reads, or scatters to, points of others"
            )
            may = ", ".join(free) or "none"
            raise Misfit(f"points of {loop.axis} do not run on their own: {why} (axes whose do: {may})", path)

    def _scattered(self, loop: Loop, inside: tuple[Statement, ...]) -> bool:
        """On a GPU points of a scatter meet atomically."""
        gpu = loop.together == "block" or (self.machine is not None and self.machine.blocks)
        return gpu and len(inside) == 1 and inside[0].scatter is not None

    def _inside(self, path: Path) -> tuple[Statement, ...]:
        """The statements in a loop, in the kernel's order."""
        positions = sorted(p.position for p in self.places if p.path[: len(path)] == path)
        return tuple(self.kernel.statements[n] for n in positions)

    # Holds ----------------------------------------------------------------------------------------------------------

    def _hold(self, hold: Hold, path: Path, around: _Around) -> None:
        if hold.space not in SPACES:
            raise Misfit(f"{hold.space!r}: expected one of {', '.join(SPACES)}", path)
        twice = next((t for t in hold.targets if hold.targets.count(t) > 1), None)
        if twice is not None:
            raise Misfit(f"{twice} is held twice by one hold: name it once", path)
        tiles = [n for _, n in around.loops if n.together]
        blocks = self.blocks or any(n.together == "block" for n in tiles)
        if hold.space == "tiles":
            self._tiles(hold, path, around)
        if hold.space == "local" and tiles:
            raise Misfit(f"a hold in local stands outside of the loop whose points are in {tiles[0].together}", path)
        total = 0
        for target in hold.targets:
            s = self.kernel.definition(target)
            if s is None:
                raise Misfit(f"{target!r} is held, but no statement of kernel @{self.kernel.name} defines it", path)
            self._step(s, hold, path, around)
            if hold.space == "local":
                total += self._local(s, path, around)
            elif not blocks and s.reduction is None and carries(self.kernel, s) is not None:
                total += self._vectors(s, hold, path, around)
            elif s.reduction is not None and not blocks:
                found = self._accumulators(s, hold, path, around)
                total += found if hold.space == "registers" else 0
            elif not blocks:
                raise Misfit(f"{target} is no reduction, and no next step of a scan reads it: on a CPU it is held in "
                             "local, or stays where it is used", path)  # fmt: skip
            else:
                total += self._registers(s, hold, path, around)
        self._fits(hold, total, path)

    def _step(self, s: Statement, hold: Hold, path: Path, around: _Around) -> None:
        """What the next step of a scan reads outlives its own."""
        step = carries(self.kernel, s) if hold.space == "registers" else keeps_step(self.kernel, s)
        if step is not None and around.places(step) is not None:
            raise Misfit(f"the next step of {step} reads {s.target}: hold it around `for {step} by 1`", path)

    def _local(self, s: Statement, path: Path, around: _Around) -> int:
        """The bytes of a local buffer."""
        if any(n.space == "local" for _, n in around.holds(s.target)):
            raise Misfit(f"{s.target} is held in local already", path)
        points = 1
        step = keeps_step(self.kernel, s)
        for axis in s.axes:
            if around.places(axis) is None and axis != step:
                extent = around.left(axis) or self.kernel.extents[axis]
                if not isinstance(extent, int):
                    raise Misfit(
                        f"{s.target} is as long as {axis}, which is known at run time only: cut it outside", path
                    )
                points *= extent
        return points * s.dtype.bytes

    def _registers(self, s: Statement, hold: Hold, path: Path, around: _Around) -> int:
        """The bytes of a block: as large as the blocks of its axes, of each of which there is one."""
        loops = [*(n for _, n in around.loops), *(n for n in _nodes_in(hold.body) if isinstance(n, Loop))]
        steps = {loop.axis: loop.step for loop in reversed(loops)}
        for axis in s.axes:
            extent = self.kernel.extents[axis]
            covered = isinstance(extent, int) and 1 <= extent <= steps.get(axis, 1)
            if around.places(axis) is None and not covered:
                raise Misfit(f"{s.target} is held in a block of {steps.get(axis, 1)} points of {axis}, which has "
                             f"{extent}: put the loop over {axis} around it", path)  # fmt: skip
        return prod(steps.get(a, 1) for a in s.axes) * s.dtype.bytes

    def _accumulators(self, s: Statement, hold: Hold, path: Path, around: _Around) -> int:
        """The vectors of a reduction's accumulators."""
        assert s.reduction is not None
        return self._vectors(s, hold, path, around)

    def _vectors(self, s: Statement, hold: Hold, path: Path, around: _Around) -> int:
        """The vectors of what a hold in registers keeps at the points around it; of a scan, of one step."""
        open_axes = [a for a in s.axes if around.places(a) is None and a != carries(self.kernel, s)]
        if open_axes:
            raise Misfit(
                f"{s.target} would have an accumulator for every point of {', '.join(open_axes)}: "
                f"put the loops over {', '.join(open_axes)} outside of its hold in registers",
                path,
            )
        tiles = [n for _, n in around.loops if n.together in ("lanes", "unroll") and n.axis in s.axes]
        tiles += [n for n in _nodes_in(hold.body) if isinstance(n, Loop) and n.together == "lanes"][:1]
        if self.machine is None:
            return 0
        lanes = max(1, self.machine.vector_bytes // s.dtype.bytes)
        vectors = prod(-(-n.step // lanes) if n.together == "lanes" else n.step for n in tiles)
        return int(vectors)

    def _tiles(self, hold: Hold, path: Path, around: _Around) -> None:
        """One product's accumulators in tile registers, beside which a tile of each factor has room."""
        if len(hold.targets) != 1 or not any(
            isinstance(n, Loop) and n.together == "packed" for n in _nodes_in(hold.body)
        ):
            raise Misfit("tiles hold one sum of products, whose reduced axis is `packed`", path)
        if not around.holds(hold.targets[0]):
            raise Misfit(f"tile registers are left for the cache: hold {hold.targets[0]} in local around", path)
        for _, loop in around.loops:
            if loop.together and not isinstance(self.kernel.extents[loop.axis], int):
                raise Misfit(
                    f"{loop.axis} is as long as is known at run time only: tile registers hold whole tiles", path
                )
        steps = {n.together: n.step for _, n in around.loops}
        rows, columns = (-(-steps.get(way, 1) // TILE_SIDE) for way in ("unroll", "lanes"))
        taken = rows * columns + min(rows, columns) + 1
        if self.machine is not None and taken > self.machine.tile_registers:
            raise Misfit(
                f"{rows * columns} tiles of {hold.targets[0]} and {min(rows, columns) + 1} of its factors are {taken}: "
                f"{self.machine.name} has {self.machine.tile_registers} tile registers", path,
            )  # fmt: skip

    def _fits(self, hold: Hold, total: int, path: Path) -> None:
        if self.machine is None:
            return
        names = ", ".join(hold.targets)
        if self.machine.blocks:
            room = self.warps * self.machine.vector_bytes * self.machine.vector_registers
            if total > room:
                raise Misfit(
                    f"{names} in registers take {total} bytes: {self.warps} warps of {self.machine.name} have {room}",
                    path,
                )
            return
        if hold.space == "registers" and total > self.machine.vector_registers:
            bound = self.machine.vector_registers
            raise Misfit(f"the accumulators of {names} are {total} vectors: {self.machine.name} has {bound}", path)
        if hold.space == "local" and total > self.machine.cache_bytes:
            bound = self.machine.cache_bytes
            raise Misfit(f"{names} in local take {total} bytes: a core of {self.machine.name} caches {bound}", path)

    # Statements -----------------------------------------------------------------------------------------------------

    def _do(self, do: Do, path: Path, around: _Around) -> None:
        candidates = [n for n, s in enumerate(self.kernel.statements) if s.target == do.target]
        if not candidates:
            known = ", ".join(dict.fromkeys(s.target for s in self.kernel.statements))
            raise Misfit(f"no statement of kernel @{self.kernel.name} defines {do.target!r}; it has {known}", path)
        left = [n for n in candidates if n not in self.done]
        if not left:
            raise Misfit(f"{do.target} is computed already", path)
        s = self.kernel.statements[left[0]]
        own = {*s.axes, *(s.reduction.axes if s.reduction is not None else ())}
        for axis in own:
            if around.places(axis) is None:
                raise Misfit(f"{s.target} is computed at points of {axis}, which no loop around reaches: "
                             f"`for {axis} by 1`, or in lanes", path)  # fmt: skip
        anew = is_made_anew(self.kernel, s)  # it is there for what is inside alone, or in the same block
        lives = [at for at, _ in around.holds(s.target)] or [path] if anew else []
        for at, loop in around.loops:
            if loop.axis not in own and not any(len(at) < len(there) for there in lives):
                raise Misfit(f"{s.target} does not run over {loop.axis}: put it outside of that loop", path)
        for at, loop in around.loops:
            if loop.together == "packed":
                self._packed(s, loop, at, around)
            sets = loop.together and s.scatter is not None and s.scatter.combine == "set"
            if sets and s.scatter is not None and not any(loop.axis in free_axes(i) for i in s.scatter.index):
                raise Misfit(f"{s.target} is set at one place for all points of {loop.axis}, the last of which counts: "
                             f"`for {loop.axis} by 1`", path)  # fmt: skip
        if s.reduction is not None and s.scatter is None:
            self._sum(s, path, around)
            self._online(s, path, around)
        for load in s.reads:
            self._read(s, left[0], load, path, around)
        for reader, target, scans in self.later:
            if target == s.target and not scans <= set(around.nodes):
                raise Misfit(f"{reader} reads {target} of earlier points, which are computed later: put both inside "
                             f"of one loop over {', '.join(self.kernel.scans)}", path)  # fmt: skip
        self.done[left[0]] = path, around

    def _sum(self, s: Statement, path: Path, around: _Around) -> None:
        """A reduction's accumulators are inside the loops over its kept axes, and it begins once."""
        assert s.reduction is not None
        holds = around.holds(s.target)
        over = ", ".join(s.reduction.axes)
        if not holds or holds[-1][1].space not in ACCUMULATORS:
            raise Misfit(f"nothing holds the accumulators of {s.target}: put `hold {s.target} in registers` around the "
                         f"loops over {over}", path)  # fmt: skip
        outer, _ = holds[0]
        for at, loop in around.loops:
            if loop.axis in s.reduction.axes and len(at) < len(outer):
                raise Misfit(f"partial results of {s.target} rest nowhere between turns of `{loop.kind} {loop.axis} by "
                             f"{loop.step}`: hold {s.target} around that loop", outer)  # fmt: skip

    def _packed(self, s: Statement, loop: Loop, path: Path, around: _Around) -> None:
        """Packed neighbours are of a product for which there is such an instruction, one factor packed for it."""
        product = contraction(s)
        dot = product.dot if product is not None else None
        if product is None or dot is None or loop.axis not in product.depth:
            raise Misfit(f"points of {loop.axis} are packed, but {s.target} sums no products of such over it", path)
        holds = around.holds(s.target)
        tiles = bool(holds) and holds[-1][1].space == "tiles"
        most = TILE_ROW_BYTES // dot.bytes if tiles else dot.deepest
        lanes = next((n.axis for _, n in around.loops if n.together == "lanes"), None)
        factor = product.right if lanes in product.columns else product.left if lanes in product.rows else None
        if tiles and factor is not None and not dot.fits_tiles(factor.data.dtype):
            raise Misfit(f"no matrix unit sums products of {dot.left} and {dot.right} for lanes of {lanes}", path)
        if loop.step > most or loop.step % dot.neighbours or factor is None:
            raise Misfit(f"{s.target} adds up to {most} packed points of {loop.axis}, a multiple of {dot.neighbours}, "
                         f"with lanes along an axis of one factor: got {loop.step}", path)  # fmt: skip
        wanted = (factor.data.buffer, lanes, loop.axis, dot.neighbours)
        packs = [p for p in self.packs if (p.buffer, p.axis, p.order[-1] if p.order else "", p.group) == wanted]
        if not packs:
            how = f"`pack {wanted[0]} along {lanes} ... order ..., {loop.axis} group {dot.neighbours}`"
            raise Misfit(f"{wanted[0]} is not packed for that: {how}", path)  # fmt: skip
        extent, width = self.kernel.extents[packs[0].axis], packs[0].width
        for at, cut in around.loops:
            left = width % cut.step if cut.together == "lanes" else cut.step % width
            alone = isinstance(extent, int) and extent <= min(cut.step, width)
            if cut.axis == lanes and left and not alone:
                raise Misfit(f"{wanted[0]} is packed by {width}: tiles of {lanes} by {cut.step} do not lie in a panel "
                             f"each, as those of packed neighbours do", at)  # fmt: skip

    def _online(self, s: Statement, path: Path, around: _Around) -> None:
        """What is rescaled joins once for each turn of the running reduction that it follows."""
        assert s.reduction is not None
        if s.reduction.rescale is None:
            return
        for load in loads(s.reduction.rescale):
            target = load.buffer
            running = [n for n, other in enumerate(self.kernel.statements) if load.before and other.target == target]
            for position in running:
                if position in self.done and _turns(target, s, self.done[position][1]) != _turns(s.target, s, around):
                    over = ", ".join(s.reduction.axes)
                    raise Misfit(f"{s.target} is rescaled whenever {target} has moved on: both are held in registers "
                                 f"inside of the same loops over {over}", path)  # fmt: skip

    def _read(self, s: Statement, position: int, load: Load, path: Path, around: _Around) -> None:
        """What a statement reads of another is finished, and is still there."""
        target = load.buffer
        sources = [n for n, other in enumerate(self.kernel.statements) if other.target == target]
        if not sources or any(p.name == target for p in self.kernel.params):
            return
        before = [n for n in sources if n in self.done]
        source = self.kernel.statements[(before or sources)[-1]]
        index = dict(zip(source.axes, load.index, strict=False))
        earlier = any(a in index and index[a] != Axis(a) for a in self.kernel.scans)
        outputs = {p.name for p in self.kernel.outputs}
        if not before:
            if not earlier:
                raise Misfit(f"{s.target} reads {target}, which is computed later: put `do {target}` before it", path)
            if target not in outputs and not around.holds(target):
                raise Misfit(f"{s.target} reads {target} of earlier points, which nothing holds", path)
            self.later.append((s.target, target, {(p, n) for p, n in around.loops if n.axis in self.kernel.scans}))
            return
        at, other = self.done[before[-1]]
        self._whole(s, source, load, path, around, other)
        self._there_yet(s, source, path, around, other)
        common = [n for p, n in around.loops if (p, n) in other.nodes]
        online = online_axis(self.kernel)
        for loop in common:
            if source.reduction is not None and loop.axis in source.reduction.axes and loop.axis != online:
                raise Misfit(f"{s.target} reads {target} before it is whole, inside of its loop over {loop.axis}", path)
            if loop.axis in index and index[loop.axis] != Axis(loop.axis) and loop.axis not in self.kernel.scans:
                raise Misfit(f"{s.target} reads {target} at other points of {loop.axis} than its own: they are not all "
                             f"computed inside the loop over {loop.axis}", path)  # fmt: skip
        if target in outputs or any((p, n) in other.nodes for p, n in around.holds(target)):
            return
        holds = other.holds(target)
        block = (holds[0][0] if holds else at)[:-1]
        own = load.index == tuple(Axis(a) for a in source.axes)
        over = bool(holds) and holds[0][1].space == "local"  # a buffer goes with its hold, a register with its block
        if path[: len(block)] != block or not own or over:
            raise Misfit(f"{s.target} reads {target}, which is not there any more: hold {target} around both", path)
        parallel = next((n for p, n in around.loops if n.kind == PARALLEL and len(p) > len(block)), None)
        if parallel is not None:
            raise Misfit(f"{s.target} reads {target}, which is in a register of one thread: compute it inside of "
                         f"`parallel {parallel.axis}`", path)  # fmt: skip

    def _whole(self, s: Statement, source: Statement, load: Load, path: Path, around: _Around, other: _Around) -> None:
        """A sum is whole when the hold of its accumulators is over; a factor that rescales is read there."""
        if source.reduction is None or source.scatter is not None:
            return
        if s.reduction is not None and s.reduction.rescale is not None and load not in loads(s.reduction.body):
            return
        # On a CPU the outer one of two holds in registers is accumulators as well; on a GPU it is a block to read.
        inside = [h for h in other.holds(source.target) if h[1].space in ACCUMULATORS and h in around.nodes]
        if self.blocks:
            inside = [h for h in inside if h == other.holds(source.target)[-1]]
        if inside:
            raise Misfit(f"{s.target} reads {source.target} inside of its hold in registers, before it is whole: "
                         "put it after that", path)  # fmt: skip

    def _there_yet(self, s: Statement, source: Statement, path: Path, around: _Around, other: _Around) -> None:
        """Of what keeps one step of a scan, that step is read inside of the scan's loop."""
        held = any(n.space == "registers" for _, n in around.holds(source.target))
        step = carries(self.kernel, source) if held else keeps_step(self.kernel, source)
        if step is not None and not any(n.axis == step and (p, n) in other.nodes for p, n in around.loops):
            raise Misfit(f"{s.target} reads {source.target} after the loop over {step}, of which one step is kept: put "
                         f"both inside of one `for {step} by 1`", path)  # fmt: skip


def _turns(target: str, s: Statement, around: _Around) -> list[Path]:
    """The loops over the axes that `s` reduces between whose turns partial results of `target` rest in the cache."""
    assert s.reduction is not None
    (outer, _), *_ = (h for h in around.holds(target) if h[1].space in ACCUMULATORS)
    first = around.holds(target)[0][0]
    return [p for p, n in around.loops if len(first) < len(p) < len(outer) and n.axis in s.reduction.axes]


def _is_power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


def _nodes_in(body: tuple[Node, ...]) -> list[Node]:
    """All nodes of a body."""
    return [x for node in body for x in (node, *(() if isinstance(node, Do) else _nodes_in(node.body)))]
