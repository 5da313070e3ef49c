"""Sizes: Python integers where known, sympy expressions over size symbols (`s0`, `2*s0 + 1`) where not.

Arithmetic stays on plain integers whenever it can, because sympy costs microseconds per operation and a model has
thousands of sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TypeAlias

import sympy
from sympy.printing.str import StrPrinter

from effcc.ir.size_division import has_division, normal_divisions
from effcc.ir.size_functions import compute, is_real
from effcc.ir.size_table import Number

Dim: TypeAlias = int | sympy.Expr
Shape = tuple[Dim, ...]


def dim(value: object) -> Dim:
    """`value` as a Dim: ints and constant expressions become int, everything else a sympy expression.

    Its divisions come in the one form of `effcc.ir.size_division`, so that equal sizes look alike.
    """
    if isinstance(value, int):
        return value
    expression = sympy.sympify(value)
    if not expression.is_Symbol and has_division(expression):
        expression = normal_divisions(expression)
    return int(expression) if expression.is_Integer else expression


def number(value: object) -> Number | sympy.Expr:
    """`value`, a Python or sympy number or an expression of sizes, as a number: constants as Python's own."""
    if isinstance(value, bool | int | float):
        return value
    expression = sympy.sympify(value)
    if expression.is_Float or expression in (sympy.oo, -sympy.oo, sympy.nan):
        return float(expression)
    if is_real(expression):
        return normal_divisions(expression) if has_division(expression) else expression
    return dim(expression)


def symbol(name: str) -> sympy.Symbol:
    """The size symbol called `name`: an integer, at least 0."""
    return sympy.Symbol(name, integer=True, nonnegative=True)


def product(sizes: Iterable[Dim]) -> Dim:
    """The product of `sizes`; 1 for none."""
    result: Dim = 1
    for size in sizes:
        result = result * size
    return dim(result)


def ceil_div(a: Dim, b: int) -> Dim:
    """ceil(a / b) for a nonnegative `a` and a positive constant `b`."""
    if isinstance(a, int):
        return -(-a // b)
    return dim(sympy.floor((a + (b - 1)) / b))


def same(a: Dim, b: Dim) -> bool:
    """Whether two sizes are provably equal."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return a == b or sympy.expand(a - b) == 0


def same_shape(a: Iterable[Dim], b: Iterable[Dim]) -> bool:
    """Whether two shapes have equal rank and provably equal sizes."""
    left, right = tuple(a), tuple(b)
    return len(left) == len(right) and all(same(x, y) for x, y in zip(left, right, strict=True))


def symbols(sizes: Iterable[Dim]) -> tuple[sympy.Symbol, ...]:
    """The symbols that occur in `sizes`, by name."""
    found = {s for size in sizes if not isinstance(size, int) for s in size.free_symbols}
    return tuple(sorted(found, key=lambda s: s.name))


def evaluate(size: Dim, bindings: Mapping[str, int]) -> int:
    """The value of `size` where each symbol has the value that `bindings` gives for its name."""
    return size if isinstance(size, int) else int(compute(size, bindings))


def evaluate_number(value: Number | sympy.Expr, bindings: Mapping[str, int]) -> Number:
    """The value of a number made of sizes: an int, or a double where Python's arithmetic gives one."""
    return compute(value, bindings) if isinstance(value, sympy.Expr) else value


class _Printer(StrPrinter):
    """Doubles with all their digits."""

    def _print_Float(self, e: sympy.Float) -> str:
        return repr(float(e))

    def _print_Infinity(self, e: sympy.Expr) -> str:
        return "inf"

    def _print_NegativeInfinity(self, e: sympy.Expr) -> str:
        return "-inf"


_PRINTER = _Printer()


def show(size: Dim) -> str:
    """The text of a size, or of a number made of sizes, without spaces, that the IR grammar reads back."""
    if isinstance(size, int):
        return str(size)
    return size.name if size.is_Symbol else str(_PRINTER.doprint(size)).replace(" ", "")


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides, in elements."""
    strides: list[Dim] = []
    step: Dim = 1
    for size in reversed(shape):
        strides.append(step)
        step = dim(step * size) if size != 0 else step
    return tuple(reversed(strides))


_HINTS: ContextVar[Mapping[str, int]] = ContextVar("hints", default=MappingProxyType({}))


@contextmanager
def hinted(hints: Mapping[str, int]) -> Iterator[None]:
    """Within it, size symbols count as these numbers where what is quickest is estimated: what they are in a call.

    >>> with hinted({"s0": 4}):
    ...     elements((symbol("s0"), symbol("s1")))
    512
    """
    token = _HINTS.set(MappingProxyType(dict(hints)))
    try:
        yield
    finally:
        _HINTS.reset(token)


def hints() -> Mapping[str, int]:
    """What `hinted` says here."""
    return _HINTS.get()


def elements(shape: Shape, hint: Mapping[str, int] | None = None) -> int:
    """The number of elements of a shape, symbols at their hints (those of `hinted`, else 128).

    A size that would be below 0 there (of a window that is larger than what it slides over) counts as 0.
    """
    known = _HINTS.get()
    names = {s.name: known.get(s.name, 128) for s in symbols(shape)}
    names.update(hint or {})
    return math.prod(max(evaluate(size, names), 0) for size in shape)
