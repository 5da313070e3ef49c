"""Scalar expressions: what stands on the right of a cascade's statement, and in a tile of the loop language.

    Const | Axis | Size | Load(buffer, index) | Call(function, operands) | Reduce(operator, axes, body, spans)

Every expression has a dtype. Index expressions are expressions of dtype i64. `Call` names a function of
`effcc.ir.scalars`; the two structural ones are `where(c, a, b)`, which evaluates only the chosen branch (so a guarded
load is `where(inside, X[i - 1], 0)`), and `cast`, whose result dtype is the node's own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from effcc.ir.dims import Dim, dim
from effcc.ir.dtypes import DType, boolean, f32, i64

Scalar = int | float | bool


@dataclass(frozen=True)
class Const:
    value: Scalar
    dtype: DType

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Const) or self.dtype != other.dtype:
            return False
        return _bits(self.value) == _bits(other.value)

    def __hash__(self) -> int:
        return hash((_bits(self.value), self.dtype))


@dataclass(frozen=True)
class Axis:
    """The value of a loop axis at the current point, or in loops of a loop variable."""

    name: str
    dtype: DType = i64


@dataclass(frozen=True)
class Size:
    """A (symbolic) size, as a value; as f64 a number made of sizes (`effcc.ir.size_functions`)."""

    value: Dim
    dtype: DType = i64


@dataclass(frozen=True)
class Load:
    """An element of a buffer: a parameter, an earlier statement's result, or a local buffer in loops.

    before: of a running reduction, its value before the turn (written `M'`), not the one after.
    """

    buffer: str
    index: tuple[Expr, ...]
    dtype: DType
    before: bool = False

    @property
    def written(self) -> str:
        """Its buffer's name as text has it."""
        return f"{self.buffer}'" if self.before else self.buffer


@dataclass(frozen=True)
class Call:
    function: str
    operands: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True)
class Span:
    """The points `start` up to `stop` of a ragged axis: data, read at points of other axes.

    `j in P[i]..P[i + 1]` are the positions of row i in a compressed matrix, of group i's tokens, of sequence i. What
    lies outside of the axis is left out, and a span that stops before it starts is empty.
    """

    axis: str
    start: Expr
    stop: Expr


@dataclass(frozen=True)
class Reduce:
    """`operator(axes: body)`; empty axes' domains give the operator's identity. `dtype` is the accumulator's type.

    An axis ranges over its whole extent, or over its span where it has one.

    `rescale` makes it an online reduction (FuseMax, arXiv:2406.10491): it is evaluated tile by tile together with the
    running reduction whose buffer it names, and before each new tile the accumulator is multiplied by `rescale`, in
    which the load of M `before` is the running value before the tile, and the other load of M the one after.
    """

    operator: str
    axes: tuple[str, ...]
    body: Expr
    dtype: DType
    rescale: Expr | None = None
    spans: tuple[Span, ...] = ()


Expr = Const | Axis | Size | Load | Call | Reduce
_LEAVES = frozenset((Const, Axis, Size))
"""Expressions without subexpressions."""


def _bits(value: Scalar) -> tuple[str, str]:
    if isinstance(value, float):
        return ("f", "nan" if math.isnan(value) else value.hex())
    return (type(value).__name__, str(value))


def integer(value: Dim) -> Expr:
    """An index constant: Const for an int, Size for a symbolic size."""
    value = dim(value)
    return Const(value, i64) if isinstance(value, int) else Size(value)


def add(a: Expr, b: Expr) -> Expr:
    """a + b on indices, folded where both are constants or one is zero."""
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(a.value + b.value, i64)
    if isinstance(a, Const):
        a, b = b, a
    if isinstance(b, Const):
        if b.value == 0:
            return a
        if isinstance(a, Call) and a.function == "add" and isinstance(a.operands[1], Const):
            return add(a.operands[0], add(a.operands[1], b))
        return Call("add", (a, b), i64)
    return _recombined(a, b) or Call("add", (a, b), i64)


def summands(e: Expr) -> list[Expr]:
    """The terms of a sum, from left to right."""
    match e:
        case Call("add", (a, b)):
            return summands(a) + summands(b)
    return [e]


def _recombined(a: Expr, b: Expr) -> Expr | None:
    """a + b where one has the quotient `q // c * c` and the other the remainder `q % c` of one division: q in both's
    place. Views of views divide and multiply again; each time the index would double in length.
    """
    left, right = summands(a), summands(b)
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            whole = _undivided(one, other) or _undivided(other, one)
            if whole is not None:
                rest = left[:i] + left[i + 1 :] + right[:j] + right[j + 1 :]
                return functools.reduce(add, [*rest[:i], whole, *rest[i:]])
    return None


def _undivided(quotient: Expr, remainder: Expr) -> Expr | None:
    """`q * k` where the terms are `q // c * (c * k)` and `q % c * k`."""
    (upper, above), (lower, below) = _factor(quotient), _factor(remainder)
    match upper, lower:
        case Call("floordiv", (q, Const(value=c))), Call("mod", (p, Const(value=d))):
            return multiply(q, Const(below, i64)) if c == d and above == c * below and q == p else None
    return None


def _factor(term: Expr) -> tuple[Expr, int]:
    """A term as an expression and the constant that it is multiplied by."""
    match term:
        case Call("mul", (inner, Const(value=v))):
            return inner, int(v)
    return term, 1


def multiply(a: Expr, b: Expr) -> Expr:
    """a * b on indices, folded where a factor is a constant 0 or 1 or both are constants; (x + 2) * 3 is x * 3 + 6."""
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(a.value * b.value, i64)
    if isinstance(a, Const):
        a, b = b, a
    if isinstance(b, Const) and b.value in (0, 1):
        return a if b.value == 1 else b
    match a, b:
        case Call("add", (x, Const(value=v))), Const(value=factor):
            return add(multiply(x, b), Const(v * factor, i64))
    return Call("mul", (a, b), i64)


def floor_div(a: Expr, b: Expr) -> Expr:
    """floor(a / b) on indices, b > 0; what b divides is taken out, and two divisions are one."""
    if isinstance(b, Const):
        if b.value == 1:
            return a
        if isinstance(a, Const):
            return Const(a.value // b.value, i64)
    match a, b:
        case Call("add", (x, Const(value=v))), Const(value=c) if v % c == 0:
            return add(floor_div(x, b), Const(v // c, i64))
        case Call("floordiv", (x, Const(value=d))), Const(value=c):
            return floor_div(x, Const(c * d, i64))
    return Call("floordiv", (a, b), i64)


def modulo(a: Expr, b: Expr) -> Expr:
    """a - b * floor(a / b) on indices, b > 0; what b divides is left out."""
    if isinstance(b, Const):
        if b.value == 1:
            return Const(0, i64)
        if isinstance(a, Const):
            return Const(a.value % b.value, i64)
    match a, b:
        case Call("add", (x, Const(value=v))), Const(value=c) if v % c == 0:
            return modulo(x, b)
    return Call("mod", (a, b), i64)


def compare(function: str, a: Expr, b: Expr) -> Expr:
    """A comparison (`lt`, `le`, `ge`, ...) of two indices."""
    return Call(function, (a, b), boolean)


def both(*conditions: Expr) -> Expr:
    """The conjunction of conditions; True for none."""
    if not conditions:
        return Const(True, boolean)
    result = conditions[0]
    for condition in conditions[1:]:
        result = Call("and", (result, condition), boolean)
    return result


def where(condition: Expr, a: Expr, b: Expr) -> Expr:
    return Call("where", (condition, a, b), a.dtype)


def cast(value: Expr, to: DType) -> Expr:
    if value.dtype == to:
        return value
    if isinstance(value, Const) and to == f32 and isinstance(value.value, int):
        return Const(float(value.value), to)
    return Call("cast", (value,), to)


def children(e: Expr) -> tuple[Expr, ...]:
    """The direct subexpressions (a load's are its indices; a reduction's its body, the ends of its spans, and its
    rescale factor).
    """
    if type(e) is Call:  # not by patterns: most of the time that fusion takes is spent in here
        return e.operands
    if type(e) is Load:
        return e.index
    if type(e) is Reduce:
        ends = tuple(end for span in e.spans for end in (span.start, span.stop))
        return (e.body, *ends) if e.rescale is None else (e.body, *ends, e.rescale)
    return ()


def rebuild(e: Expr, parts: tuple[Expr, ...]) -> Expr:
    """`e` with its direct subexpressions replaced."""
    match e:
        case Load():
            return e if parts == e.index else Load(e.buffer, parts, e.dtype)
        case Call():
            return e if parts == e.operands else Call(e.function, parts, e.dtype)
        case Reduce():
            ends = zip(e.spans, parts[1::2], parts[2::2], strict=False)
            spans = tuple(Span(span.axis, start, stop) for span, start, stop in ends)
            return replace(e, body=parts[0], spans=spans, rescale=None if e.rescale is None else parts[-1])
    return e


def transform(e: Expr, f: Callable[[Expr], Expr]) -> Expr:
    """`e` rebuilt bottom-up with `f` applied to every node."""
    parts = children(e)
    if not parts:
        return f(e)
    fresh = tuple([transform(p, f) for p in parts])
    return f(e if fresh == parts else rebuild(e, fresh))


def walk(e: Expr) -> Iterator[Expr]:
    """Every node of `e`, parents first."""
    pending = [e]
    while pending:
        node = pending.pop()
        yield node
        if type(node) not in _LEAVES:
            pending.extend(reversed(children(node)))


def loads(e: Expr) -> list[Load]:
    """Every load in `e`, in the order of the text."""
    return [node for node in walk(e) if isinstance(node, Load)]


def free_axes(e: Expr) -> frozenset[str]:
    """The axes that occur in `e` and are not bound by a reduction inside it."""
    found: set[str] = set()
    pending = [e]
    while pending:
        node = pending.pop()
        if type(node) is Axis:
            found.add(node.name)
        elif type(node) is Reduce:
            found.update(frozenset[str]().union(*map(free_axes, children(node))).difference(node.axes))
        elif type(node) not in _LEAVES:
            pending.extend(children(node))
    return frozenset(found)


def ends_at(span: Span) -> frozenset[str]:
    """The axes at whose points a span is read."""
    return free_axes(span.start) | free_axes(span.stop)


def substitute_axes(e: Expr, replacement: Mapping[str, Expr]) -> Expr:
    """`e` with free axes replaced. A reduction's own axes must not occur in the replacements (rename them first)."""
    if isinstance(e, Axis):
        return replacement.get(e.name, e)
    if isinstance(e, Reduce):
        replacement = {k: v for k, v in replacement.items() if k not in e.axes}
    parts = children(e)
    if not parts or not replacement:
        return e
    fresh = tuple(substitute_axes(p, replacement) for p in parts)
    return refold(rebuild(e, fresh)) if fresh != parts else e


def refold(e: Expr) -> Expr:
    """Index arithmetic folded again after a substitution."""
    if isinstance(e, Call) and e.dtype == i64 and len(e.operands) == 2:
        fold = {"add": add, "mul": multiply, "floordiv": floor_div, "mod": modulo}.get(e.function)
        if fold is not None:
            return fold(*e.operands)
    return e
