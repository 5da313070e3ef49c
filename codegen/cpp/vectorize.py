"""Loop nests to vectors: which loops threads share, where buffers live, and every tile in registers."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from effcc.codegen.cpp.expressions import Evaluator
from effcc.codegen.cpp.linear import Known, minus, shifted, uniform
from effcc.codegen.cpp.prefetch_rows import ask_for_next_rows, ask_row_by_row
from effcc.codegen.cpp.prefetch_terms import ask_for_next_terms
from effcc.codegen.cpp.scope import Writer
from effcc.codegen.cpp.storage import (
    Memory,
    Registers,
    Storage,
    TileRegisters,
    choose_lanes,
    lane_dimension,
    statements,
    strides_of,
    tiles,
)  # fmt: skip
from effcc.codegen.cpp.tiles import lower_tile
from effcc.codegen.cpp.values import ZERO, node, number, type_of
from effcc.errors import ScheduleError
from effcc.ir.dots import TILE_SIDE
from effcc.ir.expr import free_axes, loads
from effcc.ir.kernel import Param
from effcc.ir.loops import Alloc, For, If, LoopNest, Stmt, Tile
from effcc.ir.vectors import (
    INDEX,
    Array,
    Barrier,
    Branch,
    Call,
    FirstThread,
    Function,
    Let,
    Loop,
    Parameter,
    Share,
    Tiles,
    Value,
    Var,
    tile_type,
)  # fmt: skip
from effcc.ir.vectors import Registers as RegisterLines
from effcc.target import Target

_ONCE = number(1)


def vectorize(nest: LoopNest, target: Target, name: str = "", no_alias: frozenset[str] = frozenset()) -> Function:
    """The function that computes `nest` on `target`.

    The threads of a team run it together: they share `parallel` loops, what stands beside them is done by
    whichever comes first, and barriers keep statements apart. Parameters in `no_alias` are `restrict`.

    Raises ScheduleError for a nest whose threads would share a local buffer.
    """
    return _Vectorizer(nest, target, name or nest.name, no_alias).run()


@dataclass
class _Vectorizer:
    nest: LoopNest
    target: Target
    name: str
    no_alias: frozenset[str]
    storage: dict[str, Storage] = field(default_factory=dict)
    in_tiles: dict[str, TileRegisters] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.writer = Writer(choose_lanes(self.nest, self.target.vector_bytes), self.target.l2_bytes)

    def run(self) -> Function:
        sizes = tuple((self.writer.names.fresh(s), s) for s in self.nest.sizes)
        for name, _ in sizes:
            self.writer.known[name] = Known(0, None)
        buffers = tuple(self._parameter(p) for p in (*self.nest.params, *self.nest.outputs))
        parallel = any(isinstance(s, For) and s.kind == "parallel" for s in statements(self.nest.body))
        (self._together if parallel else self._body)(self.nest.body)
        return Function(self.name, buffers, sizes, tuple(self.writer.scope.lines), not parallel, self.nest.notes)

    def _parameter(self, param: Param) -> Parameter:
        name = self.writer.names.fresh(param.name)
        self.storage[param.name] = Memory(name, param.type.dtype, param.type.shape, param.type.layout)
        written = param.name in {p.name for p in self.nest.outputs} or any(
            t.buffer == param.name for t in tiles(self.nest)
        )
        return Parameter(name, param.type.dtype, param.name, not written, param.name in self.no_alias)

    # What the threads of a team do together

    def _together(self, body: Sequence[Stmt]) -> None:
        """Statements that all threads come past: parallel loops are split, the rest is the first one's to come."""
        waiting = False
        for group in self._groups(body):
            if waiting:
                self._wait()
            waiting = True
            first = group[0]
            if isinstance(first, For) and first.kind == "parallel":
                self._share(first)
            elif isinstance(first, For) and _has_parallel(first.body):
                with self._loop(first):
                    self._together(first.body)
                    self._wait()
            elif isinstance(first, If) and _has_parallel((*first.body, *first.orelse)):
                self._branch(first, self._together)
            else:
                with self.writer.block() as lines:
                    self._body(group)
                self.writer.add(Branch(FirstThread(), tuple(lines)))

    def _groups(self, body: Sequence[Stmt]) -> list[list[Stmt]]:
        """Runs of statements without a parallel loop, and each statement with one alone."""
        groups: list[list[Stmt]] = []
        alone = True
        for statement in body:
            parallel = _has_parallel((statement,))
            if parallel or alone:
                groups.append([statement])
            else:
                groups[-1].append(statement)
            alone = parallel
        for group in groups:
            self._check_private(group, body)
        return groups

    def _check_private(self, group: Sequence[Stmt], body: Sequence[Stmt]) -> None:
        """Raise where another than the first thread would use what the first one allocates in a group."""
        for alloc in (s for s in group if isinstance(s, Alloc)):
            if any(alloc.name in _buffers_of(s) for s in body if not any(s is own for own in group)):
                raise ScheduleError(
                    f"loop nest {self.nest.name!r}: the {alloc.space} buffer {alloc.name!r} stands outside a "
                    "parallel loop, so all threads would share it; allocate it inside the loop"
                )

    def _wait(self) -> None:
        self.writer.add(Barrier())

    def _share(self, outer: For) -> None:
        """Perfectly nested parallel loops as one range of iterations, split among the threads."""
        loops = [outer]
        while len(loops[-1].body) == 1 and isinstance(inner := loops[-1].body[0], For) and inner.kind == "parallel":
            if any(self._mentions(inner, loop.axis) for loop in loops):
                break
            loops.append(inner)
        counts = [self._trips(loop) for loop in loops]
        factors = [c for c in counts if c != _ONCE] or [_ONCE]
        product = functools.reduce(lambda a, b: Call("mul", (a, b), INDEX), factors)
        at = self.writer.names.fresh("at")
        with self.writer.block() as lines:
            rest = Var(at)
            for depth in range(len(loops) - 1, -1, -1):
                loop, count = loops[depth], counts[depth]
                turn: Value = rest
                if depth > 0:
                    turn = ZERO if count == _ONCE else Call("rest", (rest, count), INDEX)
                self._open(loop)
                self.writer.add(Let(self.variables[loop.axis], self._position(loop, turn)))
                if depth > 0 and count != _ONCE:
                    rest = self.writer.define(Call("quotient", (rest, count), INDEX), "rest")
            opened = [self.variables[loop.axis] for loop in loops]
            self.writer.loops += opened
            self._body(loops[-1].body)
            del self.writer.loops[-len(opened) :]
        self.writer.add(Share(at, product, tuple(lines), ", ".join(loop.axis for loop in loops)))

    def _mentions(self, loop: For, axis: str) -> bool:
        return axis in free_axes(loop.start) | free_axes(loop.stop)

    def _position(self, loop: For, turn: Value) -> Value:
        """Where a loop stands in one of its turns."""
        start = uniform(self._evaluator().linear(loop.start))
        if turn == ZERO:
            return start
        scaled = turn if loop.step == 1 else Call("mul", (turn, number(loop.step)), INDEX)
        return scaled if start == ZERO else Call("add", (start, scaled), INDEX)

    def _trips(self, loop: For) -> Value:
        """How often a loop runs."""
        at = self._evaluator()
        start, stop = at.linear(loop.start), at.linear(loop.stop)
        if start.value is not None and stop.value is not None:
            return number(max(0, -(-(stop.value - start.value) // loop.step)))
        span = minus(stop, start)
        if loop.step == 1:
            return uniform(span)
        return Call("quotient", (uniform(shifted(span, loop.step - 1)), number(loop.step)), INDEX)

    # What one thread does

    def _body(self, body: Sequence[Stmt]) -> None:
        for position, statement in enumerate(body):
            match statement:
                case Alloc():
                    self._alloc(statement)
                case Tile():
                    lower_tile(self.writer, self.storage, self.in_tiles, self.variables, statement)
                case For():
                    ask_for_next_terms(self.writer, self.storage, self.variables, statement)
                    with self._loop(statement):
                        ask_for_next_rows(self.writer, self.storage, self.variables, statement)
                        self._body(statement.body)
                    ask_row_by_row(self.writer, self.storage, self.variables, statement, body[position + 1 :])
                case If():
                    self._branch(statement, self._body)

    def _loop(self, loop: For) -> _OpenLoop:
        at = self._evaluator()
        start, stop = uniform(at.linear(loop.start)), uniform(at.linear(loop.stop))
        self._open(loop)
        return _OpenLoop(self.writer, self.variables[loop.axis], start, stop, loop.step)

    def _open(self, loop: For) -> None:
        """Name a loop's variable and note what is known of it."""
        at = self._evaluator()
        start, stop = at.linear(loop.start), at.linear(loop.stop)
        name = self.writer.names.fresh(loop.axis)
        self.variables[loop.axis] = name
        if start.value is None:
            self.writer.known[name] = Known()
            return
        last = None
        if stop.value is not None:
            last = start.value + max(0, (stop.value - start.value - 1) // loop.step) * loop.step
        self.writer.known[name] = Known(start.value, last, loop.step, start.value % loop.step)

    def _branch(self, branch: If, write: Callable[[Sequence[Stmt]], None]) -> None:
        with self.writer.masked():
            condition = node(self.writer, self._evaluator().value(branch.condition))
        sides = []
        for side in (branch.body, branch.orelse):
            with self.writer.block() as lines:
                write(side)
            sides.append(tuple(lines))
        self.writer.add(Branch(condition, *sides))

    def _evaluator(self) -> Evaluator:
        return Evaluator(writer=self.writer, storage=self.storage, variables=self.variables)

    def _alloc(self, alloc: Alloc) -> None:
        """Registers where every index is known once unrolled, else an array on the stack."""
        if alloc.space == "tile":
            self._tiles(alloc)
            return
        fits, lane_dim = lane_dimension(alloc, self.nest, self.writer.lanes)
        if alloc.space == "register" and fits:
            self._registers(alloc, lane_dim)
            return
        name = self.writer.names.fresh(alloc.name)
        self.storage[alloc.name] = Memory(name, alloc.dtype, alloc.shape, strides_of(alloc.shape), True)
        self.writer.add(Array(alloc.dtype, name, max(1, math.prod(alloc.shape))))

    def _tiles(self, alloc: Alloc) -> None:
        rows, columns = (-(-n // TILE_SIDE) for n in (1, *alloc.shape)[-2:])
        blocks = [(i, j) for i in range(rows) for j in range(columns)]
        names = {b: self.writer.names.fresh("_".join([alloc.name, *map(str, b)])) for b in blocks}
        self.in_tiles[alloc.name] = TileRegisters(alloc.name, names, alloc.dtype)
        self.writer.add(Tiles(tile_type(alloc.dtype), tuple(names.values()), 0))

    def _registers(self, alloc: Alloc, lane_dim: int | None) -> None:
        lanes = self.writer.lanes
        points: list[tuple[int, ...]] = [()]
        for position, extent in enumerate(alloc.shape):
            count = -(-extent // lanes) if position == lane_dim else extent
            points = [(*p, i) for p in points for i in range(count)]
        names = {p: self.writer.names.fresh("_".join([alloc.name, *map(str, p)])) for p in points}
        self.storage[alloc.name] = Registers(alloc.name, names, alloc.dtype, alloc.shape, lane_dim)
        type = type_of(self.writer, alloc.dtype, 1 if lane_dim is None else lanes)
        self.writer.add(RegisterLines(type, tuple(names.values())))


class _OpenLoop:
    """A serial loop whose body is being written."""

    def __init__(self, writer: Writer, name: str, start: Value, stop: Value, step: int) -> None:
        self.writer, self.head = writer, (name, start, stop, step)
        self.block = writer.block()

    def __enter__(self) -> None:
        self.lines = self.block.__enter__()
        self.writer.loops.append(self.head[0])

    def __exit__(self, *error: object) -> None:
        self.writer.loops.pop()
        self.block.__exit__(*error)  # type: ignore[arg-type]
        if error[0] is None:
            self.writer.add(Loop(*self.head, tuple(self.lines)))


def _has_parallel(body: Sequence[Stmt]) -> bool:
    return any(isinstance(s, For) and s.kind == "parallel" for s in statements(tuple(body)))


def _buffers_of(statement: Stmt) -> set[str]:
    found: set[str] = set()
    for inner in statements((statement,)):
        if isinstance(inner, Tile):
            found.add(inner.buffer)
            found |= {load.buffer for e in (inner.value, *inner.index) for load in loads(e)}
    return found
