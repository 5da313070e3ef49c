"""Scalar expressions: names resolved, functions looked up, and the dtype of every number found.

The dtypes of operands that must be alike come from the first operand that shows its own, else from the place of the
expression; `effcc.ir.printer.expressions` states the same rule from the writing side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lark import Token, Tree

from effcc.errors import IRTypeError, UnknownNameError
from effcc.ir.dims import symbol
from effcc.ir.dtypes import DTYPES, DType, boolean, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, Size, Span
from effcc.ir.parser.syntax import Source, Syntax, tokens, trees
from effcc.ir.parser.types import literal, read_dtype, read_size
from effcc.ir.printer.expressions import INFIX, accumulator, literal_dtype
from effcc.ir.scalars import CHECKS, FUNCTIONS, REDUCTIONS, ScalarFunction, alike
from effcc.ir.scalars import function as scalar_function
from effcc.ir.scalars import reduction as reduction_named


class ExpressionReader:
    """Reads expressions in one scope: the names that are axes, the buffers' dtypes and ranks, the size symbols."""

    def __init__(
        self, source: Source, axes: Iterable[str], buffers: Mapping[str, tuple[DType, int]], symbols: Iterable[str]
    ) -> None:
        self.source = source
        self.axes = frozenset(axes)
        self.buffers = buffers
        self.symbols = frozenset(symbols)

    def read(self, tree: Syntax, expected: DType | None = None) -> Expr:
        """The expression of `tree`, numbers read as `expected` where nothing beside them says otherwise."""
        match tree.data:
            case "number":
                return self._number(tree, tokens(tree)[0], expected)
            case "name":
                return self._name(tokens(tree)[0])
            case "load":
                return self._load(tree)
            case "size_value":
                marker, size = tree.children
                assert isinstance(size, Tree)
                text = str(marker)
                wanted = DTYPES[text[5:-2]] if text.startswith("size<") else i64
                return Size(read_size(self.source, size), wanted)
            case "negative":
                return self._negative(tree, expected)
            case "reduce":
                return self._reduce(tree)
            case "call":
                return self._call(tree, expected)
        return self._infix(tree, expected)

    def index(self, tree: Syntax) -> tuple[Expr, ...]:
        """`[i,j + 1]`."""
        return tuple(self.read(i, i64) for i in trees(tree))

    def _number(self, tree: Syntax, token: Token, expected: DType | None, sign: int = 1) -> Const:
        value = literal(token)
        if isinstance(value, bool):
            if expected not in (None, boolean) or sign < 0:
                self._mistyped(f"expected a number of type {expected}, got {token!s}", tree)
            return Const(value, boolean)
        wanted = expected or literal_dtype(value)
        if wanted == boolean or (isinstance(value, float) and not wanted.is_float):
            self._mistyped(f"expected a value of type {wanted.name}, got {token!s}; write cast<...>(...)", tree)
        return Const(sign * float(value) if wanted.is_float else sign * value, wanted)

    def _name(self, token: Token) -> Expr:
        name = str(token)
        if name in self.axes:
            return Axis(name)
        if name in self.symbols:
            return Size(symbol(name))
        with self.source.at(token):
            hint = "buffers are read with an index" if name in self.buffers else ""
            raise UnknownNameError("axis or size", name, self.axes | self.symbols, hint)

    def _load(self, tree: Syntax) -> Load:
        name, index = tree.children
        assert isinstance(index, Tree)
        read = self.index(index)
        before = str(name) not in self.buffers and str(name).endswith("'")
        buffer = str(name)[:-1] if before else str(name)
        with self.source.at(tree):
            if buffer not in self.buffers:
                raise UnknownNameError("buffer", str(name), self.buffers)
            dtype, rank = self.buffers[buffer]
            if rank != len(read):
                raise IRTypeError(f"{str(name)!r} has {rank} dimensions, got {len(read)} indices")
        return Load(buffer, read, dtype, before)

    def _negative(self, tree: Syntax, expected: DType | None) -> Expr:
        (operand,) = trees(tree)
        if operand.data == "number":
            return self._number(tree, tokens(operand)[0], expected, -1)
        value = self.read(operand, expected)
        return Call("neg", (value,), value.dtype)

    def _reduce(self, tree: Syntax) -> Reduce:
        head, arguments, body_tree, rescale_tree = tree.children
        assert isinstance(head, Token) and isinstance(arguments, Tree) and isinstance(body_tree, Tree)
        operator, written = self._typed_name(head)
        with self.source.at(tree):
            reduction_named(operator)
        axes, spans = [], []
        for argument in trees(arguments):
            if argument.data not in ("name", "span") or str(argument.children[0]) not in self.axes:
                self.source.fail("a reduction's axes must be names of the kernel's axes", argument)
            axes.append(str(argument.children[0]))
            if argument.data == "span":
                spans.append(self.span(argument))
        body = self.read(body_tree)
        dtype = written or accumulator(operator, body.dtype)
        rescale = self.read(rescale_tree, dtype) if isinstance(rescale_tree, Tree) else None
        return Reduce(operator, tuple(axes), body, dtype, rescale, tuple(spans))

    def span(self, tree: Syntax) -> Span:
        """`j in P[g]..P[g + 1]`."""
        start, stop = (self.read(end, i64) for end in trees(tree))
        return Span(str(tree.children[0]), start, stop)

    def _typed_name(self, head: Token) -> tuple[str, DType | None]:
        if head.type != "TYPED":
            return str(head), None
        name, _, rest = str(head).partition("<")
        with self.source.at(head):
            return name, read_dtype(self.source, Token.new_borrow_pos("NAME", rest[:-1], head))

    def _call(self, tree: Syntax, expected: DType | None) -> Expr:
        head, arguments = tree.children
        assert isinstance(head, Token) and isinstance(arguments, Tree)
        name, written = self._typed_name(head)
        operands = trees(arguments)
        if any(o.data == "span" for o in operands):
            self.source.fail("only a reduction takes an axis with its span", head)
        if name in DTYPES and written is None:
            return self._constant(name, tree, operands)
        if name == "cast":
            if written is None or len(operands) != 1:
                self.source.fail("a cast is written cast<dtype>(value)", head)
            return Call("cast", (self.read(operands[0]),), written)
        with self.source.at(tree):
            if name in REDUCTIONS:
                raise IRTypeError(f"a reduction is written {name}(axis: value); for two values use maximum or minimum")
            spec = scalar_function(name)
            if written is not None:
                raise IRTypeError(f"only cast and reductions take a type, {name!r} does not")
            if len(operands) != spec.arity:
                raise IRTypeError(f"{name!r} takes {spec.arity} operands, got {len(operands)}")
        return self._apply(spec, tree, operands, expected)

    def _constant(self, dtype: str, tree: Syntax, operands: list[Syntax]) -> Expr:
        literals = [o for o in operands if "number" in (o.data, *(t.data for t in trees(o) if o.data == "negative"))]
        if len(operands) != 1 or not literals:
            self.source.fail(f"{dtype}(...) takes one number; a conversion is written cast<{dtype}>(value)", tree)
        return self.read(literals[0], DTYPES[dtype])

    def _infix(self, tree: Syntax, expected: DType | None) -> Expr:
        operands = trees(tree)
        value = self._apply(FUNCTIONS[str(tree.data)], tree, operands, expected)
        if value.function == "sub" and value.dtype == i64 and operands[1].data == "number":
            constant = value.operands[1]
            assert isinstance(constant, Const)
            return Call("add", (value.operands[0], Const(-constant.value, i64)), i64)
        return value

    def _apply(self, spec: ScalarFunction, tree: Syntax, operands: list[Syntax], expected: DType | None) -> Call:
        group = alike(spec.name, operands)
        place = expected if spec.result == "same" else None
        like = next((d for o in group if (d := self._shown_dtype(o)) is not None), place)
        other = i64 if spec.name in CHECKS else boolean
        values = [self.read(o, like if any(o is g for g in group) else other) for o in operands]
        dtypes = {v.dtype for v in alike(spec.name, values)}
        with self.source.at(tree):
            if len(dtypes) > 1:
                got = ", ".join(v.dtype.name for v in values)
                raise IRTypeError(f"operands of {spec.name!r} must have one dtype, got {got}; write cast<dtype>(value)")
            (dtype,) = dtypes
            if spec.name == "where" and values[0].dtype != boolean:
                raise IRTypeError(f"the condition of 'where' must be bool, got {values[0].dtype.name}")
            if (spec.domain == "float" and not dtype.is_float) or (spec.domain == "int" and dtype.is_float):
                wanted = "a floating dtype" if spec.domain == "float" else "an integer or bool dtype"
                raise IRTypeError(f"{spec.name!r} needs {wanted}, got {dtype.name}")
        return Call(spec.name, tuple(values), spec.result_dtype(dtype))

    def _shown_dtype(self, tree: Syntax) -> DType | None:
        """The dtype that a text shows by itself; None for numbers and what is made of numbers only."""
        match tree.data, tree.children:
            case "number", [Token() as token]:
                return boolean if str(token) in ("true", "false") else None
            case "name", _:
                return i64
            case "load", [name, _]:
                return self.buffers.get(str(name), self.buffers.get(str(name).removesuffix("'"), (None, 0)))[0]
            case "size_value", [marker, _]:
                return DTYPES.get(str(marker)[5:-2], i64)
            case "reduce", [Token() as head, _, Tree() as body, _]:
                operator, written = self._typed_name(head)
                return written or accumulator(operator, self._shown_dtype(body) or self.read(body).dtype)
            case "negative", [Tree() as operand]:
                return self._shown_dtype(operand)
            case "call", [Token() as head, Tree() as arguments]:
                function, written = self._typed_name(head)
                if written is not None or function in DTYPES:
                    return written or DTYPES[function]
                return self._shown_by(function, trees(arguments))
        return self._shown_by(str(tree.data), trees(tree)) if tree.data in _INFIX_NAMES else None

    def _shown_by(self, name: str, operands: list[Syntax]) -> DType | None:
        spec = FUNCTIONS.get(name) or CHECKS.get(name)
        if spec is not None and spec.result != "same":
            return boolean
        return next((d for o in alike(name, operands) if (d := self._shown_dtype(o)) is not None), None)

    def _mistyped(self, message: str, tree: Syntax) -> None:
        with self.source.at(tree):
            raise IRTypeError(message)


_INFIX_NAMES = frozenset(INFIX)
