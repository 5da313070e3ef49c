"""Limits on what a text may state: files are written by hand, or to harm, and reading one must end soon.

Sizes stay below 2^63 on the way as well, powers are small, and what nests deeper than Python's stack is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sympy

from effcc.errors import IRSyntaxError, IRTypeError

_DIGITS = 19
_LARGEST_POWER = 8
_MOST_TERMS = 10_000


def whole(text: str) -> int:
    """The integer that digits say. Raises IRTypeError beyond 64 bits."""
    if len(text) <= _DIGITS + 1 and abs(int(text)) < 2**64:
        return int(text)
    raise IRTypeError(f"expected an integer of 64 bits, got one of {len(text)} digits")


def bounded(value: Any) -> Any:
    """A size, unless it is a number beyond 64 bits, or none at all. Raises IRTypeError."""
    if getattr(value, "is_Integer", isinstance(value, int)) and abs(int(value)) >= 2**64:
        raise IRTypeError(f"expected a size of 64 bits, got one of {int(value).bit_length()} bits")
    if getattr(value, "is_Mul", False) or getattr(value, "is_Pow", False):
        _require_few_terms(value)
    return value


def quotient(a: Any, b: Any) -> Any:
    """`a / b`. Raises IRTypeError where `b` is zero."""
    if b == 0:
        raise IRTypeError("the size divides by zero")
    return a / b


def power(base: Any, exponent: Any) -> Any:
    """`base ** exponent` for a small exponent. Raises IRTypeError."""
    exponent = sympy.sympify(exponent)
    if base.is_Integer and exponent.is_Integer and exponent >= 0 and abs(int(base)) > 1:
        most = 64 // (abs(int(base)).bit_length() - 1)
    else:
        most = _LARGEST_POWER
    if not exponent.is_Integer or abs(exponent) > most:
        raise IRTypeError(f"expected a whole exponent of at most {most} here, got {str(exponent)[:40]}")
    if base.is_zero and exponent < 0:
        raise IRTypeError("the size divides by zero")
    if not exponent.is_negative and _terms(base) ** int(exponent) > _MOST_TERMS:
        raise IRTypeError(f"expected a size of at most {_MOST_TERMS} terms, got a power of sums with more")
    return base**exponent


def _require_few_terms(size: Any) -> None:
    if _terms(size) > _MOST_TERMS:
        raise IRTypeError(f"expected a size of at most {_MOST_TERMS} terms, got a product of sums with more")


def _terms(size: Any) -> int:
    """How many terms a size may have when it is multiplied out."""
    if size.is_Add:
        return sum(map(_terms, size.args))
    if size.is_Mul:
        return math.prod(map(_terms, size.args))
    if size.is_Pow and size.exp.is_Integer and size.exp > 0:
        return int(_terms(size.base) ** min(int(size.exp), 64))
    return 1


@contextmanager
def size_arithmetic() -> Iterator[None]:
    """What sympy raises for operands that a function of sizes does not have comes out as IRTypeError."""
    try:
        yield
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise IRTypeError(f"the size has no value: {error}") from None


@contextmanager
def shallow(path: str) -> Iterator[None]:
    """What nests too deeply comes out as IRSyntaxError."""
    try:
        yield
    except RecursionError:
        raise IRSyntaxError("the text nests too deeply to be read", 1, 1, path=path) from None
