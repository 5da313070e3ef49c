"""The state of writing one function: its names, the block being written, and what has been computed there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from effcc.codegen.cpp.linear import LANE, Known, Linear
from effcc.codegen.cpp.words import RESERVED
from effcc.codegen.names import Names
from effcc.ir import vectors
from effcc.ir.dtypes import DType
from effcc.ir.vectors import Let, Line, Var


@dataclass(frozen=True)
class Value:
    """A computed value: a node that costs nothing to repeat (a name, a literal), its dtype, and its lanes.

    A half type is what it will be stored as: in registers it is f32. A boolean in lanes is a mask whose lanes are
    `mask_bytes` wide. An index may stand as a `linear` form until somebody needs it in a register; it has no node then.
    """

    node: vectors.Value | None
    dtype: DType
    lanes: int = 1
    mask_bytes: int = 4
    linear: Linear | None = None


@dataclass
class Scope:
    """One block: its lines, and the values that may be used in it."""

    lines: list[Line]
    parent: Scope | None = None
    values: dict[object, Value] = field(default_factory=dict)
    lets: dict[int, tuple[vectors.Value, int, Var]] = field(default_factory=dict)
    """What constants hold, by its hash: hashed once, and not in every block around."""

    def find(self, key: object) -> Value | None:
        """What was computed under `key`, here or in an enclosing block."""
        scope: Scope | None = self
        while scope is not None:
            if key in scope.values:
                return scope.values[key]
            scope = scope.parent
        return None

    def find_let(self, place: int, value: vectors.Value, epoch: int) -> Var | None:
        """The constant that holds a value, here or in an enclosing block."""
        scope: Scope | None = self
        while scope is not None:
            found = scope.lets.get(place)
            if found is not None and found[1] == epoch and found[0] == value:
                return found[2]
            scope = scope.parent
        return None


class Writer:
    """Collects the lines of one function; blocks nest.

    lanes: of its vectors. l2_bytes: what a core's own cache holds.
    """

    def __init__(self, lanes: int, l2_bytes: int) -> None:
        self.lanes, self.l2_bytes = lanes, l2_bytes
        self.names = Names(RESERVED)
        self.known: dict[str, Known] = {LANE: Known(0, lanes - 1)}
        self.scope = Scope([])
        self.loops: list[str] = []
        """The variables of the open loops, outermost first: one thread takes the turns of each in order."""
        self.asked: dict[object, list[list[str]]] = {}
        """Of streams of memory that code asks for early, the loops around (`effcc.codegen.cpp.prefetch_panels`)."""

    def add(self, line: Line) -> None:
        self.scope.lines.append(line)

    def let(self, value: vectors.Value, hint: str = "v", epoch: int = 0) -> Var:
        """A constant that holds `value`; one that holds it already is used again.

        `epoch` tells apart readings of memory that has been written in between.
        """
        place = hash((value, epoch))
        found = self.scope.find_let(place, value, epoch)
        if found is None:
            found = self.define(value, hint)
            self.scope.lets[place] = value, epoch, found
        return found

    def define(self, value: vectors.Value, hint: str) -> Var:
        """A constant of its own that holds `value`."""
        name = self.names.fresh(hint)
        self.add(Let(name, value))
        return Var(name, value.type)

    @contextmanager
    def block(self) -> Iterator[list[Line]]:
        """A nested block: lines added inside it, and values computed there, stay there."""
        outer = self.scope
        self.scope = Scope([], outer)
        try:
            yield self.scope.lines
        finally:
            self.scope = outer

    @contextmanager
    def masked(self) -> Iterator[None]:
        """Lines go where they went, but values computed inside hold for some lanes only: nobody outside uses them."""
        outer = self.scope
        self.scope = Scope(outer.lines, outer)
        try:
            yield
        finally:
            self.scope = outer
