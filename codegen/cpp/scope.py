"""The state of writing one function: its names, the block being written, and what has been computed there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from effcc.codegen.cpp.form import Let, Line
from effcc.codegen.cpp.linear import LANE, Known, Linear
from effcc.codegen.names import Names
from effcc.ir.dtypes import DType

_ATOM = re.compile(r"[\w.]+|\w+(<[\w<>]*>)?\([^()]*\)")

_WORDS = """
    alignas alignof and asm auto bool break case catch char class concept const constexpr continue default
    delete do double else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new not operator or private protected public register requires return short signed sizeof static
    struct switch template this thread_local throw true try typedef typeid typename union unsigned using virtual
    void volatile while xor abs acos acosh all any asin asinh atan atan2 atanh barrier bf16 bits broadcast ceil
    clamp convert copysign cos cosh detail element erf erfc exp exp2 expm1 f16 f32 f32v f32x f64 f64v f64x fabs
    first_lanes floor floor_divide fma fmax fmin fmod from_bits from_mask gather gather_if high i16 i16v i16x
    i32 i32v i32x i64 i64v i64x i8 i8v i8x integer_pow iota is_finite is_inf is_nan join lane lanes lgamma load
    load_apart load_apart_if load_if load_mask load_mask_if load_mask_n load_n load_strided load_strided_n log
    log10 log1p log2 low mask_cast mask_not mask_of max maximum min minimum mul_add neg_mul_add parallel pow
    range reduce reduce_max reduce_min reduce_prod reduce_sum region remainder round round_to rsqrt saturate
    scatter scatter_fold scatter_if select set_lane share shift_left shift_right sigmoid sign sin sinh sqrt
    store store_if store_mask store_mask_if store_mask_n store_n store_rows store_spread store_strided
    store_strided_n tan tanh team thread to_mask trunc u16 u16v u16x u32 u64 u8 u8v u8x vec with_element
    check_place check_places checks claims crew describe fault faults me missed note note_lanes piece rarely
    record work worker
    Call call effcc std main arena buffers sizes threads context NULL EOF call_lanes
"""
RESERVED = frozenset(_WORDS.split())
"""Words of C++, functions of the header library, and names that every generated function has."""


@dataclass(frozen=True)
class Value:
    """A computed value: C++ text that is a name or a literal, its dtype, and 1 or the vector's number of lanes.

    A boolean in lanes is a mask whose lanes are `mask_bytes` wide. An index may stand as a `linear` form until somebody
    needs it in a register; its text is then empty.
    """

    text: str
    dtype: DType
    lanes: int = 1
    mask_bytes: int = 4
    linear: Linear | None = None


def atomic(text: str) -> str:
    """`text` in parentheses, unless it is a name, a number or a call."""
    return text if _ATOM.fullmatch(text) else f"({text})"


@dataclass
class Scope:
    """One block: its lines, and the values that may be used in it."""

    lines: list[Line]
    parent: Scope | None = None
    values: dict[object, Value] = field(default_factory=dict)

    def find(self, key: object) -> Value | None:
        """What was computed under `key`, here or in an enclosing block."""
        scope: Scope | None = self
        while scope is not None:
            if key in scope.values:
                return scope.values[key]
            scope = scope.parent
        return None


class Writer:
    """Collects the lines of one function; blocks nest. `lanes` is the number of lanes of its vectors, and `checks`
    whether it notes run-time checks that fail."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.names = Names(RESERVED)
        self.known: dict[str, Known] = {LANE: Known(0, lanes - 1)}
        self.functions: set[str] = set()
        self.checks = False
        self.scope = Scope([])
        self.loops: list[str] = []
        """The variables of the open serial loops, outermost first."""

    def add(self, line: Line) -> None:
        self.scope.lines.append(line)

    def let(self, type: str, text: str, hint: str = "v", epoch: int = 0) -> str:
        """The name of a constant that holds `text`; one that holds it already is used again.

        `epoch` tells apart readings of memory that has been written in between.
        """
        key = (type, text, epoch)
        found = self.scope.find(key)
        if found is not None:
            return found.text
        name = self.names.fresh(hint)
        self.add(Let(type, name, text))
        self.scope.values[key] = Value(name, _ANY)
        return name

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


_ANY = DType("any", "int", 0, None)
