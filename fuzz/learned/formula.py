"""Formulas of sizes and integers as texts: `(self_0 + 2) // 2`, `self_1 == mat2_0`, `broadcast(self, other)`.

Names of numbers are those of `structure.numbers`; a tensor's own name is its shape. A text may come from a file, so it
is read as a small language, not run as Python.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

Shape = tuple[int, ...]


class FormulaError(ValueError):
    """A text that is no formula."""


class Undefined(Exception):
    """A formula that has no value there: a division by zero, shapes that do not broadcast, a name that is missing."""


def broadcast(*shapes: Shape) -> Shape:
    """The shape that shapes have together: each axis the same, or 1. Raises Undefined."""
    found = [1] * max(len(s) for s in shapes)
    for shape in shapes:
        for axis, size in enumerate(reversed(shape), 1):
            if size != 1 and found[-axis] not in (1, size):
                raise Undefined
            found[-axis] = size if size != 1 else found[-axis]
    return tuple(found)


def _broadcastable(*shapes: Shape) -> bool:
    try:
        broadcast(*shapes)
    except Undefined:
        return False
    return True


def _window(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many windows of a kernel there are along an axis: those of convolutions and poolings."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "ceil": lambda a, b: -(-a // b),
    "product": math.prod,
    "rank": len,
    "window": _window,
    "broadcast": broadcast,
    "broadcastable": _broadcastable,
    "into": lambda one, other: _broadcastable(one, other) and broadcast(one, other) == other,
    "join": lambda a, b: b if a == 1 else a,
}
"""What formulas call. `into(a, b)`: whether a broadcasts to b's shape; `join(a, b)`: the size that two broadcast to."""

_NODES = (
    ast.Expression, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.UnaryOp, ast.USub, ast.Compare,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.BoolOp, ast.Or, ast.And, ast.Name, ast.Load, ast.Constant,
    ast.Call, ast.List,
)  # fmt: skip


@cache
def _compiled(text: str) -> Any:
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise FormulaError(f"expected a formula, got '{text}'") from error
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS)
        number = isinstance(node, ast.Constant) and type(node.value) is not int
        if not isinstance(node, _NODES) or called or number:
            raise FormulaError(f"a formula has numbers, names, + - * // % and {', '.join(FUNCTIONS)}; got '{text}'")
    return compile(tree, "<formula>", "eval")


def check(text: str) -> str:
    """The text, if it is a formula. Raises FormulaError."""
    _compiled(text)
    return text


def names(text: str) -> frozenset[str]:
    """The names in a formula, but those of functions."""
    return frozenset(_compiled(text).co_names) - FUNCTIONS.keys()


def value(text: str, given: Mapping[str, int | Shape]) -> Any:
    """What a formula comes to. Raises Undefined."""
    try:
        return eval(_compiled(text), {"__builtins__": {}, **FUNCTIONS, **given})
    except (ZeroDivisionError, NameError, TypeError, OverflowError) as error:
        raise Undefined from error


def holds(text: str, given: Mapping[str, int | Shape]) -> bool:
    """Whether a condition is met; one without a value is not."""
    try:
        return bool(value(text, given))
    except Undefined:
        return False


def shape(text: str, given: Mapping[str, int | Shape]) -> Shape:
    """The shape that a formula comes to. Raises Undefined."""
    found: Sequence[int] = value(text, given)
    if not isinstance(found, list | tuple):
        raise Undefined
    return tuple(found)
