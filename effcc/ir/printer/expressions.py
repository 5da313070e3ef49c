"""Scalar expressions as text: infix where a formula would be, with the fewest parentheses.

    S[m,n] - M[m]      cast<f32>(X[i])      where(i > 0, X[i - 1], 0.0)      sum(n: P[m,n] * V[n,f]) rescale C[m]

A constant is written bare where the parser finds its dtype from what stands beside it, else as `f16(0.5)`; the rule is
in `literal_dtype` and `group_dtype`, which the parser mirrors.
"""

from __future__ import annotations

import math
from collections.abc import Set

import sympy

from effcc.ir.dims import show
from effcc.ir.dtypes import DType, boolean, f32, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, Size, Span
from effcc.ir.scalars import CHECKS, FUNCTIONS, alike

OR, AND, COMPARISON, SUM, PRODUCT, UNARY, ATOM = range(1, 8)
INFIX: dict[str, tuple[str, int]] = {
    "or": ("or", OR), "and": ("and", AND),
    "eq": ("==", COMPARISON), "ne": ("!=", COMPARISON), "lt": ("<", COMPARISON), "le": ("<=", COMPARISON),
    "gt": (">", COMPARISON), "ge": (">=", COMPARISON),
    "add": ("+", SUM), "sub": ("-", SUM),
    "mul": ("*", PRODUCT), "div": ("/", PRODUCT), "floordiv": ("//", PRODUCT), "mod": ("%", PRODUCT),
}  # fmt: skip
"""Scalar functions written between their operands: the sign and how tightly it binds."""


def accumulator(operator: str, body: DType) -> DType:
    """The accumulator's dtype of a reduction that does not write one: wide for sums and products, else the body's."""
    return body.accumulator if operator in ("sum", "prod") else body


def literal_dtype(value: object) -> DType:
    """The dtype of a bare literal that nothing beside it decides."""
    if isinstance(value, bool):
        return boolean
    return i64 if isinstance(value, int) else f32


def show_expression(e: Expr, axes: Set[str] = frozenset(), expected: DType | None = None) -> str:
    """The text of `e`. `axes` are the names that mean axes here; `expected` is the dtype that its place decides."""
    return _Writer(axes).write(e, 0, expected)


def show_index(index: tuple[Expr, ...], axes: Set[str] = frozenset()) -> str:
    """`[i,j + 1]`: an index list, without spaces after its commas."""
    return "[" + ",".join(show_expression(i, axes, i64) for i in index) + "]"


def show_span(span: Span, axes: Set[str] = frozenset()) -> str:
    """`P[g]..P[g + 1]`."""
    return _Writer(axes).span(span)


def show_number(value: float | int | bool) -> str:
    """A literal: `true`, `-3`, `0.5`, `1e-05`, `inf`, `nan`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return repr(value)


def self_typed(e: Expr) -> bool:
    """Whether the text of `e` shows its dtype without help from outside (a bare number does not)."""
    match e:
        case Const():
            return e.dtype == boolean
        case Call(function="cast"):
            return True
        case Call():
            return not _like_operands(e) or any(self_typed(o) for o in _group(e))
    return True


def group_dtype(e: Call, expected: DType | None) -> DType | None:
    """The dtype that `e`'s like-typed operands are read with, if one operand or the place of `e` decides it."""
    for operand in _group(e):
        if self_typed(operand):
            return operand.dtype
    return expected if _like_operands(e) else None


def _like_operands(e: Call) -> bool:
    known = FUNCTIONS.get(e.function) or CHECKS.get(e.function)
    return known is not None and known.result == "same"


def _group(e: Call) -> tuple[Expr, ...]:
    return tuple(alike(e.function, e.operands))


class _Writer:
    def __init__(self, axes: Set[str]) -> None:
        self.axes = axes

    def write(self, e: Expr, level: int, expected: DType | None = None) -> str:
        """The text of `e`, in parentheses if it binds less tightly than `level`."""
        match e:
            case Const():
                text = self._constant(e, expected)
                return self._bracket(text, UNARY if text.startswith("-") else ATOM, level)
            case Axis():
                return e.name
            case Size():
                return self._size(e)
            case Load():
                return e.written + show_index(e.index, self.axes)
            case Reduce():
                return self._reduce(e)
            case Call(function="cast", operands=(operand,)):
                return f"cast<{e.dtype.name}>({self.write(operand, 0)})"
        return self._call(e, level, group_dtype(e, expected))

    def _constant(self, e: Const, expected: DType | None) -> str:
        value = float(e.value) if e.dtype.is_float else bool(e.value) if e.dtype == boolean else int(e.value)
        text = show_number(value)
        bare = e.dtype == (expected or literal_dtype(value)) and (e.dtype != boolean or isinstance(value, bool))
        return text if bare else f"{e.dtype.name}({text})"

    def _size(self, e: Size) -> str:
        text = show(e.value)
        bare = isinstance(e.value, sympy.Symbol) and text not in self.axes and e.dtype == i64
        if bare:
            return text
        return f"size({text})" if e.dtype == i64 else f"size<{e.dtype.name}>({text})"

    def _reduce(self, e: Reduce) -> str:
        name = e.operator if e.dtype == accumulator(e.operator, e.body.dtype) else f"{e.operator}<{e.dtype.name}>"
        inner = _Writer(self.axes | set(e.axes))
        ends = {s.axis: f" in {self.span(s)}" for s in e.spans}
        over = ", ".join(a + ends.get(a, "") for a in e.axes)
        text = f"{name}({over}: {inner.write(e.body, 0)})"
        return text if e.rescale is None else f"{text} rescale {self.write(e.rescale, ATOM, e.dtype)}"

    def span(self, s: Span) -> str:
        return f"{self.write(s.start, SUM, i64)}..{self.write(s.stop, SUM, i64)}"

    def _call(self, e: Call, level: int, like: DType | None) -> str:
        if e.function == "neg" and not isinstance(e.operands[0], Const):
            return self._bracket("-" + self.write(e.operands[0], UNARY, like), UNARY, level)
        if e.function in INFIX and len(e.operands) == 2 and not _is_index_difference(e):
            return self._infix(e, level, like)
        expectations = [like] * len(e.operands)
        if e.function == "where":
            expectations[0] = boolean
        elif e.function in CHECKS:
            expectations[-1] = i64
        shown = (self.write(o, 0, d) for o, d in zip(e.operands, expectations, strict=True))
        return f"{e.function}({', '.join(shown)})"

    def _infix(self, e: Call, level: int, like: DType | None) -> str:
        sign, strength = INFIX[e.function]
        left, right = e.operands
        first = self.write(left, strength + (strength == COMPARISON), like)
        if e.function == "add" and e.dtype == i64 and isinstance(right, Const) and right.value < 0:
            return self._bracket(f"{first} - {-right.value}", strength, level)
        return self._bracket(f"{first} {sign} {self.write(right, strength + 1, like)}", strength, level)

    @staticmethod
    def _bracket(text: str, strength: int, level: int) -> str:
        return f"({text})" if strength < level else text


def _is_index_difference(e: Call) -> bool:
    """`sub(i, 1)` on indices stays a call, because `i - 1` is read as `add(i, -1)`, the canonical form."""
    return e.function == "sub" and e.dtype == i64 and isinstance(e.operands[1], Const)
