"""The text notation of constraints, definitions and objectives.

    rows = min(mt * mr, m)          # a definition: its value stands wherever `rows` is used
    mr * nr / lanes + nr / lanes + 1 <= vector_registers
    kc % unroll == 0 ; n % nr == 0 or padded == 1
    minimize max(compute, traffic)

`/` rounds down, `ceil(a / b)` rounds up, `round_up(a, b)` is the least multiple of b that is at least a; `min` and
`max` take any number of arguments. Statements end at a line's end or at `;`; `#` starts a comment; a line goes on
inside parentheses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from lark import Lark, Token, Tree, UnexpectedInput

from effcc.errors import IRSyntaxError
from effcc.passes.tiling.constraints import Compare, Constraint, Expr, Name, Number, Op, Problem

GRAMMAR = r"""
start: [statement] (_separator [statement])*
?statement: definition | objective | condition
definition: NAME "=" sum
objective: "minimize" sum
?condition: conjunction | condition "or" conjunction -> either
?conjunction: atom | conjunction "and" atom -> both
?atom: sum RELATION sum -> compare
     | "(" condition ")"
?sum: term | sum PLUS term -> binary
?term: factor | term TIMES factor -> binary
?factor: INT -> number
       | "-" INT -> negative
       | NAME -> name
       | NAME "(" sum ("," sum)* ")" -> call
       | "(" sum ")"
_separator: ";" | _NEWLINE
RELATION: "<=" | ">=" | "==" | "<" | ">"
PLUS: "+" | "-"
TIMES: "*" | "/" | "%"
NAME: /[A-Za-z_][A-Za-z0-9_]*/
_NEWLINE: /\n/
%import common.INT
%ignore /[ \t]+/
%ignore /#[^\n]*/
"""

_FUNCTIONS = {"min": None, "max": None, "round_up": 2, "ceil": 1}


@dataclass(frozen=True)
class Model:
    """A parsed text: definitions by name (with earlier definitions written out), constraints, and the objective.

    `texts` has the constraints as they were written, with the names of definitions.
    """

    definitions: Mapping[str, Expr]
    constraints: tuple[Constraint, ...]
    objective: Expr
    texts: Mapping[Constraint, str]

    def problem(self, domains: Mapping[str, Iterable[int]], parameters: Mapping[str, int] | None = None) -> Problem:
        """The model with domains for its variables and numbers for its other names."""
        ordered = {name: tuple(sorted(set(values))) for name, values in domains.items()}
        return Problem(ordered, self.constraints, self.objective, dict(parameters or {}), self.texts)


@lru_cache(maxsize=256)
def parse_model(text: str) -> Model:
    """Parse definitions, constraints and an objective (0 when the text minimizes nothing).

    Raises IRSyntaxError with the line and column of what does not parse.
    """
    builder = _Builder(text)
    builder.statements(_parse(text))
    return Model(builder.definitions, tuple(builder.constraints), builder.objective, builder.texts)


def parse_problem(
    text: str, domains: Mapping[str, Iterable[int]], parameters: Mapping[str, int] | None = None
) -> Problem:
    """Parse a text and give its names their domains and numbers."""
    return parse_model(text).problem(domains, parameters)


def parse_constraint(text: str) -> Constraint:
    """Parse one constraint.

    >>> print(parse_constraint("kc % unroll == 0 or (kc <= 8 and unroll == 1)"))
    kc % unroll == 0 or kc <= 8 and unroll == 1
    """
    model = parse_model(text)
    if len(model.constraints) != 1 or model.definitions:
        raise IRSyntaxError("expected exactly one constraint", 1, 1, text.split("\n")[0], "<constraint>")
    return model.constraints[0]


class _OpenParentheses:
    """Drops newlines inside parentheses."""

    always_accept = ("_NEWLINE",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth = 0
        for token in stream:
            depth += {"LPAR": 1, "RPAR": -1}.get(token.type, 0)
            if not (depth > 0 and token.type == "_NEWLINE"):
                yield token


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", propagate_positions=True, postlex=_OpenParentheses())


def _parse(text: str) -> Tree[Token]:
    try:
        return _parser().parse(text)
    except UnexpectedInput as e:
        raise _syntax_error("unexpected text in a constraint", text, e.line, e.column) from None


def _syntax_error(message: str, text: str, line: int, column: int) -> IRSyntaxError:
    lines = text.split("\n")
    line = line if 1 <= line <= len(lines) else len(lines)
    return IRSyntaxError(message, line, max(column, 1), lines[line - 1], "<constraints>")


class _Builder:
    """Turns the parse tree into expressions. Equal subexpressions become one object, so that bounds compute them
    once.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.definitions: dict[str, Expr] = {}
        self.constraints: list[Constraint] = []
        self.texts: dict[Constraint, str] = {}
        self.objective: Expr = Number(0)
        self._shared: dict[Expr, Expr] = {}

    def statements(self, tree: Tree[Token]) -> None:
        for node in tree.children:
            match node:
                case Tree(data="definition", children=[Token() as name, body]):
                    self.definitions[str(name)] = self.expression(body)
                case Tree(data="objective", children=[body]):
                    self.objective = self.expression(body)
                case Tree(meta=meta):
                    self.constraints.append(self.condition(node))
                    written = self._text[meta.start_pos : meta.end_pos]
                    self.texts[self.constraints[-1]] = " ".join(written.split())

    def condition(self, node: Tree[Token] | Token) -> Constraint:
        match node:
            case Tree(data="either", children=[a, b]):
                return self.condition(a) | self.condition(b)
            case Tree(data="both", children=[a, b]):
                return self.condition(a) & self.condition(b)
            case Tree(data="compare", children=[lhs, Token() as relation, rhs]):
                return Compare(str(relation), self.expression(lhs), self.expression(rhs))
        raise TypeError(f"not a condition: {node!r}")

    def expression(self, node: Tree[Token] | Token) -> Expr:
        e = self._expression(node)
        return self._shared.setdefault(e, e)

    def _expression(self, node: Tree[Token] | Token) -> Expr:
        match node:
            case Tree(data="number", children=[Token() as digits]):
                return Number(int(digits))
            case Tree(data="negative", children=[Token() as digits]):
                return Number(-int(digits))
            case Tree(data="name", children=[Token() as name]):
                return self.definitions.get(str(name), Name(str(name)))
            case Tree(data="binary", children=[lhs, Token() as operator, rhs]):
                return Op(str(operator), (self.expression(lhs), self.expression(rhs)))
            case Tree(data="call", children=[Token() as function, *args]):
                return self._call(function, tuple(self.expression(a) for a in args))
        raise TypeError(f"not an expression: {node!r}")

    def _call(self, function: Token, args: tuple[Expr, ...]) -> Op:
        line, column = function.line or 1, function.column or 1
        if function not in _FUNCTIONS:
            known = ", ".join(_FUNCTIONS)
            raise _syntax_error(f"unknown function {str(function)!r}; known: {known}", self._text, line, column)
        wanted = _FUNCTIONS[str(function)]
        if wanted is not None and len(args) != wanted:
            message = f"{function} takes {wanted} argument{'s' if wanted > 1 else ''}, got {len(args)}"
            raise _syntax_error(message, self._text, line, column)
        if function != "ceil":
            return Op(str(function), args)
        if not (isinstance(args[0], Op) and args[0].kind == "/"):
            raise _syntax_error("ceil takes a quotient: ceil(a / b)", self._text, line, column)
        return Op("ceil", args[0].args)
