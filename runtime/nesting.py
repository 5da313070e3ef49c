"""How a model nests its arguments and results, as data in a package's manifest.

    0                                              a tensor: the first of the inputs, or of the outputs (among a model's
                                                   arguments, numbers that a call may change count after all inputs)
    {"tuple": [0, {"list": [1, 2]}]}               a tuple, a list
    {"dict": [["logits", 0], ["past", 1]]}         a dict, in order; keys are strings, numbers, booleans or None
    {"named": ["Output", ["y", "h"], [0, 1]]}      a named tuple: its name, its fields, their values
    {"constant": 3}                                None, a boolean, number or string that the model always has there
    {"constant": {"float": "nan"}}                 a number that JSON has not
    {"size": ["mul", 2, "s0"]}                     a number computed from the sizes of a call

`fill` gives results back as the model does; `flatten` takes arguments apart and says where one differs.
"""

from __future__ import annotations

import keyword
import math
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from effcc.errors import InputError
from effcc.runtime.size_trees import Size, check_number, evaluate_number

Nesting: TypeAlias = "int | dict[str, Any]"

DEEPEST = 20
MOST_PARTS = 100_000
_INFINITE = ("inf", "-inf", "nan")


def check_nesting(value: Any) -> Nesting:
    """`value`, as read from JSON, if it is a nesting. Raises ValueError saying what is wrong with it."""
    for count, _ in enumerate(_checked(value, 0)):
        if count > MOST_PARTS:
            raise ValueError(f"a nesting of more than {MOST_PARTS} parts")
    found: Nesting = value
    return found


def _checked(value: Any, depth: int) -> Iterator[None]:
    yield
    if depth > DEEPEST:
        raise ValueError(f"expected values nested at most {DEEPEST} deep")
    if type(value) is int and 0 <= value < 2**31:
        return
    kind, held = _only(value)
    match kind, held:
        case (("tuple" | "list"), list()):
            parts = held
        case "dict", list() if all(isinstance(pair, list) and len(pair) == 2 for pair in held):
            keys = [key for key, _ in held]
            if not all(_is_plain(key) for key in keys) or len(set(keys)) != len(keys):
                raise ValueError("expected strings, numbers, booleans or None as the keys of a dict, each once")
            parts = [part for _, part in held]
        case "named", [str() as name, list() as fields, list() as parts] if len(fields) == len(parts):
            if not all(map(_is_field, [name, *fields])) or len(set(fields)) != len(fields):
                raise ValueError("expected identifiers as the name and the fields of a named tuple")
        case "constant", _ if _is_plain(held) or _only(held) in [("float", n) for n in _INFINITE]:
            return
        case "size", _:
            check_number(held)
            return
        case _:
            raise ValueError(f"expected a number, or an object that says how values nest, got {str(value)[:80]}")
    for part in parts:
        yield from _checked(part, depth + 1)


def _only(value: Any) -> tuple[str, Any]:
    """The one key and value of an object; ("", None) for anything else."""
    if isinstance(value, dict) and len(value) == 1:
        return next(iter(value.items()))
    return ("", None)


def _is_plain(value: Any) -> bool:
    return value is None or (isinstance(value, bool | int | float | str))


def _is_field(name: Any) -> bool:
    usable = isinstance(name, str) and name.isascii() and name.isidentifier() and len(name) <= 64
    return usable and not keyword.iskeyword(name) and not name.startswith("_")


def _constant(held: Any) -> Any:
    return float(held["float"]) if isinstance(held, dict) else held


def leaves(nesting: Nesting) -> list[int]:
    """The tensors of a nesting, in order."""
    if isinstance(nesting, int):
        return [nesting]
    return [k for _, part in _parts(nesting) for k in leaves(part)]


def _parts(nesting: dict[str, Any]) -> list[tuple[str, Nesting]]:
    """What stands directly in a nesting, with how one reaches it: `[0]`, `['logits']`, `.y`."""
    kind, held = _only(nesting)
    match kind:
        case "tuple" | "list":
            return [(f"[{k}]", part) for k, part in enumerate(held)]
        case "dict":
            return [(f"[{key!r}]", part) for key, part in held]
        case "named":
            return [(f".{field}", part) for field, part in zip(held[1], held[2], strict=True)]
    return []


def prepare_results(nesting: Nesting) -> Callable[[Sequence[Any], Mapping[str, int]], Any]:
    """A function that takes the outputs, and the sizes of the call, to what the model returns.

    >>> prepare_results({"tuple": [1, {"dict": [["h", 0]]}, {"constant": None}]})(["a", "b"], {})
    ('b', {'h': 'a'}, None)
    """
    if isinstance(nesting, int):
        return lambda outputs, _: outputs[nesting]
    kind, held = _only(nesting)
    if kind == "constant":
        constant = _constant(held)
        return lambda *_: constant
    if kind == "size":
        size: Size = check_number(held)
        return lambda _, sizes: evaluate_number(size, sizes)
    parts = [prepare_results(part) for _, part in _parts(nesting)]
    if kind == "dict":
        keys = [key for key, _ in held]
        return lambda outputs, sizes: {k: p(outputs, sizes) for k, p in zip(keys, parts, strict=True)}
    if kind == "list":
        return lambda outputs, sizes: [p(outputs, sizes) for p in parts]
    made: Callable[[Iterable[Any]], Any] = _named(held) if kind == "named" else tuple
    return lambda outputs, sizes: made(p(outputs, sizes) for p in parts)


def _named(held: Sequence[Any]) -> Callable[[Iterable[Any]], Any]:
    """What makes named tuples of that name and those fields, which `check_nesting` has found to be identifiers."""
    kind: Any = namedtuple(held[0], held[1])  # type: ignore[misc] # mypy wants literals
    make: Callable[[Iterable[Any]], Any] = kind._make
    return make


def flatten(nesting: Nesting, value: Any, place: str) -> Iterator[tuple[int, str, Any]]:
    """The tensors of an argument: which input each is, how one reaches it, and the value given.

    place: what the argument is called. Raises InputError where the argument nests otherwise, or is another constant.
    """
    if isinstance(nesting, int):
        yield nesting, place, value
        return
    kind, held = _only(nesting)
    if kind == "constant":
        expected = _constant(held)
        if not _equal(expected, value):
            raise InputError(
                f"argument {place}: expected {expected!r}, which the model was compiled for, got {_told(value)}"
            )
        return
    parts = _parts(nesting)
    if kind == "dict":
        keys = [key for key, _ in held]
        if not isinstance(value, Mapping) or set(value) != set(keys):
            raise InputError(f"argument {place}: expected a dict with {_listed(keys)}, got {_told(value)}")
        given = [value[key] for key in keys]
    else:
        if not isinstance(value, tuple | list) or len(value) != len(parts):
            kind = "tuple" if kind == "named" else kind
            raise InputError(f"argument {place}: expected a {kind} of {len(parts)}, got {_told(value)}")
        given = list(value)
    for (step, part), one in zip(parts, given, strict=True):
        yield from flatten(part, one, place + step)


def _equal(expected: Any, value: Any) -> bool:
    if type(expected) is not type(value):
        return False
    return bool(expected == value) or (isinstance(expected, float) and math.isnan(expected) and math.isnan(value))


def _told(value: Any) -> str:
    """What a value is, shortly."""
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with {_listed(list(value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)[:80] if _is_plain(value) else f"a value of type {type(value).__name__}"


def _listed(keys: Sequence[Any]) -> str:
    return ", ".join(repr(k)[:40] for k in keys[:8]) + (", ..." if len(keys) > 8 else "") or "no keys"
