"""Vectors: what one function of generated code does, step by step, in registers of known types. All is chosen by then.

    vectors @scale(X: f32 read, O: f32; s0) {
      share at in [(s0)] {
        registers f32x16 total_0, total_1 = broadcast<f32x16>(f32(0.0))
        loop k in [0]..[96] step 32 {
          let v: f32x16 = load<f32x16>(X[96*at + k])
          set total_0 = fma(v, v, total_0)
          set total_1 = fma(load<f32x16>(X[96*at + k + 16]), f32x16(2.0), total_1)
        }
        do store(O[at], reduce<add>(add(total_0, total_1)))
      }
    }

A team of threads runs the function together. What stands in `share` is divided among them, what stands in `if first` is
one thread's, all else every thread does alike; `barrier` is where they wait for each other.

Values are numbers, truth values, or vectors of them: `f32`, `bool`, `f32x16`, `mask32x16` (truth values in lanes of 32
bits), and what is in the registers of a matrix unit: `f32x16x16`, 16 rows of 16 lanes. bf16 and f16 are only ways to
store (and the packed lanes of `dot`): loaded as f32, rounded when stored. Index arithmetic is i64, and mostly of the
form `[768*m0 + k + (s0)]`: numbers times variables, and sizes in parentheses. Every name is defined before it is used,
once in a function; `let` is constant, `registers` are what `set` changes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from effcc.ir.dims import Dim
from effcc.ir.dots import TILE_ROW_BYTES, TILE_SIDE
from effcc.ir.dtypes import DType, boolean, f64, i32, i64
from effcc.ir.expr import Scalar


@dataclass(frozen=True, slots=True, eq=False)
class Type:
    """`lanes` values of one dtype (1: a single one). Truth values in lanes are as wide as the numbers they go with.

    A tile register has `rows` of such. There is one object for each: `value_type` and `tile_type` give it.
    """

    dtype: DType
    lanes: int = 1
    mask_bytes: int = 0
    rows: int = 1

    @property
    def is_mask(self) -> bool:
        """Whether it is truth values in lanes."""
        return self.mask_bytes > 0

    @property
    def element(self) -> Type:
        """The type of one lane."""
        return value_type(self.dtype)

    def __reduce__(self) -> tuple[object, ...]:
        if self.rows > 1:
            return tile_type, (self.dtype,)
        return value_type, (self.dtype, self.lanes, self.mask_bytes)

    def __repr__(self) -> str:
        if self.lanes == 1:
            return self.dtype.name
        if self.rows > 1:
            return f"{self.dtype.name}x{self.lanes}x{self.rows}"
        return f"mask{8 * self.mask_bytes}x{self.lanes}" if self.is_mask else f"{self.dtype.name}x{self.lanes}"


@functools.cache
def value_type(dtype: DType, lanes: int = 1, mask_bytes: int = 4) -> Type:
    """The type of `lanes` values of a dtype; `mask_bytes` counts for truth values in lanes."""
    return _known_type(dtype, lanes, mask_bytes if dtype == boolean and lanes > 1 else 0)


@functools.cache
def _known_type(dtype: DType, lanes: int, mask_bytes: int) -> Type:
    return Type(dtype, lanes, mask_bytes)


@functools.cache
def tile_type(dtype: DType) -> Type:
    """What a tile register holds of a dtype: `f32x16x16`, 16 rows of 16 lanes."""
    return Type(dtype, TILE_ROW_BYTES // dtype.bytes, rows=TILE_SIDE)


INDEX, TRUTH, NUMBER, NARROW = (value_type(d) for d in (i64, boolean, f64, i32))


# Right sides. None of them changes anything; where one stands within another, operands are evaluated first.


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """`f32(1.5)`, `f32x16(0.0)`: a number, in every lane. Two are one if their bits are."""

    value: Scalar
    type: Type

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self.type == other.type and self._bits == other._bits

    def __hash__(self) -> int:
        return hash((self._bits, self.type))

    @property
    def _bits(self) -> tuple[str, str]:
        if isinstance(self.value, float):
            return "float", "nan" if math.isnan(self.value) else self.value.hex()
        return type(self.value).__name__, str(self.value)


@dataclass(frozen=True, slots=True)
class Var:
    """`acc_0`: what a let, a register or a loop variable holds."""

    name: str
    type: Type = INDEX


@dataclass(frozen=True, slots=True)
class Affine:
    """`[768*m0 - k + (2*s0) + 32]`: a sum of i64 variables times numbers (or sizes), and a number (or size)."""

    terms: tuple[tuple[str, Dim], ...] = ()
    constant: Dim = 0

    @property
    def type(self) -> Type:
        return INDEX


@dataclass(frozen=True, slots=True)
class SizeNumber:
    """`size<f64>[(sqrt(real(s0)))]`: an f64 made of sizes, as `effcc.ir.size_functions` says."""

    value: Dim

    @property
    def type(self) -> Type:
        return NUMBER


@dataclass(frozen=True, slots=True)
class FirstThread:
    """`first`: whether this is the thread of the team that came here first. Only a branch has it, as its condition."""

    @property
    def type(self) -> Type:
        return TRUTH


@dataclass(frozen=True, slots=True)
class Call:
    """`exp(v)`: a function by its name, lane by lane: those of `effcc.ir.scalars`, and

    `quotient(a, b)` and `rest(a, b)`: of i64 where 0 <= a and 0 < b; `saturate(a)`: an i64 as i32, cut to +-2^30.
    """

    function: str
    operands: tuple[Value, ...]
    type: Type


@dataclass(frozen=True, slots=True)
class Fma:
    """`fma(a, b, c)`: a * b + c of floats, rounded once where the instruction set can."""

    a: Value
    b: Value
    c: Value

    @property
    def type(self) -> Type:
        return self.c.type


@dataclass(frozen=True, slots=True)
class Dot:
    """`dot(a, b, c)`: c + the sums of products of packed neighbours, exact in c's dtype (integers wrap around).

    By four: i8 x i8, u8 x i8, u7 x i8, u8 x i7 and u8 x l8 to i32. By two: i16 x i16 to i32, u8 x l8 to i16, and
    bf16 x bf16 to f32 (see `effcc/dot.h`). a and b have four or two times as many lanes as c.
    Of tiles, c[i, j] + the sum of the dot products of row i of a with lanes j of b's rows: with neighbours packed, b is
    a matrix of as many columns as c has lanes.
    """

    a: Value
    b: Value
    c: Value

    @property
    def type(self) -> Type:
        return self.c.type


@dataclass(frozen=True, slots=True)
class Select:
    """`select(m, a, b)`: a where m holds, else b. With a single truth value only the chosen side is evaluated."""

    condition: Value
    a: Value
    b: Value

    @property
    def type(self) -> Type:
        return self.a.type


@dataclass(frozen=True, slots=True)
class Conjunction:
    """`every(a, b, ...)`: whether all of these single truth values hold; none is looked at after one that does not."""

    conditions: tuple[Value, ...]

    @property
    def type(self) -> Type:
        return TRUTH


@dataclass(frozen=True, slots=True)
class Convert:
    """`convert<f32x16>(v)`: each lane as another dtype, as PyTorch converts (a truth value is 0 or 1).

    A mask becomes a wider or narrower one.
    """

    value: Value
    type: Type


@dataclass(frozen=True, slots=True)
class Nearest:
    """`nearest<i32x16>(v)`: `convert<i32x16>(round(v))` of f32, the nearest integer, the even one of two."""

    value: Value
    type: Type


@dataclass(frozen=True, slots=True)
class Round:
    """`round<bf16>(v)`: f32 rounded to what a half type can hold."""

    value: Value
    dtype: DType

    @property
    def type(self) -> Type:
        return self.value.type


@dataclass(frozen=True, slots=True)
class Broadcast:
    """`broadcast<f32x16>(a)`: a single value in every lane; of packed lanes, a few neighbours again and again."""

    value: Value
    type: Type


@dataclass(frozen=True, slots=True)
class Iota:
    """`iota<i32x16>(a)`: a, a + 1, a + 2, ..."""

    start: Value
    type: Type


@dataclass(frozen=True, slots=True)
class FirstLanes:
    """`lanes<mask32x16>(n)`: whether a lane's number is below n; n may be anything."""

    count: Value
    type: Type


@dataclass(frozen=True, slots=True)
class Lane:
    """`lane<3>(v)`: one lane of a vector."""

    vector: Value
    lane: int

    @property
    def type(self) -> Type:
        return self.vector.type.element


@dataclass(frozen=True, slots=True)
class Permute:
    """`permute<3.2.1.0>(v)`: for every lane of the result, the lane of v that it is."""

    vector: Value
    lanes: tuple[int, ...]

    @property
    def type(self) -> Type:
        return value_type(self.vector.type.dtype, len(self.lanes), self.vector.type.mask_bytes)


@dataclass(frozen=True, slots=True)
class Lookup:
    """`lookup(table, i)`: for every lane, the lane of `table` whose number stands in i (whose low bits count)."""

    table: Value
    index: Value

    @property
    def type(self) -> Type:
        return value_type(self.table.type.dtype, self.index.type.lanes)


@dataclass(frozen=True, slots=True)
class LookupCodes:
    """`lookup(low, high, bytes, i32(8), i32(4))`: for lanes of `bytes` from number 8 on, as many as `low` has, the lane
    of the table `low`, `high` whose number stands in the byte from bit 4 on (as many bits as the table asks for).

    bytes: four times as many lanes as each half of the table has. Bytes of what stands in a table are looked up for all
    of them at once, so that a table of 16 takes less time than by two shuffles of its halves.
    """

    low: Value
    high: Value
    bytes: Value
    first: int
    shift: int

    @property
    def type(self) -> Type:
        return self.low.type


@dataclass(frozen=True, slots=True)
class Any:
    """`any(m)`: whether any lane of a mask holds."""

    mask: Value

    @property
    def type(self) -> Type:
        return TRUTH


@dataclass(frozen=True, slots=True)
class Reduce:
    """`reduce<add>(v)`: all lanes folded by a function, lane i first with lane i + lanes / 2."""

    function: str
    vector: Value

    @property
    def type(self) -> Type:
        return self.vector.type.element


@dataclass(frozen=True, slots=True)
class Place:
    """`A[768*m0 + k]`: an element of a buffer, counted from its beginning."""

    buffer: str
    dtype: DType
    at: Affine = Affine()


@dataclass(frozen=True, slots=True)
class Load:
    """`load<f32x16>(A[k], stride=[2], mask=m, count=n)`: the elements from a place on, `stride` apart.

    With an `index` (lanes of integers) each lane's is that many elements from the place. Of lanes that the mask, or a
    count of the first ones, leaves out nothing is read: they are 0. Truth values in memory give a mask.
    """

    place: Place
    type: Type
    stride: Dim = 1
    index: Value | None = None
    mask: Value | None = None
    count: Value | None = None


@dataclass(frozen=True, slots=True)
class TileLoad:
    """`tile<bf16x32x16>(A[k], stride=[768], rows=16, lanes=32)`: the elements from a place on, rows `stride` apart.

    Beyond so many `rows`, and `lanes` of a row, nothing is read: it is 0. Set a tile register to it.
    """

    place: Place
    type: Type
    stride: Dim
    rows: int
    lanes: int


Value = (
    Literal | Var | Affine | SizeNumber | FirstThread | Call | Fma | Dot | Select | Conjunction | Convert | Nearest
    | Round | Broadcast | Iota | FirstLanes | Lane | Permute | Lookup | LookupCodes | Any | Reduce | Load | TileLoad
)  # fmt: skip


# Statements.


@dataclass(frozen=True, slots=True)
class Let:
    """`let name: type = value`."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class Registers:
    """`registers type a, b = value`: variables of one type, all beginning as `value` (None: as zeros)."""

    type: Type
    names: tuple[str, ...]
    value: Value | None = None


@dataclass(frozen=True, slots=True)
class Array:
    """`array name: dtype[length]`: scratch memory of one thread, aligned for vectors."""

    dtype: DType
    name: str
    length: int


@dataclass(frozen=True, slots=True)
class Assign:
    """`set name = value`."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class SetLane:
    """`do set_lane<3>(name, value)`: one lane of a register."""

    register: Var
    lane: int
    value: Value


@dataclass(frozen=True, slots=True)
class Store:
    """`do store(O[k], value, stride=[2], mask=m, count=n, fold=add)`: the reverse of a load, lane by lane.

    Where two lanes have the same place the last one wins. `fold` combines each lane with what stands there instead, in
    the lanes' order.
    """

    place: Place
    value: Value
    stride: Dim = 1
    index: Value | None = None
    mask: Value | None = None
    count: Value | None = None
    fold: str = ""


@dataclass(frozen=True, slots=True)
class StoreRows:
    """`do store_rows(O[k], a, b, c, d, stride=[96], count=n)`: lane i of a, b, c, d side by side, from i * stride on.

    Four vectors, or as many as one has lanes; of bf16, which they are rounded to, two. Of the first `count` lanes only,
    if it is given.
    """

    place: Place
    values: tuple[Value, ...]
    stride: Dim
    count: Value | None = None


@dataclass(frozen=True, slots=True)
class Tiles:
    """`tiles f32x16x16 a, b at 2`: variables in the tile registers from a number on, 2 and 3; what they hold is set.

    Who had those registers before has lost them.
    """

    type: Type
    names: tuple[str, ...]
    first: int


@dataclass(frozen=True, slots=True)
class TileStore:
    """`do store_tile(C[16*i], a, stride=[32])`: all rows of a tile, `stride` apart from a place on."""

    place: Place
    value: Var
    stride: Dim


@dataclass(frozen=True, slots=True)
class Prefetch:
    """`do prefetch(B[k])`: ask for a cache line, which need not be there, in L2; `prefetch<1>`: in L1, for `near`."""

    place: Place
    near: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """`do check<7>(fails, value, size)`: note that check 7 failed, for a value and a size, in the lanes of `fails`."""

    number: int
    fails: Value
    value: Value
    size: Value


@dataclass(frozen=True, slots=True)
class Loop:
    """`loop name in start..stop step 4 { ... }`."""

    name: str
    start: Value
    stop: Value
    step: int
    body: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """`share name in count because "m0, n0" { ... }`: 0 .. count - 1, in pieces that the threads of the team take.

    Every one is some thread's, whatever the number of threads. The comment says which loops of the nest they were.
    """

    name: str
    count: Value
    body: tuple[Line, ...]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """`if condition { ... } else { ... }`."""

    condition: Value
    body: tuple[Line, ...]
    orelse: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class Barrier:
    """`barrier`: every thread waits for all others."""


Line = (
    Let | Registers | Tiles | Array | Assign | SetLane | Store | StoreRows | TileStore | Prefetch | Check | Loop | Share
    | Branch | Barrier
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameter:
    """`X: f32 read alone`: a buffer, its name in the nest, whether it is only read, and in memory of its own."""

    name: str
    dtype: DType
    stands_for: str
    read_only: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Function:
    """One function: buffers, sizes, and what it does. Sizes are its names for the size symbols of the nest, or for
    numbers (`n0 = 384`) or sizes (`n0 = (floor(s0/2))`) that it is called with, which its text then does not say.

    `first_only`: all of it is done by the thread that comes first. `called` are scalar functions, by name and type,
    that are called where they are used, not written out. `notes` say what it was made from.
    """

    name: str
    buffers: tuple[Parameter, ...]
    sizes: tuple[tuple[str, str | Dim], ...]
    body: tuple[Line, ...]
    first_only: bool = False
    notes: tuple[str, ...] = ()
    called: frozenset[tuple[str, Type]] = frozenset()

    @functools.cached_property
    def lines(self) -> tuple[Line, ...]:
        """Every statement at every depth, in the order of the text."""
        found: list[Line] = []
        _flatten(self.body, found)
        return tuple(found)

    @functools.cached_property
    def size_names(self) -> frozenset[str]:
        """What sizes are called in the dims that it holds: by their symbols, others by their names."""
        return frozenset(size if isinstance(size, str) else name for name, size in self.sizes)

    @functools.cached_property
    def has_tiles(self) -> bool:
        """Whether threads set up a matrix unit when they enter, and leave it free when they return."""
        return any(isinstance(line, Tiles) for line in self.lines)

    @functools.cached_property
    def checks(self) -> bool:
        """Whether it notes run-time checks that fail."""
        return any(isinstance(line, Check) for line in self.lines)


def _flatten(body: tuple[Line, ...], found: list[Line]) -> None:
    for line in body:
        found.append(line)
        for inner in bodies(line):
            _flatten(inner, found)


# Walking


_PARTS: dict[type, tuple[str, ...]] = {
    Fma: ("a", "b", "c"), Dot: ("a", "b", "c"), Select: ("condition", "a", "b"), Convert: ("value",),
    Nearest: ("value",),
    Round: ("value",), Broadcast: ("value",), Iota: ("start",), FirstLanes: ("count",), Lane: ("vector",),
    Permute: ("vector",), Lookup: ("table", "index"), Any: ("mask",), Reduce: ("vector",),
    LookupCodes: ("low", "high", "bytes"), Load: ("index", "mask", "count"),
    Let: ("value",), Registers: ("value",), Assign: ("value",), SetLane: ("register", "value"),
    Store: ("value", "index", "mask", "count"), StoreRows: ("count",), TileStore: ("value",),
    Check: ("fails", "value", "size"), Loop: ("start", "stop"), Share: ("count",), Branch: ("condition",),
}  # fmt: skip
_MANY: dict[type, str] = {Call: "operands", Conjunction: "conditions", StoreRows: "values"}


def parts(node: Value | Line) -> list[Value]:
    """The values directly within a value or a statement."""
    kind = type(node)
    found = [v for name in _PARTS.get(kind, ()) if (v := getattr(node, name)) is not None]
    return [*found, *getattr(node, _MANY[kind])] if kind in _MANY else found


def variables(value: Value) -> Iterator[str]:
    """The names that a value reads, each as often as it does."""
    if isinstance(value, Var):
        yield value.name
    for part in parts(value):
        yield from variables(part)


def bodies(line: Line) -> tuple[tuple[Line, ...], ...]:
    """The statements within a statement."""
    if isinstance(line, Loop | Share):
        return (line.body,)
    return (line.body, line.orelse) if isinstance(line, Branch) else ()
