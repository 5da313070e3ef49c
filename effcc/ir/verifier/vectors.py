"""What holds in every function of vectors: names defined before use and once, operands of the types that nodes take."""

from __future__ import annotations

from effcc.errors import IRTypeError, UnknownNameError
from effcc.ir.dims import symbols
from effcc.ir.dots import PACKED, TILE_REGISTERS
from effcc.ir.dtypes import DType, bf16, boolean, f16, f32, i8, i16, i32, i64, u8
from effcc.ir.op import require
from effcc.ir.printer.vectors import show_line
from effcc.ir.scalars import FUNCTIONS
from effcc.ir.vector_types import call_type, dot_type, load_type, truth_of
from effcc.ir.vectors import (
    INDEX,
    TRUTH,
    Affine,
    Any,
    Array,
    Assign,
    Barrier,
    Branch,
    Broadcast,
    Call,
    Check,
    Conjunction,
    Convert,
    Dot,
    FirstLanes,
    Fma,
    Function,
    Iota,
    Lane,
    Let,
    Line,
    Literal,
    Load,
    Lookup,
    LookupCodes,
    Loop,
    Nearest,
    Permute,
    Place,
    Prefetch,
    Reduce,
    Registers,
    Round,
    Select,
    SetLane,
    Share,
    SizeNumber,
    Store,
    StoreRows,
    TileLoad,
    Tiles,
    TileStore,
    Type,
    Value,
    Var,
    parts,
)  # fmt: skip


def verify_vectors(function: Function) -> None:
    """Raise IRTypeError, naming the function and the statement, unless it makes sense."""
    names: dict[str, Type] = {name: INDEX for name, _ in function.sizes}
    buffers = {p.name: p.dtype for p in function.buffers}
    try:
        require(len(buffers) == len(function.buffers), "a buffer is declared twice")
        for p in function.buffers:
            require(p.name not in names, f"{p.name!r} is a buffer and a size")
        readable = frozenset(p.name for p in function.buffers if p.read_only)
        taken = {*names, *buffers}
        _Block(names, buffers, readable, set(), function.size_names, taken).check(function.body)
    except (IRTypeError, UnknownNameError) as error:
        raise IRTypeError(f"vectors @{function.name}: {error}") from None


class _Block:
    """The names in scope in one block: values, buffers, and which of them nobody may change."""

    def __init__(
        self,
        names: dict[str, Type],
        buffers: dict[str, DType],
        read_only: frozenset[str],
        registers: set[str],
        sizes: frozenset[str],
        taken: set[str],
    ) -> None:
        self.names, self.buffers, self.read_only = dict(names), dict(buffers), read_only
        self.registers, self.sizes, self.taken = set(registers), sizes, taken
        self.tiles: dict[str, int] = {}

    def check(self, body: tuple[Line, ...]) -> None:
        """Raise IRTypeError unless all statements make sense here, one after the other."""
        for line in body:
            try:
                self._line(line)
            except (IRTypeError, UnknownNameError) as error:
                if "\n  in: " in str(error):
                    raise
                raise IRTypeError(f"{error}\n  in: {show_line(line)}") from None

    def _inner(self, body: tuple[Line, ...], name: str = "") -> None:
        block = _Block(self.names, self.buffers, self.read_only, self.registers, self.sizes, self.taken)
        block.tiles = self.tiles  # what is inside may take registers over, too
        if name:
            block._define(name, INDEX)
        block.check(body)

    def _define(self, name: str, type: Type) -> None:
        require(name not in self.taken, f"{name!r} is defined twice")
        self.taken.add(name)
        self.names[name] = type

    def _line(self, line: Line) -> None:
        for value in parts(line):
            self._value(value)
        match line:
            case Let(name, value):
                require(value.type.rows == 1, f"{name!r} is a tile, which has to be in a register that `tiles` names")
                self._define(name, value.type)
            case Registers(type, names, start):
                require(start is None or start.type == type, f"registers of {type} begin as {start and start.type}")
                for name in names:
                    self._define(name, type)
                    self.registers.add(name)
            case Tiles(type, names, first):
                require(type.rows > 1, f"tile registers hold tiles, not {type}")
                require(
                    first >= 0 and first + len(names) <= TILE_REGISTERS, f"tile registers are 0 to {TILE_REGISTERS - 1}"
                )
                for number, name in enumerate(names, first):
                    self._define(name, type)
                    self.registers.add(name)
                    for other in [n for n, taken in self.tiles.items() if taken == number]:
                        del self.tiles[other]
                    self.tiles[name] = number
            case TileStore(place, Var(name, type)):
                self._place(place)
                require(place.buffer not in self.read_only, f"buffer {place.buffer!r} is only read")
                require(type.rows > 1 and place.dtype == type.dtype, f"{name} of {type} is stored to {place.dtype}")
            case Array(dtype, name, length):
                require(length >= 1, f"array {name!r} has {length} elements")
                require(name not in self.taken, f"{name!r} is defined twice")
                self.taken.add(name)
                self.buffers[name] = dtype
            case Assign(name, value):
                self._register(name, value.type)
                if isinstance(value, Dot) and value.type.rows > 1:
                    require(value.c == Var(name, value.type), "a dot of tiles adds to the register that it sets")
            case SetLane(Var(name, type), lane, value):
                self._register(name, type)
                self._lane(lane, type)
                self._is(value, type.element)
            case Store() | StoreRows() | Prefetch():
                self._store(line)
            case Check(number, fails, value, size):
                require(number >= 0 and fails.type.dtype == boolean, f"check {number} fails where {fails.type}")
                require(not value.type.dtype.is_float, f"check {number} is of an integer, got {value.type}")
                require(
                    value.type.lanes in (1, fails.type.lanes),
                    f"check {number} fails in {fails.type.lanes} lanes, and is of {value.type.lanes}",
                )
                self._is(size, INDEX)
            case Loop(name, start, stop, step, body):
                self._is(start, INDEX)
                self._is(stop, INDEX)
                require(step >= 1, f"loop {name!r} has the step {step}")
                self._inner(body, name)
            case Share(name, count, body):
                self._is(count, INDEX)
                require(not any(isinstance(inner, Barrier | Share) for inner in body), "threads cannot meet in a share")
                self._inner(body, name)
            case Branch(condition, body, orelse):
                self._is(condition, TRUTH)
                self._inner(body)
                self._inner(orelse)

    def _register(self, name: str, type: Type) -> None:
        require(name in self.registers, f"{name!r} is no register in scope")
        require(self.names[name] == type, f"register {name!r} is {self.names[name]}, got {type}")

    def _store(self, line: Store | StoreRows | Prefetch) -> None:
        place = line.place
        self._place(place)
        if isinstance(line, Prefetch):
            return
        require(place.buffer not in self.read_only, f"buffer {place.buffer!r} is only read")
        if isinstance(line, StoreRows):
            first = line.values[0].type
            many = len(line.values) in ((2,) if place.dtype == bf16 else (4, first.lanes))
            require(many and all(v.type == first for v in line.values), "rows of equal types, 4 or one for each lane")
            fits = place.dtype in (f32, bf16) and first.dtype == f32
            require(fits and first.lanes % 4 == 0, f"rows of f32 (of bf16 two), got {first}")
            self._count(line.count)
            return
        load_type(place.dtype, line.value.type.element)
        self._ways(line, line.value.type)
        known = not line.fold or (line.fold in FUNCTIONS and FUNCTIONS[line.fold].associative)
        require(known, f"{line.fold!r} is no function to fold by")
        require(not line.fold or line.index is not None, "only what is scattered is folded")

    def _place(self, place: Place) -> None:
        if place.buffer not in self.buffers:
            raise UnknownNameError("buffer", place.buffer, self.buffers)
        dtype = self.buffers[place.buffer]
        require(dtype == place.dtype, f"buffer {place.buffer!r} holds {dtype}, not {place.dtype}")
        self._affine(place.at)

    def _affine(self, a: Affine) -> None:
        for name, _ in a.terms:
            if name not in self.names:
                raise UnknownNameError("name", name, self.names)
            self._is(Var(name, self.names[name]), INDEX)
        self._sizes(a)

    def _sizes(self, a: Affine | SizeNumber) -> None:
        given = (a.value,) if isinstance(a, SizeNumber) else (a.constant, *(c for _, c in a.terms))
        for symbol in symbols(given):
            require(symbol.name in self.sizes, f"size {symbol.name!r} is none of the function's")

    def _ways(self, node: Load | Store, type: Type) -> None:
        """How lanes lie: at most one of a stride and an index, of a mask and a count."""
        require(node.index is None or node.stride == 1, "lanes have a stride or an index, not both")
        require(node.mask is None or node.count is None, "lanes are left out by a mask or by a count, not both")
        if node.index is not None:
            given = node.index.type
            require(given.dtype in (i32, i64) and given.lanes == type.lanes, f"{type} has lanes at {given}")
        if node.mask is not None:
            mask = node.mask.type
            require(mask.dtype == boolean and mask.lanes == type.lanes, f"{type} is masked by {mask}")
        self._count(node.count)

    def _count(self, count: Value | None) -> None:
        if count is not None:
            self._is(count, INDEX)

    def _lane(self, lane: int, type: Type) -> None:
        require(0 <= lane < type.lanes, f"{type} has no lane {lane}")

    def _is(self, value: Value, type: Type) -> None:
        require(value.type == type, f"expected {type}, got {value.type}")

    def _value(self, value: Value) -> None:
        for inner in parts(value):
            self._value(inner)
        match value:
            case Var(name, type):
                if name not in self.names:
                    raise UnknownNameError("name", name, self.names)
                require(self.names[name] == type, f"{name!r} is {self.names[name]}, not {type}")
                require(type.rows == 1 or name in self.tiles, f"another tile has taken {name!r}'s register")
            case Affine():
                self._affine(value)
            case SizeNumber():
                self._sizes(value)
            case Literal(number, type):
                kind = bool if type.dtype == boolean else float if type.dtype.is_float else int
                require(
                    isinstance(number, kind) and type.dtype not in (f16, bf16), f"{number!r} is no literal of {type}"
                )
            case Call(name, operands, type):
                want = call_type(name, [o.type for o in operands])
                require(want == type, f"{name} gives {want}, not {type}")
            case Fma(a, b, c):
                require(c.type.dtype.is_float and a.type == b.type == c.type, f"fma of {a.type}, {b.type} and {c.type}")
            case Dot(a, b, c):
                dot_type(a.type, b.type, c.type)
            case Select(condition, a, b):
                require(a.type == b.type, f"select of {a.type} and {b.type}")
                mask = a.type if a.type.dtype == boolean else truth_of(a.type)
                require(condition.type in (TRUTH, mask), f"{condition.type} selects among {a.type}")
            case Conjunction(conditions):
                for condition in conditions:
                    self._is(condition, TRUTH)
            case Convert(inner, type):
                require(inner.type.lanes == type.lanes, f"{inner.type} does not convert to {type}")
                require(not {inner.type.dtype, type.dtype} & {f16, bf16}, "half types are rounded to, not converted to")
            case Nearest(inner, type):
                require(inner.type.dtype == f32 and type.dtype in (i8, u8, i16, i32), f"{inner.type} to {type}")
                require(inner.type.lanes == type.lanes, f"{inner.type} does not convert to {type}")
            case Round(inner, dtype):
                require(inner.type.dtype == f32 and dtype in (f16, bf16), f"{inner.type} is not rounded to {dtype}")
            case Broadcast(inner, type):
                few = inner.type.lanes > 1 and type.dtype == inner.type.dtype and type.dtype in PACKED
                require(few or inner.type == type.element, f"expected {type.element}, got {inner.type}")
                require(type.lanes > inner.type.lanes, f"{type} has no lanes to repeat {inner.type} in")
            case Iota(start, type):
                self._is(start, type.element)
                require(type.dtype in (i32, i64), f"numbers of lanes are integers, not {type}")
            case FirstLanes(count, type):
                self._is(count, INDEX)
                require(type.is_mask, f"the first lanes are a mask, not {type}")
            case Lane(vector, lane):
                self._lane(lane, vector.type)
            case Permute(vector, lanes):
                for lane in lanes:
                    self._lane(lane, vector.type)
            case Lookup(table, index):
                require(table.type.lanes > 1 and index.type.dtype.is_integer, f"{table.type} looked up by {index.type}")
            case LookupCodes(low, high, codes, first, shift):
                self._is(high, low.type)
                lanes, known = low.type.lanes, codes.type.dtype == u8 and codes.type.lanes == 4 * low.type.lanes
                require(lanes > 1 and known, f"codes in {codes.type} choose of {low.type} and {high.type}")
                self._lane(first + lanes - 1, codes.type)
                inside = first % lanes == 0 and shift >= 0 and 2 * lanes << shift <= 1 << 8
                require(inside, f"codes from lane {first} and bit {shift} on in {codes.type}")
            case Any(mask):
                require(mask.type.is_mask, f"any of {mask.type}, which is no mask")
            case Reduce(name, vector):
                require(name in FUNCTIONS and FUNCTIONS[name].associative, f"{name!r} is no function to reduce by")
                require(vector.type.lanes > 1, f"{vector.type} has one lane")
            case TileLoad(place, type, _, rows, lanes):
                self._place(place)
                require(type.rows > 1 and place.dtype == type.dtype, f"elements of {place.dtype} make no {type}")
                inside = 1 <= rows <= type.rows and 1 <= lanes <= type.lanes
                require(inside, f"{rows} rows of {lanes} lanes of {type}")
            case Load(place, type):
                self._place(place)
                load_type(place.dtype, type if type.dtype == bf16 else type.element)
                self._ways(value, type)
