"""Interval bounds of expressions, as generated Python functions.

The solver asks for the same bounds thousands of times, so each is compiled once: `bound(expr, side, ...)` gives a
function of two lists, the variables' lower and upper bounds, that returns a lower (or upper) bound of the expression
over that box. The bound is exact where every variable is a single value. The source depends on the structure alone;
numbers are bound later, so that the thousandth problem of a kind compiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from effcc.passes.tiling.constraints import OPERATORS, Expr, Name, Number, Op, names_in

Side: TypeAlias = Literal["lower", "upper"]
BoundFunction: TypeAlias = Callable[[Sequence[int], Sequence[int]], int]


@dataclass(frozen=True, slots=True)
class Bound:
    """A compiled bound, and which ends of which variables' intervals (by index) it reads."""

    function: BoundFunction
    reads_lower: frozenset[int]
    reads_upper: frozenset[int]


def bound(
    e: Expr, side: Side, variables: tuple[str, ...], parameters: Mapping[str, int], signed: frozenset[str] = frozenset()
) -> Bound:
    """Compile the lower or upper bound of `e`.

    Args:
        e: the expression; every name in it is in `variables` or in `parameters`.
        side: which bound.
        variables: names in the order of the lists that the function will take.
        parameters: values of the other names.
        signed: names that may be negative.
    """
    factory = _factory(e, side, variables, signed)
    return Bound(factory.make(*(parameters[n] for n in factory.parameters)), factory.reads_lower, factory.reads_upper)


@dataclass(frozen=True, slots=True)
class _Factory:
    make: Callable[..., BoundFunction]
    parameters: tuple[str, ...]
    reads_lower: frozenset[int]
    reads_upper: frozenset[int]


@lru_cache(maxsize=4096)
def _factory(e: Expr, side: Side, variables: tuple[str, ...], signed: frozenset[str]) -> _Factory:
    writer = _Writer({name: i for i, name in enumerate(variables)}, signed)
    result = writer.emit(e, side)
    lower, upper = sorted(writer.reads_lower), sorted(writer.reads_upper)
    reads = [f"a{i} = lo[{i}]" for i in lower] + [f"b{i} = hi[{i}]" for i in upper]
    once = "".join(f"    {line}\n" for line in writer.once)
    body = "\n        ".join([*reads, *writer.lines, f"return {result}"])
    parameters = tuple(writer.parameters)
    arguments = ", ".join(f"p{i}" for i in range(len(parameters)))
    source = f"def make({arguments}):\n{once}    def bound(lo, hi):\n        {body}\n    return bound\n"
    scope: dict[str, Any] = dict(_SCOPE)
    exec(compile(source, f"<bound of {str(e)[:60]}>", "exec"), scope)
    return _Factory(scope["make"], parameters, frozenset(lower), frozenset(upper))


class _Writer:
    """Emits one assignment per (shared subexpression, side): those of parameters alone are made `once` a problem, the
    other `lines` at every box."""

    def __init__(self, variables: Mapping[str, int], signed: frozenset[str]) -> None:
        self.variables = variables
        self.signed = signed
        self.once: list[str] = []
        self.lines: list[str] = []
        self.parameters: dict[str, str] = {}
        self.reads_lower: set[int] = set()
        self.reads_upper: set[int] = set()
        self._done: dict[tuple[Op, Side], str] = {}
        self._nonnegative: dict[Op, bool] = {}

    def emit(self, e: Expr, side: Side) -> str:
        match e:
            case Number(value):
                return str(value) if value >= 0 else f"({value})"
            case Name(name) if name in self.variables:
                index = self.variables[name]
                (self.reads_lower if side == "lower" else self.reads_upper).add(index)
                return f"{'a' if side == 'lower' else 'b'}{index}"
            case Name(name):
                return self.parameters.setdefault(name, f"p{len(self.parameters)}")
            case Op("min" | "max", (only,)):
                return self.emit(only, side)
            case Op("min" | "max" as kind, (*first, second, last)) if first:
                return self.emit(Op(kind, (Op(kind, (*first, second)), last)), side)
            case Op():
                if names_in(e).isdisjoint(self.variables):
                    side = "lower"  # which is its value
                if (e, side) not in self._done:
                    self._done[e, side] = self._emit_op(e, side)
                return self._done[e, side]
        raise TypeError(f"not an expression: {e!r}")

    def _emit_op(self, e: Op, side: Side) -> str:
        op = OPERATORS[e.kind]
        if all(self.nonnegative(a) for a in e.args):
            template = op.lower if side == "lower" else op.upper
        else:
            template = op.signed_lower if side == "lower" else op.signed_upper
        holes: dict[str, str] = {}
        for i, a in enumerate(e.args):
            if f"{{{i}h}}" in template:
                holes[f"{i}h"] = self.emit(a, "upper")
            if f"{{{i}}}" in template:
                holes[str(i)] = self.emit(a, "lower")
        for hole, text in holes.items():
            template = template.replace(f"{{{hole}}}", text)
        known = names_in(e).isdisjoint(self.variables)
        lines, name = (self.once, f"c{len(self.once)}") if known else (self.lines, f"t{len(self.lines)}")
        lines.append(f"{name} = {template}")
        return name

    def nonnegative(self, e: Expr) -> bool:
        match e:
            case Number(value):
                return value >= 0
            case Name(name):
                return name not in self.signed
            case Op(kind, args):
                if e not in self._nonnegative:
                    known = kind in ("%",) or (OPERATORS[kind].nonnegative and all(self.nonnegative(a) for a in args))
                    self._nonnegative[e] = known or (kind == "max" and any(self.nonnegative(a) for a in args))
                return self._nonnegative[e]
        raise TypeError(f"not an expression: {e!r}")


def _mod_lower(a: int, ah: int, b: int, bh: int) -> int:
    if b == bh:
        return a % b if a // b == ah // b else 0
    return a if a >= 0 and ah < b else 0


def _mod_upper(a: int, ah: int, b: int, bh: int) -> int:
    if b == bh:
        return ah % b if a // b == ah // b else b - 1
    return min(ah, bh - 1) if a >= 0 else bh - 1


def _round_up_lower(a: int, b: int, bh: int) -> int:
    if b == bh:
        return -(-a // b) * b
    return max(a, b) if a > 0 else a


def _round_up_upper(a: int, b: int, bh: int) -> int:
    if b == bh:
        return -(-a // b) * b
    return a + bh - 1


_SCOPE = {
    "mod_lower": _mod_lower,
    "mod_upper": _mod_upper,
    "round_up_lower": _round_up_lower,
    "round_up_upper": _round_up_upper,
    "__builtins__": {"min": min, "max": max},
}
