"""Sizes in a package's manifest: data, not text to be evaluated.

A size is an integer (`64`), the name of a size symbol (`"s0"`), or an operation on sizes, one of `OPERATIONS`
(`["add", ["mul", 2, "s0"], 1]`) or of `effcc.ir.size_table` (`["trunc", ["fmul", 0.7, ["real", "s0"]]]`), whose
operands may be doubles. Every integer, on the way too, is below 2^62, so that native code's 64-bit arithmetic agrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from effcc.errors import InputError
from effcc.ir.size_table import TABLE, Number

Size: TypeAlias = "int | float | str | tuple[Any, ...]"

LARGEST = 2**62
MOST_PARTS = 2000
"""How many operations, symbols and numbers one size may be made of."""
DEEPEST = 40


def _floor_divide(operands: Sequence[int]) -> int:
    return operands[0] // operands[1]


def _remainder(operands: Sequence[int]) -> int:
    return operands[0] % operands[1]


OPERATIONS: Mapping[str, tuple[Callable[[Sequence[int]], int], int, int | None]] = {
    "add": (sum, 1, None),
    "mul": (math.prod, 1, None),
    "max": (max, 1, None),
    "min": (min, 1, None),
    "floordiv": (_floor_divide, 2, 2),
    "mod": (_remainder, 2, 2),
}
"""What an operation computes, and how many operands it has: at least, at most."""
FUNCTIONS = {entry.name: entry for entry in TABLE}
"""Operations that give doubles or take them, and others that are not of native code's own."""
_OPERANDS: Mapping[str, tuple[int, int | None]] = {
    **{name: (least, most) for name, (_, least, most) in OPERATIONS.items()},
    **{name: (entry.arity, entry.arity) for name, entry in FUNCTIONS.items()},
}


def check_size(value: Any) -> Size:
    """`value`, as read from JSON, if it is a size. Raises ValueError saying what is wrong with it."""
    size = check_number(value)
    if _is_real(size):
        raise ValueError(f"expected an integer as a size, got {show(size)[:80]}")
    return size


def check_number(value: Any) -> Size:
    """`value`, as read from JSON, if it is a size or a double made of sizes. Raises ValueError."""
    size = _checked(value, 0)
    if sum(1 for _ in _parts(size)) > MOST_PARTS:
        raise ValueError(f"a size of more than {MOST_PARTS} parts")
    return size


def _is_real(size: Size) -> bool:
    """Whether a part of a size is a double."""
    return isinstance(size, float) or (isinstance(size, tuple) and size[0] in FUNCTIONS and FUNCTIONS[size[0]].real)


def _checked(value: Any, depth: int) -> Size:
    if depth > DEEPEST:
        raise ValueError(f"a size that nests deeper than {DEEPEST} levels")
    if type(value) is int:
        if abs(value) >= LARGEST:
            raise ValueError(f"expected a number below 2^62 in a size, got {value}")
        return value
    if isinstance(value, str):
        if not (value.isidentifier() and value.isascii() and len(value) <= 64):
            raise ValueError(f"expected a size symbol, got {value[:80]!r}")
        return value
    if type(value) is float:
        return value
    if isinstance(value, list | tuple) and value and isinstance(value[0], str) and value[0] in _OPERANDS:
        name, *operands = value
        least, most = _OPERANDS[name]
        if len(operands) < least or (most is not None and len(operands) > most):
            raise ValueError(f"{name!r} in a size has {len(operands)} operands")
        found = [_checked(o, depth + 1) for o in operands]
        takes = FUNCTIONS[name].takes if name in FUNCTIONS else "i" * len(found)
        if any(_is_real(o) != (kind == "f") for o, kind in zip(found, takes, strict=True)):
            raise ValueError(f"{name!r} in a size takes {takes}: i for integers, f for doubles; got {str(value)[:80]}")
        return (name, *found)
    raise ValueError(
        f"expected a size (a number, a symbol, or [operation, ...] with one of {', '.join(OPERATIONS)}), "
        f"got {str(value)[:80]}"
    )


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The value of `size` where each symbol has the value that `values` gives.

    >>> evaluate(("add", ("mul", 2, "s0"), 1), {"s0": 3})
    7

    Raises InputError for a division by zero, and for what is 2^62 or more.
    """
    return int(evaluate_number(size, values))


def evaluate_number(size: Size, values: Mapping[str, int]) -> Number:
    """The value of a size or of a double made of sizes. Raises as `evaluate` does."""
    if isinstance(size, int | float):
        return size
    if isinstance(size, str):
        return values[size]
    name, *operands = size
    given: list[Any] = [evaluate_number(o, values) for o in operands]
    if name in FUNCTIONS:
        return _applied(size, given, values)
    if name in ("floordiv", "mod") and given[1] == 0:
        raise InputError(f"the size {show(size)} divides by zero where {_assigned(size, values)}")
    if name == "mul" and 0 not in given and sum(map(int.bit_length, given)) > 2 * LARGEST.bit_length():
        raise _too_large(size, values)
    found = OPERATIONS[name][0](given)
    if abs(found) >= LARGEST:
        raise _too_large(size, values)
    return found


def _applied(size: Any, given: Sequence[Any], values: Mapping[str, int]) -> Number:
    """A function of `effcc.ir.size_table`, with Python's own errors as one of ours."""
    try:
        found = FUNCTIONS[size[0]].compute(*given)
    except (ArithmeticError, ValueError) as error:
        raise InputError(f"the size {show(size)} has no value where {_assigned(size, values)}: {error}") from None
    if isinstance(found, int) and abs(found) >= LARGEST:
        raise _too_large(size, values)
    return found


def symbols_of(size: Size) -> set[str]:
    """The names of the symbols that a size depends on."""
    return {part for part in _parts(size) if isinstance(part, str)}


def show(size: Size) -> str:
    """The text of a size, as effcc's IR has it where it can.

    >>> show(("floordiv", ("add", ("mul", 2, "s0"), 1), 4))
    'floor((2*s0+1)/4)'
    """
    if not isinstance(size, tuple):
        return str(size)
    name, *operands = size
    match name:
        case "add":
            return "+".join(map(show, operands)).replace("+-", "-")
        case "mul":
            return "*".join(map(_factor, operands))
        case "floordiv":
            return f"floor({_factor(operands[0])}/{_factor(operands[1])})"
    return f"{name if name in FUNCTIONS else name.capitalize()}({','.join(map(show, operands))})"


def _factor(size: Size) -> str:
    return f"({show(size)})" if isinstance(size, tuple) and size[0] in ("add", "mul") else show(size)


def _parts(size: Size) -> Iterator[Size]:
    """The size's symbols, numbers and operations."""
    yield 0 if isinstance(size, tuple) else size
    if isinstance(size, tuple):
        for operand in size[1:]:
            yield from _parts(operand)


def _too_large(size: Size, values: Mapping[str, int]) -> InputError:
    return InputError(f"the size {show(size)} is beyond 2^62 where {_assigned(size, values)}")


def _assigned(size: Size, values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {values[name]}" for name in sorted(symbols_of(size))) or "nothing varies"
