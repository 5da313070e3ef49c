"""Transcendental functions that one kernel calls many times become calls.

Written out at every place, a register tile with an activation (22 polynomials of 40 instructions each) takes longer to
compile than all the rest; a call costs little beside the polynomial.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from effcc.codegen.cpp.form import Block, Branch, Function, Let, Line, Loop, Shared
from effcc.codegen.cpp.spelling import SPELLINGS

_INLINED = 6
"""A function called at no more places than this is written out at each."""

_HEAVY = frozenset(name for name, spelling in SPELLINGS.items() if spelling.header not in ("vec.h", "pow.h"))
_CALL = re.compile(r"(\w+)\(.*\)")

Call = tuple[str, str]
"""A function and the type of its operands and result."""


def outline(function: Function) -> Function:
    """`function` with its frequent transcendental functions called instead of inlined; `outlined` says which."""
    places = Counter(call for let in _lets(function.body) if (call := _heavy_call(let)) is not None)
    frequent = frozenset(call for call, count in places.items() if count > _INLINED)
    if not frequent:
        return function

    def rewrite(let: Let) -> Let:
        call = _heavy_call(let)
        if call not in frequent:
            return let
        name = call[0]
        return replace(let, value=outlined_name(name) + let.value[len(name) :])

    return replace(function, body=_map(function.body, rewrite), outlined=tuple(sorted(frequent)))


def outlined_name(name: str) -> str:
    return f"call_{name}"


def outlined_text(call: Call) -> str:
    """The function that stands for `call`."""
    name, type = call
    operands = ["x", "y"] if "{1}" in SPELLINGS[name].floats else ["x"]
    given = ", ".join(f"{type} {operand}" for operand in operands)
    return (
        f"static __attribute__((noinline)) {type} {outlined_name(name)}({given}) {{ "
        f"return {name}({', '.join(operands)}); }}"
    )


def _heavy_call(let: Let) -> Call | None:
    found = _CALL.fullmatch(let.value)
    return (found[1], let.type) if found is not None and found[1] in _HEAVY else None


def _lets(body: Iterable[Line]) -> Iterable[Let]:
    for line in body:
        match line:
            case Let():
                yield line
            case Loop(body=inner) | Block(body=inner) | Shared(body=inner):
                yield from _lets(inner)
            case Branch():
                yield from _lets((*line.body, *line.orelse))


def _map(body: tuple[Line, ...], rewrite: Callable[[Let], Let]) -> tuple[Line, ...]:
    def one(line: Line) -> Line:
        match line:
            case Let():
                return rewrite(line)
            case Loop() | Block() | Shared():
                return replace(line, body=_map(line.body, rewrite))
            case Branch():
                return replace(line, body=_map(line.body, rewrite), orelse=_map(line.orelse, rewrite))
        return line

    return tuple(one(line) for line in body)
