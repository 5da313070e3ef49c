"""JSON from files that may be damaged or made to harm: no key twice, no NaN, no number or nesting without bound."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from effcc.errors import PackageError

DEEPEST = 64
"""How many arrays and objects may stand one in the other."""

_MOST_DIGITS = 20
_STRINGS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BRACKETS = re.compile(r"[\[\]{}]")


def read_json(content: bytes, what: str) -> Any:
    """The value that UTF-8 text holds; `what` names the text in errors.

    Raises PackageError for anything that RFC 8259 does not allow, and for what it leaves open: a byte-order mark, keys
    that come twice, surrogates, numbers that no i64 or f64 holds, nesting deeper than `DEEPEST`.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PackageError(f"{what} is damaged: expected UTF-8 text, got {error}") from None
    if _depth(text) > DEEPEST:
        raise PackageError(f"{what} is damaged: it nests deeper than {DEEPEST} levels")
    try:
        found = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except ValueError as error:
        raise PackageError(f"{what} is damaged: {error}") from None


def is_text(value: str) -> bool:
    """Whether a string is what people name things with: no control characters, no halves of characters."""
    return all(ch.isprintable() for ch in value)


def _depth(text: str) -> int:
    """How deep brackets stand in each other at most."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} comes twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:24]} is no finite number")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
