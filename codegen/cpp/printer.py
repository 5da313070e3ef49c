"""Vectors as C++ text: two-space indents, one statement a line, nothing decided here but parentheses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from effcc.codegen.cpp.calls_together import grouped
from effcc.codegen.cpp.expression_text import Texts, outlined_name
from effcc.codegen.cpp.short_loops import turns_stay_apart
from effcc.codegen.cpp.spelling import element_name, spell, type_name
from effcc.ir.sharing import is_all_shared
from effcc.ir.vectors import (
    Array,
    Assign,
    Barrier,
    Branch,
    Call,
    Check,
    FirstThread,
    Function,
    Let,
    Line,
    Loop,
    Parameter,
    Prefetch,
    Registers,
    SetLane,
    Share,
    Store,
    StoreRows,
    Tiles,
    TileStore,
    Type,
)  # fmt: skip

_WIDTH = 110
_STACK_LIMIT = 64 << 10
"""Local arrays of more bytes live in each thread's own static storage: stacks of threads can be small."""


@dataclass(frozen=True)
class Printed:
    """A function's text, and the headers of the library that it needs."""

    text: str
    headers: frozenset[str]


def print_function(function: Function) -> Printed:
    """The text of a function."""
    lines = _Lines(function)
    text = _wrapped(f"void {function.name}(", _parameters(function), ") {")
    text += ["  claims alone = me.claim(1);", "  if (!alone.next()) return;"] if function.first_only else []
    text += ["  const matrix_unit unit;"] if function.has_tiles else []
    text += ["  missed fault;"] if function.checks else []
    text += lines.text(function.body, "  ")
    text += ["  faults.add(fault);"] if function.checks else []
    return Printed("\n".join([*text, "}"]), lines.texts.headers())


def print_declaration(function: Function) -> str:
    """A function's declaration, in one line."""
    return f"void {function.name}({', '.join(_parameters(function))});"


def _parameters(function: Function) -> list[str]:
    parameters = [*map(_parameter, function.buffers), *(f"i64 {name}" for name, _ in function.sizes)]
    return [*parameters, "worker& me", *(["checks faults"] if function.checks else [])]


def print_called(called: tuple[str, Type]) -> str:
    """The function that is called where `called` is used."""
    name, type = called
    template, _ = spell(name, type.dtype)
    operands = ["x", "y"] if "{1}" in template else ["x"]
    given = ", ".join(f"{type_name(type)} {operand}" for operand in operands)
    return (
        f"static __attribute__((noinline)) {type_name(type)} {outlined_name(name)}({given}) {{ "
        f"return {template.format(*operands)}; }}"
    )


def print_called_at_once(called: tuple[str, Type, int]) -> str:
    """The function that is called where `called` is used for several vectors at once."""
    name, type, count = called
    vector = type_name(type)
    given = ", ".join([*(f"{vector}& y_{n}" for n in range(count)), *(f"{vector} x_{n}" for n in range(count))])
    body = " ".join(f"y_{n} = {name}(x_{n});" for n in range(count))
    return f"static EFFCC_INTERLEAVED void {outlined_name(name)}({given}) {{ {body} }}"


def _parameter(p: Parameter) -> str:
    constant = "const " if p.read_only else ""
    restrict = " __restrict" if p.alone else ""
    return f"{constant}{element_name(p.dtype)}*{restrict} {p.name}"


def _array(indent: str, element: str, name: str, length: int, size: int) -> Iterator[str]:
    """A local array of `size` bytes; of a thread's own storage, the address that is found once."""
    if size <= _STACK_LIMIT:
        yield f"{indent}alignas(64) {element} {name}[{length}];"
        return
    yield f"{indent}alignas(64) static thread_local {element} {name}_storage[{length}];"
    yield f"{indent}{element}* const {name} = found({name}_storage);"


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


class _Lines:
    """The statements of one function."""

    def __init__(self, function: Function) -> None:
        self.called = function.called
        self.texts = Texts(function.called)
        self.meet = "me.meet_begun();" if is_all_shared(function) else "me.meet();"

    def _at_once(self, lets: Sequence[Line], indent: str) -> Iterator[str]:
        """Several calls of one function as one call."""
        names = [line.name for line in lets if isinstance(line, Let)]
        calls = [line.value for line in lets if isinstance(line, Let) and isinstance(line.value, Call)]
        yield f"{indent}{type_name(calls[0].type)} {', '.join(names)};"
        function, operands = self.texts.calls(calls)
        yield from _wrapped(f"{indent}{function}(", [*names, *operands], ");", indent + "    ")

    def text(self, body: Sequence[Line], indent: str) -> Iterator[str]:
        """The lines of a body."""
        texts = self.texts
        for line, *others in grouped(body, self.called):
            if others:
                yield from self._at_once([line, *others], indent)
                continue
            match line:
                case Let(name, value):
                    yield f"{indent}const {type_name(value.type)} {name} = {texts.whole(value)};"
                case Assign(name, value) if value.type.rows > 1:
                    yield f"{indent}{texts.set_tile(name, value)};"
                case Assign(name, value):
                    yield f"{indent}{name} = {texts.whole(value)};"
                case Store():
                    yield f"{indent}{texts.store(line)};"
                case Registers(type, names, None):
                    items = [f"{name}{{}}" for name in names]
                    yield from _wrapped(f"{indent}{type_name(type)} ", items, ";", indent + "    ")
                case Registers(type, names, start) if start is not None:
                    items = [f"{name} = {texts.whole(start)}" for name in names]
                    yield from _wrapped(f"{indent}{type_name(type)} ", items, ";", indent + "    ")
                case Tiles(type, names, at):
                    for register, name in enumerate(names, at):
                        yield f"{indent}tile<{element_name(type.dtype)}, {register}> {name};"
                case TileStore():
                    yield f"{indent}{texts.store_tile(line)};"
                case Array(dtype, name, length):
                    yield from _array(indent, element_name(dtype), name, length, length * dtype.bytes)
                case SetLane():
                    yield f"{indent}{texts.set_lane(line)};"
                case StoreRows():
                    yield f"{indent}{texts.store_rows(line)};"
                case Prefetch(place, near):
                    yield f"{indent}__builtin_prefetch({texts.place(place)}, 0, {3 if near else 2});"
                case Barrier():
                    yield f"{indent}{self.meet}"
                case Check():
                    condition, note = texts.check(line)
                    yield f"{indent}if (rarely({condition})) {{"
                    yield f"{indent}  {note};"
                    yield f"{indent}}}"
                case Loop(name, start, stop, step, inner):
                    advance = f"++{name}" if step == 1 else f"{name} += {step}"
                    first, end = texts.whole(start), texts.whole(stop)
                    yield f"{indent}for (i64 {name} = {first}; {name} < {end}; {advance}) {{"
                    if turns_stay_apart(line):
                        yield f"{indent}  forget_loads();"
                    yield from self.text(inner, indent + "  ")
                    yield f"{indent}}}"
                case Share(name, count, inner, comment):
                    yield f"{indent}// parallel {comment}"
                    yield f"{indent}for (claims work = me.claim({texts.whole(count)}); range piece = work.next();)"
                    yield f"{indent}  for (i64 {name} = piece.begin; {name} < piece.end; ++{name}) {{"
                    yield from self.text(inner, indent + "    ")
                    yield f"{indent}  }}"
                case Branch(FirstThread(), inner, ()):
                    yield f"{indent}for (claims alone = me.claim(1); alone.next();) {{"
                    yield from self.text(inner, indent + "  ")
                    yield f"{indent}}}"
                case Branch(condition, inner, orelse):
                    yield f"{indent}if ({texts.condition(condition)}) {{"
                    yield from self.text(inner, indent + "  ")
                    if orelse:
                        yield f"{indent}}} else {{"
                        yield from self.text(orelse, indent + "  ")
                    yield f"{indent}}}"
