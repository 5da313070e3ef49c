"""Functions of vectors: a name has the type that its definition gives it, a buffer the dtype of its declaration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lark import Token, Tree

from effcc.errors import IRTypeError, UnknownNameError
from effcc.ir.dims import Dim
from effcc.ir.dtypes import DType
from effcc.ir.expr import Scalar
from effcc.ir.parser.syntax import Source, Syntax, tokens, trees
from effcc.ir.parser.types import literal, read_dtype, read_size
from effcc.ir.vector_types import call_type, read_type
from effcc.ir.vectors import (
    INDEX,
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
    FirstThread,
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
    Parameter,
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
)  # fmt: skip

_THREE: dict[str, Callable[[Value, Value, Value], Value]] = {
    "fma": Fma,
    "dot": Dot,
    "select": Select,
}
_TYPED: dict[str, Callable[[Value, Type], Value]] = {
    "convert": Convert,
    "nearest": Nearest,
    "broadcast": Broadcast,
    "iota": Iota,
    "lanes": FirstLanes,
}


def read_vectors(source: Source, tree: Syntax) -> Function:
    """The function of a `vectors` tree."""
    at, buffers_tree, sizes_tree, first, *rest = tree.children
    assert isinstance(buffers_tree, Tree) and isinstance(sizes_tree, Tree)
    buffers = tuple(_parameter(source, t) for t in trees(buffers_tree))
    sizes = tuple(_size(source, t) for t in trees(sizes_tree))
    parts = [part for part in rest if isinstance(part, Tree)]
    called = frozenset(_called(source, t) for t in parts if t.data == "v_called")
    notes = tuple(literal(token) for t in parts if t.data == "note" for token in tokens(t))
    reader = _Reader(source, {p.name: p.dtype for p in buffers}, {name: INDEX for name, _ in sizes})
    body = reader.lines([t for t in parts if t.data not in ("v_called", "note")])
    return Function(str(at)[1:], buffers, sizes, body, first is not None, notes, called)


def _parameter(source: Source, tree: Syntax) -> Parameter:
    name, dtype, read, alone, stands_for = tree.children
    assert isinstance(dtype, Token)
    other = literal(stands_for) if isinstance(stands_for, Token) else str(name)
    return Parameter(str(name), read_dtype(source, dtype), other, read is not None, alone is not None)


def _size(source: Source, tree: Syntax) -> tuple[str, str | Dim]:
    name, size = tree.children
    if isinstance(size, Token):
        return str(name), int(size) if size.type == "INT" else literal(size)
    return str(name), str(name) if size is None else read_size(source, size)


def _called(source: Source, tree: Syntax) -> tuple[str, Type]:
    name, type = tokens(tree)
    return str(name), _type(source, type, str(type))


def _type(source: Source, place: Token, text: str) -> Type:
    with source.at(place):
        return read_type(text)


@dataclass(frozen=True)
class _Arguments:
    """What stands between a call's parentheses."""

    plain: tuple[Syntax, ...]
    named: dict[str, Syntax]


@dataclass(frozen=True)
class _How:
    """How the lanes of a load or a store lie."""

    stride: Dim = 1
    index: Value | None = None
    mask: Value | None = None
    count: Value | None = None


class _Reader:
    """The statements of one block, with the names that are known in it."""

    def __init__(self, source: Source, buffers: dict[str, DType], names: dict[str, Type]) -> None:
        self.source, self.buffers, self.names = source, dict(buffers), dict(names)

    def lines(self, body: Sequence[Syntax]) -> tuple[Line, ...]:
        return tuple(self._line(tree) for tree in body)

    def _inner(self, block: Syntax, name: str = "") -> tuple[Line, ...]:
        names = {**self.names, name: INDEX} if name else self.names
        return _Reader(self.source, self.buffers, names).lines(trees(block))

    def _line(self, tree: Syntax) -> Line:
        words = [str(t) for t in tree.children if isinstance(t, Token)]
        inner = trees(tree)
        match str(tree.data):
            case "v_let":
                place = tokens(tree)[1]
                value, stated = self.value(inner[0]), _type(self.source, place, words[1])
                if value.type != stated:
                    with self.source.at(place):
                        raise IRTypeError(f"{words[0]} is said to be {stated}, but its value is {value.type}")
                self.names[words[0]] = stated
                return Let(words[0], value)
            case "v_registers":
                type = _type(self.source, tokens(tree)[0], words[0])
                value_ = self.value(inner[1]) if len(inner) > 1 else None
                names = tuple(str(t) for t in tokens(inner[0]))
                self.names.update(dict.fromkeys(names, type))
                return Registers(type, names, value_)
            case "v_tiles":
                type = _type(self.source, tokens(tree)[0], words[0])
                names = tuple(str(t) for t in tokens(inner[0]))
                self.names.update(dict.fromkeys(names, type))
                return Tiles(type, names, int(words[1]))
            case "v_array":
                dtype = read_dtype(self.source, tokens(tree)[1])
                self.buffers[words[0]] = dtype
                return Array(dtype, words[0], int(words[2]))
            case "v_set":
                return Assign(words[0], self.value(inner[0]))
            case "v_loop":
                start, stop, block = inner
                bounds = self.value(start), self.value(stop)
                return Loop(words[0], *bounds, int(words[1]), self._inner(block, words[0]))
            case "v_share":
                comment = literal(tokens(tree)[1]) if len(words) > 1 else ""
                return Share(words[0], self.value(inner[0]), self._inner(inner[1], words[0]), comment)
            case "v_if":
                condition, *blocks = inner
                return Branch(self.value(condition), *(self._inner(block) for block in blocks))
            case "v_barrier":
                return Barrier()
        return self._do(tree)

    def _do(self, tree: Syntax) -> Line:
        head, given = tree.children
        assert isinstance(head, Token) and isinstance(given, Tree)
        name, angle = _head(head)
        arguments = self._arguments(given)
        plain, named = arguments.plain, arguments.named
        with self.source.at(head):
            match name, len(plain):
                case "store", 2:
                    fold = str(tokens(named.pop("fold"))[0]) if "fold" in named else ""
                    how = self._how(named)
                    where, value = self.place(plain[0]), self.value(plain[1])
                    return Store(where, value, how.stride, how.index, how.mask, how.count, fold)
                case "store_rows", count if count > 2:
                    how = self._how(named)
                    rows = tuple(self.value(t) for t in plain[1:])
                    return StoreRows(self.place(plain[0]), rows, how.stride, how.count)
                case "store_tile", 2:
                    register = self.value(plain[1])
                    if isinstance(register, Var):
                        return TileStore(self.place(plain[0]), register, self._how(named).stride)
                case "prefetch", 1 if angle in ("", "1"):
                    return Prefetch(self.place(plain[0]), near=angle == "1")
                case "put", 2:
                    register = self.value(plain[0])
                    if isinstance(register, Var):
                        return SetLane(register, _natural(angle), self.value(plain[1]))
                case "check", 3:
                    return Check(_natural(angle), *(self.value(t) for t in plain))
            raise IRTypeError(
                f"expected one of store(place, value), store_rows(place, a, b, c, d), store_tile(place, name), "
                f"prefetch(place), prefetch<1>(place), put<lane>(name, value) and check<number>(fails, value, size), "
                f"got {name} of {len(plain)}"
            )

    def _arguments(self, tree: Syntax) -> _Arguments:
        plain: list[Syntax] = []
        named: dict[str, Syntax] = {}
        for argument in trees(tree):
            name, value = argument.children
            assert isinstance(value, Tree)
            if isinstance(name, Token):
                named[str(name)] = value
            else:
                plain.append(value)
        return _Arguments(tuple(plain), named)

    def _how(self, named: dict[str, Syntax]) -> _How:
        unknown = sorted(set(named) - {"stride", "index", "mask", "count"})
        if unknown:
            raise UnknownNameError("way to load or store", unknown[0], ("stride", "index", "mask", "count", "fold"))
        stride = self._affine(named["stride"]) if "stride" in named else Affine(constant=1)
        given = {name: self.value(named[name]) for name in ("index", "mask", "count") if name in named}
        return _How(stride.constant, **given)

    # Values

    def place(self, tree: Syntax) -> Place:
        """An element of a buffer."""
        if tree.data != "v_place":
            self.source.fail("expected a place in a buffer, as in A[8*k]", tree)
        name, at = tree.children
        assert isinstance(at, Tree)
        with self.source.at(tree):
            if str(name) not in self.buffers:
                raise UnknownNameError("buffer", str(name), self.buffers)
        return Place(str(name), self.buffers[str(name)], self._affine(at))

    def value(self, tree: Syntax) -> Value:
        """A value."""
        match str(tree.data):
            case "v_affine":
                return self._affine(tree)
            case "v_name":
                name = str(tree.children[0])
                with self.source.at(tree):
                    if name not in self.names:
                        raise UnknownNameError("name", name, self.names)
                return Var(name, self.names[name])
            case "v_size_number":
                return SizeNumber(read_size(self.source, trees(tree)[0]))
            case "v_call":
                head, given = tree.children
                assert isinstance(head, Token) and isinstance(given, Tree)
                with self.source.at(head):
                    return self._call(head, self._arguments(given))
        return self.source.fail("expected a value; a number says its type, as f32(1.5) does", tree)

    def _call(self, head: Token, arguments: _Arguments) -> Value:
        name, angle = _head(head)
        plain = arguments.plain
        if name == "load" and angle and len(plain) == 1:
            how = self._how(arguments.named)
            return Load(self.place(plain[0]), read_type(angle), how.stride, how.index, how.mask, how.count)
        if name == "tile" and angle and len(plain) == 1 and set(arguments.named) == {"stride", "rows", "lanes"}:
            sizes = {key: self._affine(value).constant for key, value in arguments.named.items()}
            rows, lanes = (int(sizes[key]) for key in ("rows", "lanes"))
            return TileLoad(self.place(plain[0]), read_type(angle), sizes["stride"], rows, lanes)
        if arguments.named:
            raise IRTypeError(f"{name} takes no argument called {min(arguments.named)!r}")
        if len(plain) == 1 and plain[0].data == "v_number":
            type = read_type(str(head))
            return Literal(_number(plain[0], type), type)
        if name == "first" and not plain:
            return FirstThread()
        values = [self.value(t) for t in plain]
        if angle and len(values) == 1:
            if name in _TYPED:
                return _TYPED[name](values[0], read_type(angle))
            match name:
                case "round":
                    return Round(values[0], read_type(angle).dtype)
                case "lane":
                    return Lane(values[0], _natural(angle))
                case "reduce":
                    return Reduce(angle, values[0])
        if angle:
            raise UnknownNameError("node with a type", name, [*_TYPED, "round", "lane", "reduce", "load"])
        if name in _THREE and len(values) == 3:
            return _THREE[name](*values)
        match name:
            case "every":
                return Conjunction(tuple(values))
            case "any" if len(values) == 1:
                return Any(values[0])
            case "lookup" if len(values) == 2:
                return Lookup(values[0], values[1])
            case "lookup" if len(values) == 5 and all(isinstance(v, Literal) for v in values[3:]):
                first, shift = (int(v.value) for v in values[3:] if isinstance(v, Literal))
                return LookupCodes(values[0], values[1], values[2], first, shift)
            case "permute" if values and all(isinstance(v, Literal) for v in values[1:]):
                return Permute(values[0], tuple(int(v.value) for v in values[1:] if isinstance(v, Literal)))
        return Call(name, tuple(values), call_type(name, [v.type for v in values]))

    def _affine(self, tree: Syntax) -> Affine:
        negative = any(isinstance(t, Token) for t in tree.children)
        first, *others = trees(tree)
        terms: list[tuple[str, Dim]] = []
        constant: Dim = 0
        for part, sign in [
            (first, -1 if negative else 1),
            *((trees(t)[0], -1 if t.data == "v_minus" else 1) for t in others),
        ]:
            coefficient, name = self._term(part)
            if name is None:
                constant = constant + sign * coefficient
            else:
                terms.append((name, sign * coefficient))
        return Affine(tuple(terms), constant)

    def _term(self, tree: Syntax) -> tuple[Dim, str | None]:
        if tree.data == "v_sized":
            size, name = tree.children
            assert isinstance(size, Tree)
            return read_size(self.source, size), None if name is None else self._index_name(name)
        words = [t for t in tree.children if isinstance(t, Token)]
        if words[0].type == "NAME":
            return 1, self._index_name(words[0])
        return int(str(words[0])), self._index_name(words[1]) if len(words) > 1 else None

    def _index_name(self, token: object) -> str:
        assert isinstance(token, Token)
        with self.source.at(token):
            if str(token) not in self.names:
                raise UnknownNameError("name", str(token), self.names)
        return str(token)


def _head(head: Token) -> tuple[str, str]:
    """`convert<f32x16>` as its name and what stands in angle brackets."""
    name, _, angle = str(head).partition("<")
    return name, angle[:-1]


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise IRTypeError(f"expected a number in angle brackets, got {text!r}")
    return int(text)


def _number(tree: Syntax, type: Type) -> Scalar:
    *sign, token = tokens(tree)
    value = literal(token)
    signed = -value if sign else value
    if type.dtype.is_float:
        return float(signed)
    if isinstance(signed, float) or isinstance(signed, bool) != (type.dtype.kind == "bool"):
        raise IRTypeError(f"expected a number of {type}, got {signed}")
    return bool(signed) if type.dtype.kind == "bool" else int(signed)
