"""The language of schedule constraints: integer expressions, comparisons between them, and problems.

A problem gives every *variable* a finite domain of integers and every *parameter* a number, and asks for the
assignments that satisfy all constraints, cheapest objective first. One table, `OPERATORS`, says what each operator of
the language means, how it is bounded when its arguments are only known to lie in intervals, and how it is spelled. All
arithmetic is exact.

    >>> mr, nr = Name("mr"), Name("nr")
    >>> print(mr * nr / 16 + nr / 16 + 1 <= 32)
    mr * nr / 16 + nr / 16 + 1 <= 32
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

Domain: TypeAlias = tuple[int, ...]
"""The values a variable may take, ascending and distinct."""


class Expr:
    """An integer expression; `+ - *`, `/` (rounding down) and `%` build larger ones, `<= >= < >` build constraints."""

    __slots__ = ()

    def __add__(self, other: ExprLike) -> Op:
        return Op("+", (self, expr(other)))

    def __radd__(self, other: int) -> Op:
        return Op("+", (expr(other), self))

    def __sub__(self, other: ExprLike) -> Op:
        return Op("-", (self, expr(other)))

    def __rsub__(self, other: int) -> Op:
        return Op("-", (expr(other), self))

    def __mul__(self, other: ExprLike) -> Op:
        return Op("*", (self, expr(other)))

    def __rmul__(self, other: int) -> Op:
        return Op("*", (expr(other), self))

    def __truediv__(self, other: ExprLike) -> Op:
        return Op("/", (self, expr(other)))

    def __mod__(self, other: ExprLike) -> Op:
        return Op("%", (self, expr(other)))

    def __le__(self, other: ExprLike) -> Compare:
        return Compare("<=", self, expr(other))

    def __ge__(self, other: ExprLike) -> Compare:
        return Compare(">=", self, expr(other))

    def __lt__(self, other: ExprLike) -> Compare:
        return Compare("<", self, expr(other))

    def __gt__(self, other: ExprLike) -> Compare:
        return Compare(">", self, expr(other))

    def equals(self, other: ExprLike) -> Compare:
        """The constraint `self == other` (`==` itself compares expressions as values)."""
        return Compare("==", self, expr(other))

    def __str__(self) -> str:
        return _print_expr(self, 0)


ExprLike: TypeAlias = Expr | int


@dataclass(frozen=True, slots=True)
class Number(Expr):
    """An integer literal."""

    value: int


@dataclass(frozen=True, slots=True)
class Name(Expr):
    """A variable or a parameter; which of the two is the problem's to say."""

    name: str


@dataclass(frozen=True, slots=True)
class Op(Expr):
    """An operator of `OPERATORS` applied to arguments. The hash is computed once, since expressions key the code
    cache.
    """

    kind: str
    args: tuple[Expr, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.kind, self.args)))

    def __hash__(self) -> int:
        return self._hash


def expr(value: ExprLike) -> Expr:
    """An integer as an expression; an expression as itself."""
    return Number(value) if isinstance(value, int) else value


def ceil_div(a: ExprLike, b: ExprLike) -> Op:
    """`ceil(a / b)`."""
    return Op("ceil", (expr(a), expr(b)))


def round_up(a: ExprLike, b: ExprLike) -> Op:
    """The least multiple of `b` that is at least `a`: `ceil(a / b) * b`, but with tighter bounds than the product."""
    return Op("round_up", (expr(a), expr(b)))


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: its value, and its bounds when the arguments lie in intervals.

    `lower` and `upper` are Python source in which `{0}`, `{1}` stand for the arguments' lower bounds and `{0h}`, `{1h}`
    for their upper bounds; they hold for arguments >= 0. `signed_lower` and `signed_upper` hold for any sign of the
    first two arguments (divisors are positive always). All four are exact when every argument is a single value. `min`
    and `max` take any number of arguments, which are combined two by two.
    """

    evaluate: Callable[..., int]
    lower: str
    upper: str
    signed_lower: str
    signed_upper: str
    precedence: int = 3
    nonnegative: bool = True
    """Whether the result is >= 0 when the arguments are."""


_LESS, _LESS_HIGH = "{0} if {0} < {1} else {1}", "{0h} if {0h} < {1h} else {1h}"
_MORE, _MORE_HIGH = "{0} if {0} > {1} else {1}", "{0h} if {0h} > {1h} else {1h}"

OPERATORS: Mapping[str, Operator] = {
    "+": Operator(operator.add, "{0} + {1}", "{0h} + {1h}", "{0} + {1}", "{0h} + {1h}", 1),
    "-": Operator(operator.sub, "{0} - {1h}", "{0h} - {1}", "{0} - {1h}", "{0h} - {1}", 1, nonnegative=False),
    "*": Operator(
        operator.mul,
        "{0} * {1}",
        "{0h} * {1h}",
        "min({0} * {1}, {0} * {1h}, {0h} * {1}, {0h} * {1h})",
        "max({0} * {1}, {0} * {1h}, {0h} * {1}, {0h} * {1h})",
        2,
    ),
    "/": Operator(
        operator.floordiv,
        "{0} // {1h}",
        "{0h} // {1}",
        "min({0} // {1h}, {0} // {1})",
        "max({0h} // {1}, {0h} // {1h})",
        2,
    ),
    "%": Operator(
        operator.mod,
        "mod_lower({0}, {0h}, {1}, {1h})",
        "mod_upper({0}, {0h}, {1}, {1h})",
        "mod_lower({0}, {0h}, {1}, {1h})",
        "mod_upper({0}, {0h}, {1}, {1h})",
        2,
    ),
    "ceil": Operator(
        lambda a, b: -(-a // b),
        "-(-{0} // {1h})",
        "-(-{0h} // {1})",
        "min(-(-{0} // {1h}), -(-{0} // {1}))",
        "max(-(-{0h} // {1}), -(-{0h} // {1h}))",
    ),
    "round_up": Operator(
        lambda a, b: -(-a // b) * b,
        "round_up_lower({0}, {1}, {1h})",
        "round_up_upper({0h}, {1}, {1h})",
        "round_up_lower({0}, {1}, {1h})",
        "round_up_upper({0h}, {1}, {1h})",
    ),
    "min": Operator(min, _LESS, _LESS_HIGH, _LESS, _LESS_HIGH),
    "max": Operator(max, _MORE, _MORE_HIGH, _MORE, _MORE_HIGH),
}


class Constraint:
    """A condition on the variables; `|` is *or*, `&` is *and*."""

    __slots__ = ()

    def __or__(self, other: Constraint) -> AnyOf:
        return AnyOf((self, other))

    def __and__(self, other: Constraint) -> AllOf:
        return AllOf((self, other))


@dataclass(frozen=True, slots=True)
class Compare(Constraint):
    """`lhs relation rhs`, the relation one of `<= >= < > ==`. Divisibility is `x % k == 0`."""

    relation: str
    lhs: Expr
    rhs: Expr

    def __str__(self) -> str:
        return f"{self.lhs} {self.relation} {self.rhs}"


@dataclass(frozen=True, slots=True)
class AnyOf(Constraint):
    """At least one of the parts holds. Parts that are `AnyOf` themselves are written out."""

    parts: tuple[Constraint, ...]

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "parts", tuple(q for p in self.parts for q in (p.parts if isinstance(p, AnyOf) else (p,)))
        )

    def __str__(self) -> str:
        return " or ".join(str(p) for p in self.parts)


@dataclass(frozen=True, slots=True)
class AllOf(Constraint):
    """All of the parts hold. Parts that are `AllOf` themselves are written out."""

    parts: tuple[Constraint, ...]

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "parts", tuple(q for p in self.parts for q in (p.parts if isinstance(p, AllOf) else (p,)))
        )

    def __str__(self) -> str:
        return " and ".join(str(p) if isinstance(p, Compare) else f"({p})" for p in self.parts)


def divisible(a: ExprLike, k: ExprLike) -> Compare:
    """The constraint `a % k == 0`."""
    return (expr(a) % k).equals(0)


@dataclass(frozen=True, slots=True)
class Problem:
    """Choose one value for each variable so that all constraints hold and the objective is least.

    `domains` is ordered: earlier variables are branched on first, and among assignments of equal cost the
    lexicographically smallest (in this order) comes first.
    """

    domains: Mapping[str, Domain]
    constraints: tuple[Constraint, ...]
    objective: Expr = Number(0)
    parameters: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[Constraint, str] = field(default_factory=dict)
    """Constraints as somebody wrote them, for messages; the others are printed."""

    def text(self, c: Constraint) -> str:
        """A constraint as it was written."""
        return self.texts.get(c, str(c))

    def explain(self, values: Mapping[str, int]) -> tuple[str, ...]:
        """Every constraint with what its sides come to, for a full assignment: `a + b <= limit    # 29 <= 32`."""
        names = {**self.parameters, **values}
        known: dict[Expr, int] = {}
        return tuple(f"{self.text(c)}    # {_with_numbers(c, names, known)}" for c in self.constraints)


def evaluate(e: Expr, values: Mapping[str, int], known: dict[Expr, int] | None = None) -> int:
    """The value of an expression when every name in it has the value given.

    `known` keeps the values of subexpressions, for several expressions over the same values that share them.
    """
    known = {} if known is None else known
    match e:
        case Number(value):
            return value
        case Name(name):
            return values[name]
        case Op(kind, args):
            if e not in known:
                known[e] = OPERATORS[kind].evaluate(*(evaluate(a, values, known) for a in args))
            return known[e]
    raise TypeError(f"not an expression: {e!r}")


def _with_numbers(c: Constraint, names: Mapping[str, int], known: dict[Expr, int]) -> str:
    match c:
        case Compare(relation, lhs, rhs):
            return f"{evaluate(lhs, names, known)} {relation} {evaluate(rhs, names, known)}"
        case AnyOf(parts):
            return " or ".join(_with_numbers(p, names, known) for p in parts)
        case AllOf(parts):
            return " and ".join(_with_numbers(p, names, known) for p in parts)
    raise TypeError(f"not a constraint: {c!r}")


_RELATIONS: Mapping[str, Callable[[int, int], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}


def holds(c: Constraint, values: Mapping[str, int]) -> bool:
    """Whether a constraint is true when every name in it has the value given."""
    match c:
        case Compare(relation, lhs, rhs):
            return _RELATIONS[relation](evaluate(lhs, values), evaluate(rhs, values))
        case AnyOf(parts):
            return any(holds(p, values) for p in parts)
        case AllOf(parts):
            return all(holds(p, values) for p in parts)
    raise TypeError(f"not a constraint: {c!r}")


@lru_cache(maxsize=4096)
def names_in(node: Expr | Constraint) -> frozenset[str]:
    """Every name that occurs in an expression or constraint."""
    match node:
        case Name(name):
            return frozenset((name,))
        case Op(_, children) | AnyOf(children) | AllOf(children):
            return frozenset().union(*(names_in(c) for c in children))
        case Compare(_, lhs, rhs):
            return names_in(lhs) | names_in(rhs)
    return frozenset()


@lru_cache(maxsize=4096)
def divisors_in(node: Expr | Constraint) -> frozenset[Expr]:
    """Every expression that `node` divides by, at any depth; each must be positive wherever `node` is evaluated."""
    match node:
        case Op(kind, args):
            inner: frozenset[Expr] = frozenset().union(*(divisors_in(a) for a in args))
            return inner | {args[1]} if kind in ("/", "%", "ceil", "round_up") else inner
        case Compare(_, lhs, rhs):
            return divisors_in(lhs) | divisors_in(rhs)
        case AnyOf(parts) | AllOf(parts):
            return frozenset().union(*(divisors_in(p) for p in parts))
    return frozenset()


def _print_expr(e: Expr, parent: int) -> str:
    match e:
        case Number(value):
            return str(value) if value >= 0 or parent == 0 else f"({value})"
        case Name(name):
            return name
        case Op("ceil", (a, b)):
            return f"ceil({_print_expr(a, 2)} / {_print_expr(b, 3)})"
        case Op(kind, args) if OPERATORS[kind].precedence == 3:
            return f"{kind}({', '.join(_print_expr(a, 0) for a in args)})"
        case Op(kind, (a, b)):
            level = OPERATORS[kind].precedence
            text = f"{_print_expr(a, level)} {kind} {_print_expr(b, level + 1)}"
            return f"({text})" if level < parent else text
    raise TypeError(f"not an expression: {e!r}")
