"""Kernels: buffers' dtypes from the header and the statements before, axes from the header."""

from __future__ import annotations

from lark import Token, Tree

from effcc.errors import IRTypeError
from effcc.ir.dims import Dim, symbols
from effcc.ir.dtypes import DType
from effcc.ir.expr import Axis
from effcc.ir.kernel import Kernel, Param, Scatter, Statement, index_in_span
from effcc.ir.parser.expressions import ExpressionReader
from effcc.ir.parser.syntax import Source, Syntax, tokens, trees
from effcc.ir.parser.types import read_dtype, read_size, read_type


def read_kernel(source: Source, tree: Syntax) -> Kernel:
    """The kernel of a `kernel` tree."""
    at, params_tree, outputs_tree, axes_tree, scan_tree, given_tree, *body = tree.children
    assert isinstance(params_tree, Tree) and isinstance(outputs_tree, Tree)
    params, outputs = read_params(source, params_tree), read_params(source, outputs_tree)
    axes: list[tuple[str, Dim]] = []
    for axis in trees(axes_tree) if isinstance(axes_tree, Tree) else []:
        name, size = axis.children
        assert isinstance(size, Tree)
        if str(name) in dict(axes):
            source.fail(f"axis {str(name)!r} is given twice", axis)
        axes.append((str(name), read_size(source, size)))
    scans = tuple(str(t) for t in tokens(scan_tree)) if isinstance(scan_tree, Tree) else ()
    sizes = [*(size for p in (*params, *outputs) for size in p.type.shape), *(extent for _, extent in axes)]
    buffers = {p.name: (p.type.dtype, p.type.rank) for p in (*params, *outputs)}
    statement_trees = [part for part in body if isinstance(part, Tree)]
    known = {*(s.name for s in symbols(sizes)), *read_given(given_tree)}
    reader = ExpressionReader(source, dict(axes), buffers, known)
    for part in statement_trees:
        _declare(source, part, buffers)
    statements = tuple(_statement(source, reader, part, buffers) for part in statement_trees)
    return Kernel(str(at)[1:], params, outputs, tuple(axes), statements, scans)


def read_given(tree: Syntax | Token | None) -> frozenset[str]:
    """`given s0, s1`: sizes that a program gives."""
    return frozenset(str(t) for t in tokens(tree)) if isinstance(tree, Tree) else frozenset()


def read_params(source: Source, tree: Syntax) -> tuple[Param, ...]:
    """`X: f32[4,n], Y: i64[4]`."""
    found: dict[str, Param] = {}
    for param in trees(tree):
        name, type_tree = param.children
        assert isinstance(type_tree, Tree)
        if str(name) in found:
            source.fail(f"buffer {str(name)!r} is given twice", param)
        found[str(name)] = Param(str(name), read_type(source, type_tree))
    return tuple(found.values())


def _declare(source: Source, tree: Syntax, buffers: dict[str, tuple[DType, int]]) -> None:
    """Note the dtype that a statement says of its own target, so that statements before it may read that."""
    name, index, declared = tree.children[:3]
    if isinstance(declared, Token) and isinstance(index, Tree):
        buffers.setdefault(str(name), (read_dtype(source, declared), len(index.children)))


def _statement(
    source: Source, reader: ExpressionReader, tree: Syntax, buffers: dict[str, tuple[DType, int]]
) -> Statement:
    name, index_tree, _, *rest = tree.children
    assert isinstance(index_tree, Tree)
    target = str(name)
    value_tree = trees(tree)[1]
    expected = buffers[target][0] if target in buffers else None
    value = reader.read(value_tree, expected)
    with source.at(tree):
        if expected is not None and value.dtype != expected:
            raise IRTypeError(f"{target!r} is {expected}, its value {value.dtype}; write cast<{expected}>(...)")
    if tree.data == "define":
        axes = tuple(_axis(source, reader, i) for i in trees(index_tree))
        made = Statement(target, axes, value)
    else:
        over = [place for box in trees(tree, "box") for place in trees(box)]
        axes = tuple(_axis_name(source, reader, tokens(place)[0]) for place in over)
        combine = next(str(t)[:-1] for t in rest if isinstance(t, Token) and t.type == "COMBINE")
        index = reader.index(index_tree)
        for place in (p for p in over if p.data == "span"):
            span = reader.span(place)
            if index.count(Axis(span.axis)) != 1:
                source.fail(f"{span.axis!r} ranges over a span, so it must be an index by itself, once", place)
            index = tuple(index_in_span(span) if i == Axis(span.axis) else i for i in index)
        made = Statement(target, axes, value, Scatter(index, combine))
    buffers.setdefault(target, (value.dtype, len(index_tree.children)))
    with source.at(tree):
        if buffers[target][1] != len(index_tree.children):
            raise IRTypeError(f"{target!r} has {buffers[target][1]} dimensions, got {len(index_tree.children)} indices")
    return made


def _axis(source: Source, reader: ExpressionReader, tree: Syntax) -> str:
    if tree.data != "name":
        source.fail("a statement's left side lists axes; to write elsewhere use T[index] set= value for axes", tree)
    return _axis_name(source, reader, tokens(tree)[0])


def _axis_name(source: Source, reader: ExpressionReader, token: Token) -> str:
    if str(token) not in reader.axes:
        known = ", ".join(sorted(reader.axes))
        source.fail(f"{str(token)!r} is no axis of this kernel; its axes are: {known}", token)
    return str(token)
