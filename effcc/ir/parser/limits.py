"""Limits on what a text may state: files are written by hand, or to harm, and reading one must end soon.

Numbers stay below 2^512 and the sizes of tensors below 2^63, powers are small, and what nests deeper than Python's
stack is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sympy

from effcc.errors import IRSyntaxError, IRTypeError
from effcc.ir.size_functions import is_real

_BITS = 512
_DIGITS = 150
_LARGEST_POWER = 8
_MOST_TERMS = 10_000


def whole(text: str) -> int:
    """The integer that digits say. Raises IRTypeError for more of them than any number of a model has."""
    if len(text) <= _DIGITS:
        return int(text)
    raise IRTypeError(f"expected an integer of at most {_DIGITS} digits, got {len(text)}")


def bounded(value: Any) -> Any:
    """A size, unless it is a number beyond all bounds, or would be when multiplied out. Raises IRTypeError."""
    if getattr(value, "is_Integer", isinstance(value, int)) and int(value).bit_length() > _BITS:
        raise IRTypeError(f"expected a number of at most {_BITS} bits, got {int(value).bit_length()}")
    if getattr(value, "is_Mul", False) or getattr(value, "is_Pow", False):
        _require_few_terms(value)
    return value


def extent(size: Any) -> Any:
    """A size of a tensor. Raises IRTypeError where it is a double, or a number that no address counts to."""
    if is_real(size):
        raise IRTypeError(f"expected a size, got the double {size}")
    if isinstance(size, int) and abs(size) >= 2**63:
        raise IRTypeError(f"expected a size below 2^63, got one of {size.bit_length()} bits")
    return size


def quotient(a: Any, b: Any) -> Any:
    """`a / b`. Raises IRTypeError where `b` is zero."""
    if b == 0:
        raise IRTypeError("the size divides by zero")
    return a / b


def power(base: Any, exponent: Any) -> Any:
    """`base ** exponent` for a small exponent. Raises IRTypeError."""
    exponent = sympy.sympify(exponent)
    if base.is_Integer and exponent.is_Integer and exponent >= 0 and abs(int(base)) > 1:
        most = _BITS // (abs(int(base)).bit_length() - 1)
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
