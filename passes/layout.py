"""Layouts of intermediates: one problem over the whole program, in which every kernel prices the layouts it sees.

A buffer's candidates are its row-major order, and those orders that have a dimension innermost along which some
kernel's lanes may run. What a kernel costs under an assignment of its buffers is what tiling predicts for it then; the
sum over all launches is least where channels last, say, pays for a chain of convolutions although the first of them
would rather write rows. Where rows of a product would then share their sets of the L1 cache (pixels of 1024 channels,
or every other one of 512), a cache line stands between neighbours.

Buffers are eliminated one by one, cheapest tables first (dynamic programming over a tree decomposition; Bertele and
Brioschi, "Nonserial dynamic programming", 1972): exact for what models look like. A buffer whose table would become too
large is decided on the spot, by what is known then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import permutations
from itertools import product as combinations
from math import inf, prod

from effcc.errors import noting
from effcc.ir.affine import coefficient
from effcc.ir.contraction import contraction
from effcc.ir.dims import Dim, contiguous_strides, dim
from effcc.ir.expr import Axis, Load
from effcc.ir.kernel import Kernel, Param
from effcc.ir.program import Buffer, Launch, Program
from effcc.ir.schedule import Schedule, places
from effcc.ir.types import TensorType
from effcc.ir.views import holder, runs, viewed
from effcc.passes.tiling.axes import settle_axes
from effcc.passes.tiling.choose import choose
from effcc.passes.tiling.contraction import aliased_rows
from effcc.passes.tiling.operands import CACHE_LINE
from effcc.target import Target

TOGETHER = 4
"""Open buffers of one kernel that are priced together, at most; each of more is priced with the others as they were."""
LARGEST_TABLE = 1024
"""Assignments in one table of the elimination, at most."""

Assignment = tuple[TensorType, ...]
"""A type for each of some buffers, in order."""


def arrange(program: Program, target: Target) -> Program:
    """The program with the layouts of arena buffers chosen; graph inputs and outputs keep theirs."""
    fixed = _fixed(program)
    known = program.by_name
    pricing = _Pricing(program, target)
    launches = [s for s in program.steps if isinstance(s, Launch)]
    positions: dict[str, dict[int, None]] = {}
    touched = [[n for n in dict.fromkeys(s.touched) if _is_open(known[n], fixed)] for s in launches]
    for step, names in zip(launches, touched, strict=True):
        for name, position in pricing.wanted(step, names):
            positions.setdefault(name, {})[position] = None
    _spread(positions, touched, known)
    moves = _moves(program, launches)
    candidates = {
        name: dict.fromkeys((
            known[name].type,
            *(_spaced(_innermost(known[name].type, p), moves.get(name, ()), target) for p in found),
        ))
        for name, found in positions.items()
    }  # fmt: skip
    free = {name: tuple(types) for name, types in candidates.items() if len(types) > 1}
    if not free:
        return program
    tables = [t for step in launches for t in pricing.tables(step, free)]
    chosen = _eliminate(free, tables)
    changed = {name: type for name, type in chosen.items() if type != known[name].type}
    return _retype(program, changed) if changed else program


def _moves(program: Program, launches: Sequence[Launch]) -> dict[str, set[tuple[int, int]]]:
    """How products step through buffers along kept axes: for each buffer, a dimension and by how much it moves."""
    found: dict[str, set[tuple[int, int]]] = {}
    for step in {(s.kernel, s.touched): s for s in launches}.values():
        kernel = program.kernels[step.kernel]
        names = dict(zip((p.name for p in kernel.signature), step.touched, strict=True))
        for s in kernel.statements:
            product = contraction(s, kernel.weights)
            for load in () if product is None else (*product.left.loads, *product.right.loads):
                moved = {(d, c) for d, i in enumerate(load.index) for a in s.axes if (c := coefficient(i, a))}
                if load.buffer in names and len(load.index) == program.by_name[names[load.buffer]].type.rank:
                    found.setdefault(names[load.buffer], set()).update(moved)
    return found


def _spaced(type: TensorType, moves: Collection[tuple[int, int]], target: Target) -> TensorType:
    """The type, with a cache line between neighbours of its last dimension but one where too few of the rows that
    products step to would find room in L1 beside each other."""
    if not all(isinstance(n, int) for n in type.sizes) or type.size == 0:
        return type
    strides = [int(step) for step in type.layout]
    extents = [int(n) for n in type.shape]
    inner, far = (*sorted((d for d, n in enumerate(extents) if n > 1), key=lambda d: strides[d]), 0, 0)[:2]
    rows = target.vector_registers // 2 - 2  # of a register tile with two vectors of columns
    steps = [abs(by) * strides[far] * type.dtype.bytes for d, by in moves if d == far != inner]
    if not any(aliased_rows(step, target.l1_bytes) < rows + 2 for step in steps):
        return type
    row, line = strides[far], CACHE_LINE // type.dtype.bytes
    return replace(type, strides=tuple(s if s < row else s // row * (row + line) for s in strides))


def _spread(
    positions: dict[str, dict[int, None]], touched: Sequence[Collection[str]], known: Mapping[str, Buffer]
) -> None:
    """What suits one buffer of a launch may suit the others of its rank, too: a chain pays where a step does not."""
    changed = True
    while changed:
        changed = False
        for names in touched:
            for one, other in permutations(names, 2):
                if known[one].type.rank != known[other].type.rank:
                    continue
                for position in positions.get(one, {}):
                    if position not in positions.get(other, {}) and known[other].type.shape[position] != 1:
                        positions.setdefault(other, {})[position] = None
                        changed = True


@dataclass(frozen=True)
class _Table:
    """A price for every assignment of types to some buffers."""

    buffers: tuple[str, ...]
    prices: Mapping[Assignment, float]


@dataclass
class _Pricing:
    """What launches are predicted to take, by the types of their buffers. Equal launches are priced once.

    `prices` are by kernel, which of its buffers are the same one, and those buffers' candidates. `schedules` are by
    kernel without its name: launches that lie apart ask for the same.
    """

    program: Program
    target: Target
    lanes: dict[object, list[tuple[int, int]]] = field(default_factory=dict)
    prices: dict[object, dict[Assignment, float]] = field(default_factory=dict)
    schedules: dict[Kernel, Schedule] = field(default_factory=dict)

    def wanted(self, step: Launch, open_: Sequence[str]) -> list[tuple[str, int]]:
        """Open buffers, each with a dimension along which the launch's lanes run: as things are, or if all suited."""
        known = self.program.by_name
        key = (step.kernel, _pattern(step, open_))
        if key not in self.lanes:
            kernel = self.program.kernels[step.kernel]
            suiting = {n: TensorType(t.dtype, t.shape, (1,) * t.rank) for n in open_ for t in [known[n].type]}
            found: dict[tuple[int, int], None] = {}
            for supposed in (kernel, _specialized(kernel, step, suiting) or kernel):
                for name, dimension in self._along_lanes(kernel, supposed, step):
                    if name in open_:
                        found[open_.index(name), dimension] = None
            self.lanes[key] = list(found)
        return [(open_[number], dimension) for number, dimension in self.lanes[key]]

    def _along_lanes(self, kernel: Kernel, supposed: Kernel, step: Launch) -> Iterator[tuple[str, int]]:
        """The buffers and dimensions that a kernel walks along its lanes."""
        schedule = self._schedule(supposed)
        names = dict(zip((p.name for p in kernel.signature), step.touched, strict=True))
        seen = {p.name: p.type.shape for p in kernel.signature}
        for place in places(kernel, schedule):
            s, lanes = kernel.statements[place.position], place.lanes
            if lanes is None or s.scatter is not None:
                continue
            for load in (*s.reads, Load(s.target, tuple(Axis(a) for a in s.axes), s.dtype)):
                if load.buffer in names:
                    name = names[load.buffer]
                    shape = self.program.by_name[name].type.shape
                    moved = (d for d, i in enumerate(load.index) if coefficient(i, lanes))
                    held = (holder(shape, seen[load.buffer], d) for d in moved)
                    yield from ((name, d) for d in held if d is not None)

    def _schedule(self, kernel: Kernel) -> Schedule:
        key = replace(kernel, name="", location="")
        if key not in self.schedules:
            with noting(location=kernel.location, kernel=kernel):
                self.schedules[key] = choose(kernel, self.target)[1]
        return self.schedules[key]

    def tables(self, step: Launch, free: Mapping[str, tuple[TensorType, ...]]) -> list[_Table]:
        """The prices of a launch: of all assignments of its free buffers, or buffer by buffer where those are many."""
        names = tuple(n for n in dict.fromkeys(step.touched) if n in free)
        together = [names] if 0 < len(names) <= TOGETHER else [(n,) for n in names]
        return [_Table(some, self._priced(step, some, free)) for some in together]

    def _priced(
        self, step: Launch, names: tuple[str, ...], free: Mapping[str, tuple[TensorType, ...]]
    ) -> dict[Assignment, float]:
        key = (step.kernel, _pattern(step, names), tuple(free[n] for n in names))
        if key not in self.prices:
            kernel = self.program.kernels[step.kernel]
            specialized = {
                types: _specialized(kernel, step, dict(zip(names, types, strict=True)))
                for types in combinations(*(free[n] for n in names))
            }
            self.prices[key] = {
                types: inf if k is None else self._schedule(settle_axes(k, self.target)).seconds
                for types, k in specialized.items()
            }
        return self.prices[key]


def _pattern(step: Launch, names: Sequence[str]) -> tuple[int, ...]:
    """For every buffer that a launch touches, which of `names` it is, or -1."""
    numbers = {n: number for number, n in enumerate(names)}
    return tuple(numbers.get(n, -1) for n in step.touched)


def _eliminate(free: Mapping[str, tuple[TensorType, ...]], tables: Sequence[_Table]) -> dict[str, TensorType]:
    """The assignment with the least sum of prices; at equal prices, the types that stand first."""
    of: dict[str, list[_Table]] = {name: [] for name in free}
    for table in tables:
        for name in table.buffers:
            of[name].append(table)

    def size(name: str) -> int:
        """How many assignments the table has that eliminating a buffer makes."""
        return prod(len(free[b]) for b in {name, *(b for t in of[name] for b in t.buffers)})

    queue = [(size(name), number, name) for number, name in enumerate(free)]
    heapify(queue)
    decided: list[tuple[str, tuple[str, ...], dict[Assignment, TensorType]]] = []
    while queue:
        before, number, name = heappop(queue)
        now = size(name)
        if now > before:  # others have been eliminated since
            heappush(queue, (now, number, name))
            continue
        mine = of.pop(name)
        others = tuple(dict.fromkeys(b for t in mine for b in t.buffers if b != name))
        for b in others:
            of[b] = [t for t in of[b] if name not in t.buffers]
        if now > LARGEST_TABLE:
            best = min(free[name], key=lambda type: sum(_least(t, name, type) for t in mine))
            made = [_given(t, name, best) for t in mine if len(t.buffers) > 1]
            decided.append((name, (), {(): best}))
        else:
            table, choices = _without(name, others, free, mine)
            made = [table] if others else []
            decided.append((name, others, choices))
        for table in made:
            for b in table.buffers:
                of[b].append(table)
    chosen: dict[str, TensorType] = {}
    for name, others, choices in reversed(decided):
        chosen[name] = choices[tuple(chosen[b] for b in others)]
    return chosen


def _without(
    name: str, others: tuple[str, ...], free: Mapping[str, tuple[TensorType, ...]], tables: Sequence[_Table]
) -> tuple[_Table, dict[Assignment, TensorType]]:
    """Tables that hold a buffer, as one of the others at its best; and what is best, for each of their assignments."""
    prices: dict[Assignment, float] = {}
    choices: dict[Assignment, TensorType] = {}
    for rest in combinations(*(free[b] for b in others)):
        known = dict(zip(others, rest, strict=True))
        sums = {
            type: sum(t.prices[tuple({**known, name: type}[b] for b in t.buffers)] for t in tables)
            for type in free[name]
        }
        choices[rest] = min(sums, key=lambda type: sums[type])
        prices[rest] = sums[choices[rest]]
    return _Table(others, prices), choices


def _least(table: _Table, name: str, type: TensorType) -> float:
    """The least price of a table's assignments that give a buffer this type."""
    at = table.buffers.index(name)
    return min(price for a, price in table.prices.items() if a[at] == type)


def _given(table: _Table, name: str, type: TensorType) -> _Table:
    """The table of the other buffers, where one has this type."""
    at = table.buffers.index(name)
    left = {(*a[:at], *a[at + 1 :]): price for a, price in table.prices.items() if a[at] == type}
    return _Table((*table.buffers[:at], *table.buffers[at + 1 :]), left)


def _is_open(buffer: Buffer, fixed: Collection[str]) -> bool:
    """Whether the layout of a buffer can be chosen."""
    return buffer.space == "arena" and buffer.type.rank > 1 and buffer.name not in fixed


def _fixed(program: Program) -> set[str]:
    """Buffers whose layout must stay: PyTorch reads or writes them, or a kernel sees them in a shape that comes apart
    in no runs of theirs."""
    known = program.by_name
    found: set[str] = set()
    for step in (*program.prepare, *program.steps):
        if not isinstance(step, Launch):
            found.update(step.touched)
            continue
        kernel = program.kernels[step.kernel]
        for p, name in zip(kernel.signature, step.touched, strict=True):
            if runs(known[name].type.shape, p.type.shape) is None:
                found.add(name)
    return found


def _innermost(type: TensorType, position: int) -> TensorType:
    """The type in which `position` is contiguous and the other dimensions keep their order outside it."""
    shape = type.shape
    order = [*(d for d in range(len(shape)) if d != position), position]
    strides: list[Dim] = [1] * len(shape)
    step: Dim = 1
    for d in reversed(order):
        strides[d] = step
        step = dim(step * shape[d])
    if tuple(strides) == contiguous_strides(shape):
        return TensorType(type.dtype, shape)
    return TensorType(type.dtype, shape, tuple(strides))


def _specialized(kernel: Kernel, step: Launch, types: Mapping[str, TensorType]) -> Kernel | None:
    """The kernel with the types of some of the buffers that a launch binds it to; None where it sees one of them in a
    shape that its strides do not allow."""
    seen = {
        p.name: viewed(types[name], p.type.shape) if types[name].shape != p.type.shape else types[name]
        for p, name in zip(kernel.signature, step.touched, strict=True)
        if name in types
    }
    found = {name: type for name, type in seen.items() if type is not None}
    if len(found) < len(seen):
        return None

    def params(given: Sequence[Param]) -> tuple[Param, ...]:
        return tuple(replace(p, type=found.get(p.name, p.type)) for p in given)

    return replace(kernel, params=params(kernel.params), outputs=params(kernel.outputs))


def _retype(program: Program, changed: Mapping[str, TensorType]) -> Program:
    """The program with buffers' types replaced, and kernels specialized to the types they are launched on."""
    buffers = tuple(replace(b, type=changed.get(b.name, b.type)) for b in program.buffers)
    kernels: dict[str, Kernel] = {}
    known: dict[Kernel, str] = {}

    def specialize(step: Launch) -> Launch:
        kernel = program.kernels[step.kernel]
        made = _specialized(kernel, step, changed)
        assert made is not None  # what is chosen has a price
        key = replace(made, name="", location="")
        if key not in known:
            base, n = kernel.name, 0
            while (name := base if n == 0 else f"{base}_v{n}") in kernels:
                n += 1
            known[key] = name
            kernels[name] = replace(made, name=name)
        return replace(step, kernel=known[key])

    prepare = tuple(specialize(s) if isinstance(s, Launch) else s for s in program.prepare)
    steps = tuple(specialize(s) if isinstance(s, Launch) else s for s in program.steps)
    return replace(program, buffers=buffers, kernels=kernels, steps=steps, prepare=prepare)
