"""The vector form as C++ text: two-space indents, one statement a line, nothing decided here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from effcc.codegen.cpp.form import (
    Array,
    Barrier,
    Block,
    Branch,
    Do,
    Function,
    Let,
    Line,
    Loop,
    Note,
    Registers,
    Shared,
)  # fmt: skip
from effcc.ir.dtypes import DTYPES

_WIDTH = 110
_STACK_LIMIT = 64 << 10
"""Local arrays of more bytes live in each thread's own static storage: stacks of threads can be small."""


def print_function(function: Function) -> str:
    """The text of a function."""
    head = _wrapped(f"void {function.name}(", _parameters(function), ") {")
    return "\n".join([*head, *_lines(function.body, "  "), "}"])


def print_declaration(function: Function) -> str:
    """A function's declaration, in one line."""
    return f"void {function.name}({', '.join(_parameters(function))});"


def _parameters(function: Function) -> list[str]:
    parameters = [f"{p.type} {p.name}" for p in (*function.buffers, *function.sizes)]
    return [*parameters, "worker& me", *(["checks faults"] if function.checks else [])]


def _wrapped(head: str, items: Sequence[str], tail: str, indent: str = "    ") -> list[str]:
    """`head items tail` on one line, or the items on lines of their own filled up to the width."""
    one = head + ", ".join(items) + tail
    if len(one) <= _WIDTH:
        return [one]
    first, *texts = [f"{item}," for item in items[:-1]] + [items[-1] + tail]
    lines = [head + first]
    for text in texts:
        if len(lines[-1]) + 1 + len(text) <= _WIDTH:
            lines[-1] += f" {text}"
        else:
            lines.append(indent + text)
    return lines


def _lines(body: Sequence[Line], indent: str) -> Iterator[str]:
    for line in body:
        match line:
            case Let(type, name, value):
                yield f"{indent}const {type} {name} = {value};"
            case Registers(type, names, value):
                items = [f"{name}{value}" if value == "{}" else f"{name} = {value}" for name in names]
                yield from _wrapped(f"{indent}{type} ", items, ";", indent + "    ")
            case Array(type, name, length):
                storage = "static thread_local " if length * DTYPES[type].bytes > _STACK_LIMIT else ""
                yield f"{indent}alignas(64) {storage}{type} {name}[{length}];"
            case Do(text):
                yield indent + text
            case Note(text):
                yield f"{indent}// {text}"
            case Barrier():
                yield f"{indent}me.meet();"
            case Loop(name, start, stop, step, inner):
                advance = f"++{name}" if step == 1 else f"{name} += {step}"
                yield f"{indent}for (i64 {name} = {start}; {name} < {stop}; {advance}) {{"
                yield from _lines(inner, indent + "  ")
                yield f"{indent}}}"
            case Shared(name, count, inner, comment):
                yield f"{indent}// parallel {comment}"
                yield f"{indent}for (claims work = me.claim({count}); range piece = work.next();)"
                yield f"{indent}  for (i64 {name} = piece.begin; {name} < piece.end; ++{name}) {{"
                yield from _lines(inner, indent + "    ")
                yield f"{indent}  }}"
            case Branch(condition, inner, orelse):
                yield f"{indent}if ({_stripped(condition)}) {{"
                yield from _lines(inner, indent + "  ")
                if orelse:
                    yield f"{indent}}} else {{"
                    yield from _lines(orelse, indent + "  ")
                yield f"{indent}}}"
            case Block(inner, comment):
                yield f"{indent}{{  // {comment}" if comment else f"{indent}{{"
                yield from _lines(inner, indent + "  ")
                yield f"{indent}}}"


def _stripped(condition: str) -> str:
    return condition[1:-1] if condition.startswith("(") and condition.find(")") == len(condition) - 1 else condition
