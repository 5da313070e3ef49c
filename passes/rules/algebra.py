"""Scalar rules read as identities over the reals, and put to sympy.

Instances show what rounding and special values do to a rule; algebra shows that it is no coincidence. A rule can be
read this way when its ops are arithmetic on single elements. `Verdict` says which of the three it is: `proved`,
`refuted` (with a point where the sides differ), or `undecided`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import sympy

from effcc.passes.rules.language import (
    Computed,
    Expression,
    Function,
    Literal,
    Name,
    Number,
    NumberVariable,
    Operation,
    Rule,
    Tensor,
    Term,
    operations,
)


def _gelu(x: Any, approximate: str) -> Any:
    if approximate == "tanh":
        inner = sympy.sqrt(2 / sympy.pi) * (x + sympy.Rational(44715, 1000000) * x**3)
        return x / 2 * (1 + sympy.tanh(inner))
    return x / 2 * (1 + sympy.erf(x / sympy.sqrt(2)))


OPS: Mapping[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "neg": lambda x: -x,
    "abs": sympy.Abs,
    "reciprocal": lambda x: 1 / x,
    "sqrt": sympy.sqrt,
    "rsqrt": lambda x: 1 / sympy.sqrt(x),
    "pow": lambda x, y: x**y,
    "exp": sympy.exp,
    "erf": sympy.erf,
    "tanh": sympy.tanh,
    "sigmoid": lambda x: 1 / (1 + sympy.exp(-x)),
    "silu": lambda x: x / (1 + sympy.exp(-x)),
    "gelu": _gelu,
    "relu": lambda x: sympy.Max(x, 0),
    "maximum": sympy.Max,
    "minimum": sympy.Min,
    "eq": sympy.Eq,
    "ne": sympy.Ne,
    "lt": sympy.Lt,
    "le": sympy.Le,
    "gt": sympy.Gt,
    "ge": sympy.Ge,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "times": lambda a, b: a * b,
    "plus": lambda a, b: a + b,
    "inverse": lambda a: 1 / a,
    "larger": sympy.Max,
    "smaller": sympy.Min,
}
_LOGIC: Mapping[str, Callable[..., Any]] = {"not": sympy.Not, "and": sympy.And, "or": sympy.Or}
_ROOTS = [sympy.sqrt(2), sympy.sqrt(2 / sympy.pi)]  # what decimal constants in rules are close to
_NOT_BELOW_ZERO = ("nonnegative", "counter")
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Verdict:
    """`proved`, `refuted` or `undecided`; for `refuted`, the point and what the sides are there."""

    outcome: str
    witness: str = ""


def decide(rule: Rule) -> Verdict | None:
    """Whether both sides are equal over the reals; None for a rule that is not about single elements."""
    terms = [*operations(rule.pattern), *operations(rule.replacement)]
    logical = any(o.op in _LOGIC for o in terms)
    if not all(o.op in (OPS if not logical else {**OPS, **_LOGIC}) for o in terms):
        return None
    boolean_leaves = logical and not any(o.op in OPS for o in terms)
    bound = {a.name for c in rule.conditions if c.name in _NOT_BELOW_ZERO for a in c.args if isinstance(a, Tensor)}

    def symbol(name: str) -> Any:
        if boolean_leaves:
            return sympy.Symbol(name)
        return sympy.Symbol(name, real=True, nonnegative=True if name in bound else None)

    try:
        left, right = (_read(t, symbol) for t in (rule.pattern, rule.replacement))
    except KeyError:
        return None
    if logical or isinstance(left, sympy.logic.boolalg.Boolean):
        left, right = (sympy.true if side == 1 else sympy.false if side == 0 else side for side in (left, right))
        return Verdict("proved" if sympy.simplify(sympy.Equivalent(left, right)) == sympy.true else "undecided")
    witness = _difference(left, right)
    if witness:
        return Verdict("refuted", witness)
    return Verdict("proved" if sympy.simplify(sympy.nsimplify(left - right, tolerance=1e-14)) == 0 else "undecided")


def _read(term: Term, symbol: Callable[[str], Any]) -> Any:
    """A term as a sympy expression; KeyError for what has no counterpart."""
    match term:
        case Tensor():
            return symbol(term.name)
        case NumberVariable():
            return sympy.Symbol(term.name, real=True, nonzero=True)
        case Number():
            return sympy.nsimplify(term.value, _ROOTS) if term.value else sympy.Integer(0)
        case Computed():
            return _value(term.value)
        case Operation():
            attrs = {name: e.value for name, e in term.attrs if isinstance(e, Literal)}
            return {**OPS, **_LOGIC}[term.op](*(_read(o, symbol) for o in term.operands), **attrs)


def _value(e: Expression) -> Any:
    match e:
        case Name():
            return sympy.Symbol(e.name, real=True, nonzero=True)
        case Literal():
            return sympy.sympify(e.value)
        case Function():
            return _FUNCTIONS[e.function](*map(_value, e.args))
    raise KeyError(e)


def _difference(left: Any, right: Any) -> str:
    """A point where the two sides differ, in words; empty if none of a few random ones is."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=lambda s: s.name)
    random = Random(0)
    for _ in range(8):
        point = {s: sympy.Rational(random.randint(1, 400), 100) * random.choice([1, -1]) for s in symbols}
        point = {s: abs(v) if s.is_nonnegative else v for s, v in point.items()}
        a, b = (sympy.N(side.subs(point), 30) for side in (left, right))
        if a.is_real and b.is_real and abs(a - b) > _TOLERANCE * max(1, abs(a)):
            at = ", ".join(f"{s} = {float(v):g}" for s, v in point.items())
            return f"at {at} the pattern is {float(a):g}, the replacement {float(b):g}"
    return ""
