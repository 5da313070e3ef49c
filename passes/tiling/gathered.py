"""Schedules of sums of gathered rows between turns, whose tasks are a few vectors of rows from start to end:

    turned[k,m] = X[m,k]
    rows[n,m] = sum(p in P[n]..P[n + 1]: turned[C[p],m] * V[p])
    Y[m,n] = rows[n,m] + B[n]

A task turns its rows into its core's cache, sums what is stored of each weight over them, and turns the sums back. The
wider a task is, the more multiply-adds an element of the weight serves; the narrower, the closer to the core its rows
stay. A sketch in C++ of 128 x 768 x 768 came to 0.98 of the peak for blocks of 4 rows: 16 accumulators hide that rows
come from L2.

What is stored slab by slab has a span for each result and slab:

    rows[n,m] = sum(s, p in P[N*s + n]..P[N*s + n + 1]: turned[C[p],m] * V[p])

There a task takes one slab after the other, whose rows of `turned` stay in L1; between them partial sums rest in L2.
So it does of some terms of a sum that moves through the rows by itself, as that of N:M does:

    rows[n,m] = sum(g, s: turned[4 * g + I[n,g,s], m] * V[n,g,s])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from effcc.ir.affine import coefficient
from effcc.ir.dependences import gathers_rows, shared_axes, walked_axis
from effcc.ir.dims import elements
from effcc.ir.expr import Axis, Call, Expr, Load, Reduce, ends_at, free_axes
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.schedule import PARALLEL, SERIAL, Do, Hold, Loop, Node, Schedule
from effcc.passes.tiling.access import layouts, stride
from effcc.passes.tiling.chunk import PRODUCT, chunk_of
from effcc.passes.tiling.copies import TURN_SLOTS
from effcc.passes.tiling.cost import CALL_SLOTS, FEMTO, START_SECONDS, byte_time_at_home, machine_parameters
from effcc.target import Target

MOST_VECTORS = 8
"""Vectors of rows in a task, at most."""
OF_RATES = 0.85
"""What tasks reach of the rate at which multiply-adds issue (128 x 768 x 768, two AVX-512 cores: blocks of 4 rows with
80 % zeros 139 us, csr with 80 % 291, with 90 % 155)."""
OF_L2 = 0.7
"""What gathered rows reach of the rate at which L2 is read in order (768 x 768 and 3072, csr with 80 % zeros, one Zen 4
core that reads 105 GB/s in order, 256 bytes a step: 1.8 ns from L1, 2.5 to 3.2 from L2; 64 KB, half of it in
L1: 1.9)."""
L2_SHARE = 0.25
"""What share of L2 gathered rows keep, while inputs, weights and sums pass through it (3072 x 768, csr with 80 % zeros,
one Zen 3 core with 512 KB: 98 KB of rows 3.8 ms, as read from L2; 197 KB 6.2 to 8.0, as from L3)."""
SPAN_SECONDS = 5e-9
"""Lost where a span ends, which no branch predictor knows, beside partial sums (768 wide, slabs of 64 and 128 columns:
7.4 ns with them on a Zen 4 core; 90 % zeros in slabs of 128 on a Zen 3 core, 12 elements a span: 7 ns)."""
STEP_SLOTS = 0.5
"""Slots that a stored element or block takes beside its loads and multiply-adds: its place, held inside the rows (rows
in L1: 0.2 to 0.3 on a Zen 4 core with AVX-512; 0.1 to 1.3, at 62 to 70 of 94 GFLOP/s, on a Zen 3 core)."""
SLAB_SHARES = (0.25, 0.5, 0.75, 2, 4)
"""Shares of L1 that the rows take which a sum that moves through them gathers before those of the next slab."""


def is_gathered(kernel: Kernel) -> bool:
    """Whether a kernel computes of rows, in which each point is its own, and sums some that it gathers."""
    if kernel.scans or walked_axis(kernel) is not None or len(kernel.statements) < 2:
        return False
    sums = [s for s in kernel.statements if s.reduction is not None]
    if not sums or any(s.scatter is not None for s in kernel.statements) or not all(map(gathers_rows, sums)):
        return False
    row = sums[0].axes[-1]
    known = all(isinstance(n, int) for n in kernel.extents.values())
    return known and row in shared_axes(kernel) and all(s.axes[-1] == row for s in sums)


def gathered_schedule(kernel: Kernel, target: Target) -> Schedule:
    """The schedule of a kernel that `is_gathered`."""
    lanes = target.vector_lanes
    row = next(s.axes[-1] for s in kernel.statements if s.reduction is not None)
    vectors = -(-elements((kernel.extents[row],)) // lanes)
    fewest = 1 if lanes > 1 else min(vectors, 2)  # a loop over one point would hold no result of its own
    widths = [n * lanes for n in range(fewest, min(vectors, MOST_VECTORS) + 1)]
    tasks = [_Task(kernel, target, row, n) for n in widths]
    best = min((t for task in tasks for t in (task, *task.by_slabs())), key=lambda task: task.seconds)
    notes = (f"{row}: {best.width} rows a task, turned in its cache",)
    return Schedule(
        best.body(), (), best.seconds, (*notes, *(f"{a}: slabs one after the other" for a in sorted(best.slabs)))
    )


def slabs_of(s: Statement) -> tuple[str, ...]:
    """The axes that a statement sums over and its spans depend on."""
    return tuple(a for a in s.reduction.axes if any(a in ends_at(span) for span in s.spans)) if s.reduction else ()


def _moves(index: Expr, axis: str) -> bool:
    """Whether the place of what is gathered is moved by an axis itself, whatever coordinates add to it."""
    if isinstance(index, Call) and index.function == "add":
        return any(_moves(part, axis) for part in index.operands)
    return coefficient(index, axis) not in (None, 0)


@dataclass(frozen=True)
class _Task:
    """A task of `width` points of the `row` axis.

    slabs: reduced axes, of which so many points are summed for all results before the next ones.
    """

    kernel: Kernel
    target: Target
    row: str
    width: int
    slabs: Mapping[str, int] = field(default_factory=dict)

    def by_slabs(self) -> Iterator[_Task]:
        """The same task, slab by slab."""
        sums = [s for s in self.kernel.statements if s.reduction is not None]
        stored = {a: 1 for s in sums for a in slabs_of(s)}
        if stored:
            yield replace(self, slabs=stored)
        for axis, columns in {a: n for s in sums for a, n in self._moving(s)}.items():
            extent = elements((self.kernel.extents[axis],))
            most = [int(share * self.target.l1_bytes) // (columns * self.width * 4) for share in SLAB_SHARES]
            tiles = {max((n for n in range(1, min(m, extent) + 1) if extent % n == 0), default=extent) for m in most}
            for tile in sorted(tiles - {extent}):
                yield replace(self, slabs={axis: tile})

    def _moving(self, s: Statement) -> Iterator[tuple[str, int]]:
        """Reduced axes that move through the gathered rows, and by how many of them a point does."""
        assert s.reduction is not None
        for axis in s.reduction.axes:
            extent = elements((self.kernel.extents[axis],))
            places = [x.index[:-1] for x in _gathered(s)]
            if extent > 1 and places and all(any(_moves(i, axis) for i in place) for place in places):
                yield axis, max(self._rows(s) // extent, 1)

    # What it does ---------------------------------------------------------------------------------------------------

    def body(self) -> tuple[Node, ...]:
        outputs = {p.name for p in self.kernel.outputs}
        held = tuple(s.target for s in self.kernel.statements if s.target not in outputs)
        inside = tuple(node for s in self.kernel.statements for node in self._nest(s))
        return (Loop(PARALLEL, self.row, self.width, (Hold(held, "local", inside),) if held else inside),)

    def _nest(self, s: Statement) -> tuple[Node, ...]:
        return self._sum(s, s.reduction) if s.reduction is not None else self._points(s)

    def outer(self, s: Statement) -> dict[str, int]:
        """The axes of a sum around the loops over its results, and of how many points their slabs are."""
        return {} if s.reduction is None else {a: n for a, n in self.slabs.items() if a in s.reduction.axes}

    def _sum(self, s: Statement, reduce: Reduce) -> tuple[Node, ...]:
        beside, rows = self._beside(s)
        inner: tuple[Node, ...] = (Do(s.target),)
        counts = {**self.kernel.extents, **self._steps(s)}
        outer = self.outer(s)
        counts.update(outer)
        axes = tuple(a for a in reduce.axes if outer.get(a) != 1)
        chunk = chunk_of(self.kernel, [self.kernel.statements.index(s)], axes, counts, PRODUCT)
        inside = axes if chunk is None else axes[axes.index(chunk.axis) + (chunk.tile == 1) :]
        for axis in reversed(inside):
            inner = (Loop(SERIAL, axis, 1, inner),)
        if chunk is not None:
            inner = (Loop(SERIAL, chunk.axis, chunk.tile, (Hold((s.target,), "registers", inner),)),)
            for axis in reversed(axes[: axes.index(chunk.axis)]):
                inner = (Loop(SERIAL, axis, 1, inner),)
        inner = (Hold((s.target,), "registers", inner),)
        if beside is not None:
            inner = (Loop(SERIAL, beside, rows, inner, "unroll"),)
        inner = (Loop(SERIAL, self.row, self.width, inner, "lanes"),)
        around = {**outer, **{a: 1 for a in s.axes if a not in (self.row, beside)}}
        for axis, tile in reversed(around.items()):
            inner = (Loop(SERIAL, axis, tile, inner),)
        is_output = any(p.name == s.target for p in self.kernel.outputs)
        return (Hold((s.target,), "local", inner),) if outer and is_output else inner

    def _points(self, s: Statement) -> tuple[Node, ...]:
        """Pointwise: a block of vectors turned in registers where what is read and written lie across each other."""
        crossing, lanes = self._crossing(s), self.target.vector_lanes
        order = [(a, 1, "") for a in s.axes if a not in (self.row, crossing)]
        if crossing is None:
            order += [(self.row, self.width, "lanes")]
        elif s.axes[-1] == self.row:
            order += [(crossing, lanes, "lanes"), (self.row, lanes, "unroll")]
        else:
            side_by_side = min(elements((self.kernel.extents[crossing],)), lanes)
            if order and side_by_side < lanes:
                order[-1] = (order[-1][0], max(lanes // side_by_side, 1), "unroll")
            order = [(self.row, lanes, "lanes"), *order, (crossing, side_by_side, "unroll")]
        body: tuple[Node, ...] = (Do(s.target),)
        for axis, step, together in reversed(order):
            body = (Loop(SERIAL, axis, step, body, together),)
        return body

    # What it takes --------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        machine = machine_parameters(self.target)
        extent = elements((self.kernel.extents[self.row],))
        tasks = -(-extent // self.width)
        rounds = -(-tasks // self.target.cores)
        task = sum(self._statement_seconds(s) for s in self.kernel.statements)
        weights = sum(
            elements(p.type.shape) * p.type.dtype.bytes for p in self.kernel.params if p.name in self.kernel.weights
        )
        fetched = weights * byte_time_at_home(self.target, weights) / FEMTO
        starting = START_SECONDS if self.target.cores > 1 else machine["slot"] * CALL_SLOTS / FEMTO
        return rounds * max(task, fetched) + starting

    def _statement_seconds(self, s: Statement) -> float:
        machine, lanes = machine_parameters(self.target), self.target.vector_lanes
        slot, vectors = machine["slot"] / FEMTO, self.width // lanes
        points = prod(elements((self.kernel.extents[a],)) for a in s.axes if a != self.row)
        if s.reduction is None:
            return TURN_SLOTS * slot * points * vectors
        _, rows = self._beside(s)
        sums, counts, outer = points // rows, self._steps(s), self.outer(s)
        ends = sums * prod(counts[a] for a in slabs_of(s)) if s.spans else sums * self._turns(s)
        finished = (sums * self._turns(s) if outer else sums) * 2 * rows * vectors
        arithmetic = max(rows * vectors, vectors + rows + STEP_SLOTS) * slot / OF_RATES
        steps = sums * prod(counts.values())
        return steps * max(arithmetic, self._gathering(s)) + finished * slot + ends * SPAN_SECONDS

    def _turns(self, s: Statement) -> int:
        """How many slabs a sum's terms are in."""
        counts = self._steps(s)
        return prod(-(-counts[a] // tile) for a, tile in self.outer(s).items())

    def _rows(self, s: Statement) -> int:
        """How many rows a sum gathers from."""
        return sum(prod(elements((d,)) for d in _shape(self.kernel, x)[:-1]) for x in _gathered(s))

    def _gathering(self, s: Statement) -> float:
        """What a step takes to gather rows from the cache in which they stay. Each slab is taken to gather an equal
        part of them. Those that are gathered in order have left L1 where not all fit; of others some are there."""
        machine, size = machine_parameters(self.target), self.width * 4
        held = self._rows(s) * size // self._turns(s)
        if held <= self.target.l1_bytes:
            return 0.0
        near = float(size * machine["l2_byte"])
        if not any(True for _ in self._moving(s)):
            near = near / OF_L2 * (1 - self.target.l1_bytes / held)
        far = float(size * byte_time_at_home(self.target, held)) if held > self.target.l2_bytes * L2_SHARE else 0.0
        return max(near, far) / FEMTO

    def _steps(self, s: Statement) -> dict[str, int]:
        """The terms of each result, by reduced axis; of a ragged one as many as a span has on average."""
        assert s.reduction is not None
        counts = {a: max(elements((self.kernel.extents[a],)), 1) for a in s.reduction.axes}
        for span in s.spans:
            ends = prod(max(elements((self.kernel.extents[a],)), 1) for a in ends_at(span))
            counts[span.axis] = max(counts[span.axis] // ends, 1)
        return counts

    # Which axes -----------------------------------------------------------------------------------------------------

    def _beside(self, s: Statement) -> tuple[str | None, int]:
        """The axis whose points sum the same rows, if there is one, and how many of them have registers."""
        used = {a for x in _gathered(s) for i in x.index for a in free_axes(i)}
        used |= {a for span in s.spans for a in ends_at(span)}
        vectors = self.width // self.target.vector_lanes
        most = max((self.target.vector_registers - vectors - 1) // vectors, 1)
        for axis in s.axes[:-1]:
            extent = elements((self.kernel.extents[axis],))
            if axis not in used:
                return axis, max(n for n in range(1, min(extent, most) + 1) if extent % n == 0)
        return None, 1

    def _crossing(self, s: Statement) -> str | None:
        """The axis along which something is read or written, where the rest is along the rows."""
        layout = layouts(self.kernel)
        places = [*s.reads, Load(s.target, tuple(map(Axis, s.axes)), s.dtype)]
        own = [x for x in places if any(self.row in free_axes(i) for i in x.index)]
        return next((a for x in own for a in s.axes if a != self.row and stride(x, a, layout[x.buffer]) == 1), None)


def _gathered(s: Statement) -> Iterator[Load]:
    row = s.axes[-1]
    return (x for x in s.reads if len(x.index) > 1 and row in free_axes(x.index[-1]))


def _shape(kernel: Kernel, load: Load) -> tuple[int, ...]:
    s = kernel.definition(load.buffer)
    if s is not None:
        return tuple(elements((kernel.extents[a],)) for a in s.axes)
    return tuple(elements((d,)) for p in kernel.params if p.name == load.buffer for d in p.type.shape)
