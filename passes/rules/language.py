"""Rewrite rules as values, and their text. `effcc.passes.rules.reader` reads the `.rules` files that state them.

    # The reason, in one line.
    rule name [claim]:  pattern  =>  replacement  if condition(...), condition(...)

`%x` stands for any tensor, a lower-case name among the operands for a number known at compile time, a name inside the
braces after an op for an attribute's value; an attribute left out has its default. What a name stood for in the pattern
it stands for in the conditions and the replacement. `effcc.passes.rules.conditions` has the conditions by name,
`effcc.passes.rules.functions` the functions that compute attributes and numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from effcc.ir.ops import lookup


@dataclass(frozen=True)
class Tensor:
    """`%x`: any value; the same one wherever the name stands."""

    name: str


@dataclass(frozen=True)
class Number:
    """A constant operand with this value in every element; the sign of zero counts."""

    value: float


@dataclass(frozen=True)
class NumberVariable:
    """A constant operand with one value in every element, called `name`."""

    name: str


@dataclass(frozen=True)
class Computed:
    """In a replacement: a constant operand whose value is an expression."""

    value: Expression


@dataclass(frozen=True)
class Operation:
    """An op applied to terms. `attrs` has an entry for every attribute of the op; `name` names its result."""

    op: str
    operands: tuple[Term, ...]
    attrs: tuple[tuple[str, Expression], ...]
    name: str = ""


Term = Tensor | Number | NumberVariable | Computed | Operation


@dataclass(frozen=True)
class Literal:
    value: Any


@dataclass(frozen=True)
class Name:
    """The value of an attribute or number variable."""

    name: str


@dataclass(frozen=True)
class Function:
    """A function of `effcc.passes.rules.functions`, applied."""

    function: str
    args: tuple[Expression, ...]


Expression = Literal | Name | Tensor | Function


@dataclass(frozen=True)
class Condition:
    name: str
    args: tuple[Expression, ...]
    negated: bool = False


@dataclass(frozen=True)
class Claim:
    """How close a replacement comes: `exact`, `reorders`, `reassociates`, or `approximate` to `ulp` units in the last
    place. See `effcc.passes.rules` for what each promises.
    """

    kind: str
    ulp: float = 0.0

    @property
    def is_safe(self) -> bool:
        """Whether it bounds the difference for all finite inputs; other rules wait for `fast_math`."""
        return self.kind != "reassociates"

    def __str__(self) -> str:
        return f"approximate({self.ulp:g} ulp)" if self.kind == "approximate" else self.kind


@dataclass(frozen=True)
class Rule:
    """`pattern => replacement` where `conditions` hold. `theme` is the file it stands in, `reason` the line above."""

    name: str
    claim: Claim
    pattern: Operation
    replacement: Term
    conditions: tuple[Condition, ...] = ()
    reason: str = ""
    theme: str = ""
    line: int = 0

    def __str__(self) -> str:
        text = f"rule {self.name} [{self.claim}]: {show(self.pattern)} => {show(self.replacement)}"
        shown = (
            f"{'not ' if c.negated else ''}{c.name}({', '.join(map(_show_expression, c.args))})"
            for c in self.conditions
        )
        return text + (f" if {', '.join(shown)}" if self.conditions else "")


@dataclass(frozen=True)
class RuleSet:
    """Rules, and the chains of `order:` lines: each op is written in terms of those after it, never the other way."""

    rules: tuple[Rule, ...]
    order: tuple[tuple[str, ...], ...] = ()

    def __add__(self, other: RuleSet) -> RuleSet:
        return RuleSet(self.rules + other.rules, self.order + other.order)


def operations(term: Term) -> Iterator[Operation]:
    """Every operation in a term, outermost first."""
    if isinstance(term, Operation):
        yield term
        for operand in term.operands:
            yield from operations(operand)


def variables(term: Term) -> Iterator[Tensor]:
    """Every occurrence of a tensor variable in a term, from left to right."""
    if isinstance(term, Tensor):
        yield term
    elif isinstance(term, Operation):
        for operand in term.operands:
            yield from variables(operand)


def show(term: Term) -> str:
    """The text of a term, as the grammar reads it back; attributes at their default are left out."""
    match term:
        case Tensor():
            return f"%{term.name}"
        case Number():
            return repr(term.value).removesuffix(".0") if term.value else str(term.value)
        case NumberVariable():
            return term.name
        case Computed():
            return "{" + _show_expression(term.value) + "}"
    defaults = lookup(term.op).attrs
    attrs = [f"{k}={_show_expression(v)}" for k, v in term.attrs if v != Literal(defaults[k])]
    braces = " {" + ", ".join(attrs) + "}" if attrs else ""
    label = f"%{term.name} = " if term.name else ""
    return f"{label}{term.op}({', '.join(map(show, term.operands))}){braces}"


def _show_expression(e: Expression) -> str:
    match e:
        case Tensor():
            return f"%{e.name}"
        case Name():
            return e.name
        case Function():
            return f"{e.function}({', '.join(map(_show_expression, e.args))})"
    if isinstance(e.value, tuple):
        return "(" + "".join(f"{_show_expression(Literal(v))}, " for v in e.value).rstrip() + ")"
    named = {None: "null", True: "true", False: "false"} if e.value is None or isinstance(e.value, bool) else {}
    return named.get(e.value) or (f'"{e.value}"' if isinstance(e.value, str) else f"{e.value}")
