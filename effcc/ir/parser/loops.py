"""Loop nests: loop variables and tile axes are in scope in what they enclose, local buffers until their block ends."""

from __future__ import annotations

from lark import Token, Tree

from effcc.errors import IRTypeError, UnknownNameError
from effcc.ir.dims import symbols
from effcc.ir.dtypes import DType, boolean, i64
from effcc.ir.loops import Alloc, For, If, LoopNest, Stmt, Tile, TileAxis
from effcc.ir.parser.expressions import ExpressionReader
from effcc.ir.parser.kernels import read_given, read_params
from effcc.ir.parser.limits import whole
from effcc.ir.parser.syntax import Source, Syntax, tokens, trees
from effcc.ir.parser.types import literal, read_type

Buffers = dict[str, tuple[DType, int]]


def read_loops(source: Source, tree: Syntax) -> LoopNest:
    """The loop nest of a `loops` tree."""
    at, params_tree, outputs_tree, given_tree, *rest = tree.children
    assert isinstance(params_tree, Tree) and isinstance(outputs_tree, Tree)
    params, outputs = read_params(source, params_tree), read_params(source, outputs_tree)
    buffers = {p.name: (p.type.dtype, p.type.rank) for p in (*params, *outputs)}
    sizes = [size for p in (*params, *outputs) for size in (*p.type.shape, *p.type.layout)]
    body = [part for part in rest if isinstance(part, Tree)]
    notes = tuple(literal(token) for part in body if part.data == "note" for token in tokens(part))
    known = frozenset(s.name for s in symbols(sizes)) | read_given(given_tree)
    reader = _BlockReader(source, frozenset(), buffers, known)
    return LoopNest(str(at)[1:], params, outputs, reader.block([p for p in body if p.data != "note"]), notes)


class _BlockReader:
    def __init__(self, source: Source, axes: frozenset[str], buffers: Buffers, symbols: frozenset[str]) -> None:
        self.source = source
        self.axes = axes
        self.buffers = dict(buffers)
        self.symbols = symbols

    def block(self, body: list[Syntax]) -> tuple[Stmt, ...]:
        return tuple(self.statement(part) for part in body)

    def inner(self, *axes: str) -> _BlockReader:
        return _BlockReader(self.source, self.axes | set(axes), self.buffers, self.symbols)

    def expressions(self, *axes: str) -> ExpressionReader:
        return ExpressionReader(self.source, self.axes | set(axes), self.buffers, self.symbols)

    def statement(self, tree: Syntax) -> Stmt:
        match tree.data:
            case "alloc":
                return self._alloc(tree)
            case "tile":
                return self._tile(tree)
            case "branch":
                return self._branch(tree)
        return self._loop(tree)

    def _alloc(self, tree: Syntax) -> Alloc:
        name, type_tree, space = tree.children
        assert isinstance(type_tree, Tree)
        type = read_type(self.source, type_tree)
        shape = tuple(size for size in type.shape if isinstance(size, int))
        if len(shape) != type.rank:
            self.source.fail("a local buffer needs constant sizes", type_tree)
        self.buffers[str(name)] = (type.dtype, type.rank)
        return Alloc(str(name), type.dtype, shape, str(space))

    def _tile(self, tree: Syntax) -> Tile:
        axes_tree, name, index, *rest = tree.children
        assert isinstance(axes_tree, Tree) and isinstance(index, Tree)
        axes = tuple(self._axis(axis) for axis in trees(axes_tree))
        reader = self.expressions(*(axis.name for axis in axes))
        combine = next((str(t)[:-1] for t in rest if isinstance(t, Token)), "set")
        value_tree = trees(tree)[-1]
        with self.source.at(tree):
            if str(name) not in self.buffers:
                raise UnknownNameError("buffer", str(name), self.buffers)
            expected, rank = self.buffers[str(name)]
            value = reader.read(value_tree, expected)
            if value.dtype != expected:
                raise IRTypeError(f"{str(name)!r} is {expected}, its value {value.dtype}")
            if rank != len(index.children):
                raise IRTypeError(f"{str(name)!r} has {rank} dimensions, got {len(index.children)} indices")
        return Tile(axes, str(name), reader.index(index), combine, value)

    def _axis(self, tree: Syntax) -> TileAxis:
        name, extent, kind, limit = tree.children
        bound = self.expressions().read(limit, i64) if isinstance(limit, Tree) else None
        return TileAxis(str(name), whole(str(extent)), str(kind), bound)

    def _branch(self, tree: Syntax) -> If:
        condition, body, orelse = tree.children
        assert isinstance(condition, Tree) and isinstance(body, Tree)
        test = self.expressions().read(condition, boolean)
        other = self.inner().block(trees(orelse)) if isinstance(orelse, Tree) else ()
        return If(test, self.inner().block(trees(body)), other)

    def _loop(self, tree: Syntax) -> For:
        name, start, stop, step, body = tree.children
        assert isinstance(start, Tree) and isinstance(stop, Tree) and isinstance(body, Tree)
        first, last = (self.expressions().read(e, i64) for e in (start, stop))
        inside = self.inner(str(name)).block(trees(body))
        kind = "serial" if tree.data == "serial" else "parallel"
        return For(str(name), first, last, whole(str(step)), kind, inside)
