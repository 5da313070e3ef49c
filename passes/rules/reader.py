"""The reader of `.rules` files: `rules.lark` is their grammar, `effcc.passes.rules.language` says what it means.

A rule is checked as it is read: what its right side and its conditions name is bound by its pattern, ops take the
attributes they are given, conditions and functions exist, and a reason stands in the line above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer, Tree, UnexpectedInput, v_args
from lark.exceptions import VisitError

from effcc.errors import IRSyntaxError
from effcc.ir.dtypes import DTYPES
from effcc.ir.op import REQUIRED
from effcc.ir.ops import lookup
from effcc.passes.rules.conditions import CONDITIONS
from effcc.passes.rules.functions import FUNCTIONS
from effcc.passes.rules.language import (
    Claim,
    Computed,
    Condition,
    Expression,
    Function,
    Literal,
    Name,
    Number,
    NumberVariable,
    Operation,
    Rule,
    RuleSet,
    Tensor,
    operations,
    variables,
)

FOLDER = Path(__file__).parent


def load(theme: str) -> RuleSet:
    """The rules of `passes/rules/<theme>.rules`."""
    return parse((FOLDER / f"{theme}.rules").read_text(encoding="utf-8"), theme)


@cache
def load_all() -> RuleSet:
    """Every rule that effcc has, theme by theme: what runs with `fast_math`."""
    return sum((load(t) for t in themes()), RuleSet(()))


@cache
def load_safe() -> RuleSet:
    """The rules whose claim holds for all finite inputs: what runs by default."""
    everything = load_all()
    return RuleSet(tuple(r for r in everything.rules if r.claim.is_safe), everything.order)


def themes() -> list[str]:
    """The names of the rule files, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.rules"))


def parse(text: str, theme: str = "rules") -> RuleSet:
    """The rules in a text; raises IRSyntaxError with line, column and caret."""
    path, lines = f"{theme}.rules", text.splitlines()

    def refuse(message: str, line: int, column: int) -> IRSyntaxError:
        return IRSyntaxError(message, line, column, lines[line - 1] if 0 < line <= len(lines) else "", path)

    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        expected = ", ".join(sorted(getattr(error, "accepts", None) or getattr(error, "expected", None) or ()))
        raise refuse(f"expected one of {expected}", error.line, error.column) from None
    reader = _Reader()
    rules: list[Rule] = []
    order: list[tuple[str, ...]] = []
    for statement in tree.children:
        assert isinstance(statement, Tree)
        if statement.data == "order":
            order.append(tuple(str(lookup(str(name)).name) for name in statement.children))
            continue
        name = statement.children[0]
        assert isinstance(name, Token) and name.line is not None and name.column is not None
        above = lines[name.line - 2].strip() if name.line >= 2 else ""
        if not above.startswith("#"):
            raise refuse(f"rule {name} needs its reason as a comment in the line above", name.line, name.column)
        try:
            parts = [c for c in statement.children[1:] if isinstance(c, Tree)]
            claim, pattern, replacement, *rest = map(reader.transform, parts)
            rule = Rule(
                str(name), claim, pattern, replacement, rest[0] if rest else (), above.lstrip("# "), theme, name.line
            )
            _verify(rule)
        except VisitError as error:
            if not isinstance(error.orig_exc, ValueError):
                raise error.orig_exc from None
            raise refuse(f"rule {name}: {error.orig_exc}", name.line, name.column) from None
        except ValueError as error:
            raise refuse(f"rule {name}: {error}", name.line, name.column) from None
        if any(rule.name == other.name for other in rules):
            raise refuse(f"a second rule is called {name}", name.line, name.column)
        rules.append(rule)
    return RuleSet(tuple(rules), tuple(order))


@cache
def _parser() -> Lark:
    return Lark((FOLDER / "rules.lark").read_text(encoding="utf-8"), parser="lalr", propagate_positions=True)


_WORDS = {"true": True, "false": False, "null": None}


@v_args(inline=True)
class _Reader(Transformer[Token, Any]):
    """Builds terms, conditions and claims from the parse tree."""

    exact: Callable[..., Claim] = staticmethod(lambda: Claim("exact"))
    reorders: Callable[..., Claim] = staticmethod(lambda: Claim("reorders"))
    reassociates: Callable[..., Claim] = staticmethod(lambda: Claim("reassociates"))

    def approximate(self, ulp: Token) -> Claim:
        return Claim("approximate", float(ulp))

    def tensor(self, name: Token) -> Tensor:
        return Tensor(str(name)[1:])

    value = tensor

    def named(self, name: Token, operation: Operation) -> Operation:
        return Operation(operation.op, operation.operands, operation.attrs, str(name)[1:])

    def number(self, text: Token) -> Number:
        return Number(float(text))

    def number_variable(self, name: Token) -> NumberVariable:
        return NumberVariable(str(name))

    def computed(self, value: Expression) -> Computed:
        return Computed(value)

    def operation(self, name: Token, *rest: Any) -> Operation:
        given = dict(rest[-1]) if rest and isinstance(rest[-1], dict) else {}
        operands = tuple(t for t in rest if t is not None and not isinstance(t, dict))
        spec = lookup(str(name))
        attrs = {key: given.pop(key, Literal(default)) for key, default in spec.attrs.items()}
        if given:
            raise ValueError(f"op {name} has no attribute {', '.join(given)}; it has {', '.join(spec.attrs) or 'none'}")
        missing = [key for key, value in attrs.items() if value == Literal(REQUIRED)]
        if missing:
            raise ValueError(f"op {name} needs the attribute {', '.join(missing)}")
        return Operation(str(name), operands, tuple(attrs.items()))

    def attributes(self, *pairs: tuple[str, Expression]) -> dict[str, Expression]:
        return dict(pairs)

    def attribute(self, name: Token, value: Expression) -> tuple[str, Expression]:
        return str(name), value

    def conditions(self, *each: Condition) -> tuple[Condition, ...]:
        return each

    def condition(self, *parts: Any) -> Condition:
        negated = isinstance(parts[0], Token) and parts[0].type == "NOT"
        name, *args = parts[1:] if negated else parts
        return Condition(str(name), tuple(a for a in args if a is not None), negated)

    def call(self, name: Token, *args: Expression) -> Function:
        return Function(str(name), tuple(a for a in args if a is not None))

    def name(self, name: Token) -> Expression:
        text = str(name)
        if text in _WORDS:
            return Literal(_WORDS[text])
        return Literal(DTYPES[text]) if text in DTYPES else Name(text)

    def literal_number(self, text: Token) -> Literal:
        value = float(text)
        whole = math.isfinite(value) and value == int(value) and not _negative_zero(value)
        return Literal(int(value) if whole else value)

    def string(self, text: Token) -> Literal:
        return Literal(str(text)[1:-1])

    def sequence(self, *items: Literal) -> Literal:
        return Literal(tuple(i.value for i in items if i is not None))


def _negative_zero(value: float) -> bool:
    return value == 0 and math.copysign(1.0, value) < 0


def _verify(rule: Rule) -> None:
    """Every name on the right and in the conditions is bound on the left; what is named exists."""
    if not isinstance(rule.pattern, Operation):
        raise ValueError("the pattern must be an operation")
    bound = (
        {"result"} | {t.name for t in variables(rule.pattern)} | {o.name for o in operations(rule.pattern) if o.name}
    )
    bound |= {e.name for o in operations(rule.pattern) for _, e in o.attrs if isinstance(e, Name)}
    bound |= {t.name for o in operations(rule.pattern) for t in o.operands if isinstance(t, NumberVariable)}
    for operation in operations(rule.pattern):
        if any(isinstance(t, Computed) for t in operation.operands):
            raise ValueError("a computed operand stands in the pattern")

    def check(e: Expression) -> None:
        if isinstance(e, (Tensor, Name)) and e.name not in bound:
            raise ValueError(f"{e.name} does not occur in the pattern")
        if isinstance(e, Function):
            if e.function not in FUNCTIONS:
                raise ValueError(f"unknown function {e.function}; known: {', '.join(sorted(FUNCTIONS))}")
            for a in e.args:
                check(a)

    for condition in rule.conditions:
        if condition.name not in CONDITIONS:
            raise ValueError(f"unknown condition {condition.name}; known: {', '.join(sorted(CONDITIONS))}")
        for argument in condition.args:
            check(argument)
    for name in variables(rule.replacement):
        check(name)
    for operation in operations(rule.replacement):
        for _, value in operation.attrs:
            check(value)
        for operand in operation.operands:
            if isinstance(operand, Computed):
                check(operand.value)
            elif isinstance(operand, NumberVariable):
                check(Name(operand.name))
