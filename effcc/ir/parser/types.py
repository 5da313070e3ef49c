"""Sizes, encodings, types and attributes."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import sympy
from lark import Token, Tree

from effcc.errors import IRTypeError, UnknownNameError
from effcc.ir.dims import Dim, dim, symbol
from effcc.ir.dtypes import NAMED, DType
from effcc.ir.dtypes import dtype as dtype_named
from effcc.ir.encoding import Argument, Encoding, Scheme
from effcc.ir.parser.limits import bounded, extent, power, quotient, size_arithmetic, whole
from effcc.ir.parser.syntax import Source, Syntax, tokens, trees
from effcc.ir.size_functions import FUNCTIONS, constant, is_real
from effcc.ir.types import TensorType

if TYPE_CHECKING:
    from effcc.ir.graph import Attribute

SPECIALS: dict[str, float | bool] = {"inf": math.inf, "nan": math.nan, "true": True, "false": False}
_SIZE_FUNCTIONS: dict[str, Any] = {
    "floor": sympy.floor, "ceiling": sympy.ceiling, "Max": sympy.Max, "Min": sympy.Min, "Mod": sympy.Mod,
    "Abs": sympy.Abs, **FUNCTIONS,
}  # fmt: skip


def read_size(source: Source, tree: Syntax) -> Dim:
    """A size, or a number made of sizes: an int, or a sympy expression over size symbols."""
    with source.at(tree), size_arithmetic():
        value = _size(tree)
        return value if is_real(value) else dim(value)


def _size(tree: Syntax) -> Any:
    match tree.data, tree.children:
        case "size_integer", [text]:
            return whole(str(text))
        case "size_symbol", [name]:
            return symbol(str(name))
        case "size_function", [name, *arguments]:
            return _size_function(str(name), [sympy.sympify(_size(a)) for a in _below(arguments)])
        case "size_number", [*_]:
            return constant(read_literal(tree))  # type: ignore[arg-type]
        case "size_negative", [Tree() as a]:
            return -_size(a)
        case kind, [Tree() as a, Tree() as b]:
            return bounded(_size_operation(str(kind), sympy.sympify(_size(a)), _size(b)))
    raise AssertionError(tree.data)


def _size_function(name: str, arguments: list[Any]) -> Any:
    if name not in _SIZE_FUNCTIONS:
        raise UnknownNameError("function of sizes", name, _SIZE_FUNCTIONS)
    wanted = FUNCTIONS[name].entry.arity if name in FUNCTIONS else None
    if wanted not in (None, len(arguments)):
        raise IRTypeError(f"the function of sizes {name!r} takes {wanted} arguments, got {len(arguments)}")
    if name in FUNCTIONS:
        takes = FUNCTIONS[name].entry.takes
        if any(is_real(a) != (kind == "f") for a, kind in zip(arguments, takes, strict=True) if not a.is_infinite):
            raise IRTypeError(f"the function of sizes {name!r} takes {takes} (i: an integer, f: a double)")
    return bounded(_SIZE_FUNCTIONS[name](*arguments))


def _size_operation(kind: str, a: Any, b: Any) -> Any:
    match kind:
        case "size_sum":
            return a + b
        case "size_difference":
            return a - b
        case "size_product":
            return a * b
        case "size_quotient":
            return quotient(a, b)
    return power(a, b)


def _below(children: list[Any]) -> list[Syntax]:
    return [c for c in children if isinstance(c, Tree)]


def read_type(source: Source, tree: Syntax) -> TensorType:
    """`f32[s0,384]{384,1} = int8(per="channel")`."""
    name, sizes, strides, encoding = tree.children
    with source.at(tree):
        element = dtype_named(str(name))
    assert isinstance(sizes, Tree)
    with source.at(sizes):
        shape = tuple(extent(read_size(source, s)) for s in trees(sizes))
    layout = None
    if isinstance(strides, Tree):
        layout = tuple(read_size(source, s) for s in trees(trees(strides)[0]))
        if len(layout) != len(shape):
            with source.at(strides):
                raise IRTypeError(f"{len(layout)} strides for a shape of {len(shape)} sizes")
    stored = read_encoding(source, encoding) if isinstance(encoding, Tree) else None
    return TensorType(element, shape, layout, stored)


def read_encoding(source: Source, tree: Syntax) -> Encoding:
    """`block(4,1) . int8(per="channel") + low_rank(16)`."""
    return Encoding(tuple(tuple(_scheme(source, s) for s in trees(chain)) for chain in trees(tree)))


def _scheme(source: Source, tree: Syntax) -> Scheme:
    args: list[Argument] = []
    options: list[tuple[str, Argument]] = []
    for argument in trees(tree):
        key, value = argument.children
        assert isinstance(value, Tree)
        if value.data == "literal":
            read = read_literal(value)
        else:
            size = read_size(source, value)
            if isinstance(size, int):
                read = int(size)
            elif str(size) in ("True", "False"):  # as Python writes them
                read = str(size) == "True"
            else:
                source.fail("an encoding's argument must be a number, a string, true or false", value)
        if isinstance(key, Token):
            options.append((str(key), read))
        elif options:
            source.fail("positional argument after a named one", argument)
        else:
            args.append(read)
    return Scheme(str(tokens(tree)[0]), tuple(args), tuple(options))


def read_literal(tree: Syntax) -> float | bool | str:
    """A float, `inf`, `nan`, `true`, `false` or a string."""
    *sign, token = tokens(tree)
    value = literal(token)
    return -value if sign and not isinstance(value, str) else value


def literal(token: Token) -> Any:
    """The value of a literal token."""
    text = str(token)
    match token.type:
        case "SPECIAL":
            return SPECIALS[text]
        case "STRING":
            return _string(text)
        case "INT":
            return whole(text)
    return float(text)


def _string(text: str) -> str:
    try:
        found: str = json.loads(text)
    except ValueError as error:
        raise IRTypeError(f"expected a string with JSON's escapes, got {text[:40]}: {error}") from None
    return found


def read_attributes(source: Source, tree: Syntax | None) -> dict[str, Attribute]:
    """`{axis=1, approximate="none"}` as a dict; nothing for None."""
    found: dict[str, Attribute] = {}
    for attribute in trees(tree) if tree is not None else []:
        name, value = attribute.children
        if str(name) in found:
            source.fail(f"attribute {str(name)!r} is given twice", attribute)
        assert isinstance(value, Tree)
        found[str(name)] = _attribute(source, value)
    return found


def _attribute(source: Source, tree: Syntax) -> Attribute:
    match tree.data:
        case "literal":
            return read_literal(tree)
        case "null":
            return None
        case "list":
            return tuple(_attribute(source, item) for item in trees(tree))
        case "encoding":
            return read_encoding(source, tree)
        case "size_symbol" if str(tree.children[0]) in NAMED:
            return NAMED[str(tree.children[0])]
    return read_size(source, tree)


def read_dtype(source: Source, name: Token) -> DType:
    """The dtype that a token names."""
    with source.at(name):
        return dtype_named(str(name))
